//! From a batch to bytes.

use std::collections::HashMap;
use std::net::IpAddr;

use prost::Message;
use whence_model::{Outcome, Server};

use crate::{Batch, message};

/// zstd's level 3 is its own default: batches are small and made all the time.
const COMPRESSION_LEVEL: i32 = 3;

/// The batch as protobuf, compressed with zstd. The same batch gives the same bytes.
pub fn encode(batch: &Batch) -> std::io::Result<Vec<u8>> {
    zstd::encode_all(message(batch).encode_to_vec().as_slice(), COMPRESSION_LEVEL)
}

fn message(batch: &Batch) -> message::Batch {
    let mut servers = ServerTable::default();
    let events = batch.events.iter().map(|event| self::event(event, servers.index(&event.server))).collect();
    let coverage =
        batch.coverage.iter().map(|span| self::coverage(span, servers.index(&span.server))).collect();
    let manifest = &batch.manifest;
    message::Batch {
        collector: manifest.collector.0.as_bytes().to_vec(),
        number: manifest.number,
        first_sequence: manifest.first_sequence,
        sealed_at: manifest.sealed_at.0,
        content_hash: manifest.content_hash.to_vec(),
        previous_hash: manifest.previous_hash.to_vec(),
        batch_hash: batch.batch_hash.to_vec(),
        signature: batch.signature.to_vec(),
        servers: servers.servers,
        events,
        coverage,
    }
}

/// Numbers the servers of a batch, which are few, so that each is sent once.
#[derive(Default)]
struct ServerTable<'a> {
    numbers: HashMap<&'a Server, u32>,
    servers: Vec<message::Server>,
}

impl<'a> ServerTable<'a> {
    fn index(&mut self, server: &'a Server) -> u32 {
        if let Some(number) = self.numbers.get(server) {
            return *number;
        }
        let number = u32::try_from(self.servers.len()).unwrap_or(u32::MAX);
        self.numbers.insert(server, number);
        self.servers.push(message::Server {
            host: server.host.clone().into(),
            instance: server.instance.0.as_bytes().to_vec(),
            product: server.product.clone().into(),
            version: bytes(server.version.as_ref()),
            address: server.address.map(ip),
            port: server.port.map(u32::from),
            process_id: server.process_id,
            process_started_at: server.process_started_at.0,
            container_id: bytes(server.container_id.as_ref()),
        });
        number
    }
}

fn bytes(text: Option<&String>) -> Option<Vec<u8>> {
    text.map(|text| text.clone().into_bytes())
}

fn ip(address: IpAddr) -> Vec<u8> {
    match address.to_canonical() {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn text(text: &whence_model::Text) -> message::Text {
    message::Text {
        text: text.text.clone().into(),
        original_bytes: text.original_bytes,
        truncated: text.truncated,
    }
}

fn event(event: &whence_model::Event, server: u32) -> message::Event {
    let principal = &event.principal;
    message::Event {
        kind: event.kind.as_str().into(),
        provider: event.provider.as_str().into(),
        started_at: event.started_at.0,
        duration_ns: event.duration_ns,
        server,
        user: bytes(principal.user.as_ref()),
        login_user: bytes(principal.login_user.as_ref()),
        client_host: bytes(principal.client_host.as_ref()),
        client_ip: principal.client_ip.map(ip),
        client_port: principal.client_port.map(u32::from),
        transport: principal.transport.map(|transport| transport.as_str().into()),
        tls: principal.tls,
        connection_id: event.session.connection_id,
        database: bytes(event.session.database.as_ref()),
        command: event.command.map(|command| command.0),
        statement: event.statement.as_ref().map(|statement| message::Statement {
            class: statement.class.as_str().into(),
            sql: statement.sql.as_ref().map(text),
            fingerprint: statement.fingerprint,
            tables: statement.tables.iter().map(|table| table.clone().into()).collect(),
        }),
        outcome: event.outcome.as_ref().map(outcome),
        gap: event.gap.map(|gap| message::Gap { reason: gap.reason.as_str().into(), events: gap.events }),
        sampled_one_in: event.sampled_one_in,
    }
}

fn outcome(outcome: &Outcome) -> message::Outcome {
    let mut message = message::Outcome { result: outcome.as_str().into(), ..Default::default() };
    match outcome {
        Outcome::Ok { rows_sent, rows_affected } => {
            message.rows_sent = *rows_sent;
            message.rows_affected = *rows_affected;
        }
        Outcome::Error { code, sqlstate, message: error_message } => {
            message.code = *code;
            message.sqlstate = bytes(sqlstate.as_ref());
            message.message = error_message.as_ref().map(text);
        }
        Outcome::Unfinished => {}
    }
    message
}

fn coverage(span: &whence_model::Coverage, server: u32) -> message::Coverage {
    let lost = span
        .lost
        .iter()
        .map(|(reason, events)| message::Gap { reason: reason.as_str().into(), events: *events });
    let filtered_by = span
        .filtered_by
        .iter()
        .map(|(rule, events)| message::Filtered { rule: rule.clone().into(), events: *events });
    message::Coverage {
        server,
        state: span.state.as_str().into(),
        provider: span.provider.map(|provider| provider.as_str().into()),
        from: span.from.0,
        to: span.to.0,
        seen: span.seen,
        stored: span.stored,
        filtered: span.filtered,
        lost: lost.collect(),
        detail: bytes(span.detail.as_ref()),
        filtered_by: filtered_by.collect(),
    }
}
