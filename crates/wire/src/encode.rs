//! From a batch to bytes.

use std::net::IpAddr;

use prost::Message;
use whence_chain::{Hash, Manifest, Signature};
use whence_model::{Coverage, Event, Outcome, Server, Statement, Text};
use zstd::bulk::Compressor;

use crate::{Batch, message};

/// zstd's level 3 is its own default: batches are small and made all the time.
const COMPRESSION_LEVEL: i32 = 3;

/// The batch as protobuf, compressed with zstd. The same batch gives the same bytes.
pub fn encode(batch: &Batch) -> std::io::Result<Vec<u8>> {
    let mut encoder = Encoder::new()?;
    for event in batch.events.iter().cloned() {
        encoder.event(event);
    }
    for span in batch.coverage.iter().cloned() {
        encoder.coverage(span);
    }
    encoder.finish(&batch.manifest, &batch.batch_hash, &batch.signature)
}

/// Encodes one batch after the other. Each event is encoded as it comes and takes a fraction of its memory from then on.
pub struct Encoder {
    compressor: Compressor<'static>,
    /// Sent once each: events and spans name them by their place.
    servers: Vec<Server>,
    /// Those before, as protobuf. Fields of a message may come in any order, and elements of a list one by one.
    contents: Vec<u8>,
    /// With one event or one span in it, it is an element of such a list.
    element: message::Batch,
}

impl Encoder {
    /// Fails when there is no memory for it.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self {
            compressor: Compressor::new(COMPRESSION_LEVEL)?,
            servers: Vec::new(),
            contents: Vec::new(),
            element: message::Batch::default(),
        })
    }

    /// Bytes of the events and spans that wait for [`Encoder::finish`].
    pub fn bytes(&self) -> usize {
        self.contents.len()
    }

    /// Adds the next event of the batch.
    pub fn event(&mut self, event: Event) {
        let server = self.server(&event.server);
        self.element.events.push(self::event(event, server));
        self.put();
        self.element.events.clear();
    }

    /// Adds the next coverage span of the batch.
    pub fn coverage(&mut self, span: Coverage) {
        let server = self.server(&span.server);
        self.element.coverage.push(coverage(span, server));
        self.put();
        self.element.coverage.clear();
    }

    /// The batch, compressed; what comes next is of the next one. When it fails, nothing that was added is lost.
    pub fn finish(
        &mut self,
        manifest: &Manifest,
        batch_hash: &Hash,
        signature: &Signature,
    ) -> std::io::Result<Vec<u8>> {
        let head = message::Batch {
            collector: manifest.collector.0.as_bytes().to_vec(),
            number: manifest.number,
            first_sequence: manifest.first_sequence,
            sealed_at: manifest.sealed_at.0,
            content_hash: manifest.content_hash.to_vec(),
            previous_hash: manifest.previous_hash.to_vec(),
            batch_hash: batch_hash.to_vec(),
            signature: signature.to_vec(),
            servers: self.servers.iter().map(server).collect(),
            ..Default::default()
        };
        let length = self.contents.len();
        self.contents.extend_from_slice(&head.encode_to_vec());
        let compressed = self.compressor.compress(&self.contents);
        self.contents.truncate(length);
        let compressed = compressed?;
        self.contents.clear();
        self.servers.clear();
        Ok(compressed)
    }

    fn server(&mut self, server: &Server) -> u32 {
        // They are few, and mostly it is the same as before.
        let known = self.servers.iter().rposition(|known| known == server);
        let place = known.unwrap_or_else(|| {
            self.servers.push(server.clone());
            self.servers.len() - 1
        });
        u32::try_from(place).unwrap_or(u32::MAX)
    }

    fn put(&mut self) {
        self.contents.extend_from_slice(&self.element.encode_to_vec());
    }
}

fn server(server: &Server) -> message::Server {
    let bytes = |text: &Option<String>| text.clone().map(String::into_bytes);
    message::Server {
        host: server.host.clone().into(),
        instance: server.instance.0.as_bytes().to_vec(),
        product: server.product.clone().into(),
        version: bytes(&server.version),
        address: server.address.map(ip),
        port: server.port.map(u32::from),
        process_id: server.process_id,
        process_started_at: server.process_started_at.0,
        container_id: bytes(&server.container_id),
    }
}

fn ip(address: IpAddr) -> Vec<u8> {
    match address.to_canonical() {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn text(text: Text) -> message::Text {
    message::Text { text: text.text.into(), original_bytes: text.original_bytes, truncated: text.truncated }
}

fn statement(statement: Statement) -> message::Statement {
    message::Statement {
        class: statement.class.as_str().into(),
        sql: statement.sql.map(text),
        fingerprint: statement.fingerprint,
        tables: statement.tables.into_iter().map(String::into_bytes).collect(),
    }
}

fn event(event: Event, server: u32) -> message::Event {
    let principal = event.principal;
    message::Event {
        kind: event.kind.as_str().into(),
        provider: event.provider.as_str().into(),
        started_at: event.started_at.0,
        duration_ns: event.duration_ns,
        server,
        user: principal.user.map(String::into_bytes),
        login_user: principal.login_user.map(String::into_bytes),
        client_host: principal.client_host.map(String::into_bytes),
        client_ip: principal.client_ip.map(ip),
        client_port: principal.client_port.map(u32::from),
        transport: principal.transport.map(|transport| transport.as_str().into()),
        tls: principal.tls,
        connection_id: event.session.connection_id,
        database: event.session.database.map(String::into_bytes),
        command: event.command.map(|command| command.0),
        statement: event.statement.map(statement),
        outcome: event.outcome.map(outcome),
        gap: event.gap.map(|gap| message::Gap { reason: gap.reason.as_str().into(), events: gap.events }),
        sampled_one_in: event.sampled_one_in,
    }
}

fn outcome(outcome: Outcome) -> message::Outcome {
    let mut message = message::Outcome { result: outcome.as_str().into(), ..Default::default() };
    match outcome {
        Outcome::Ok { rows_sent, rows_affected } => {
            message.rows_sent = rows_sent;
            message.rows_affected = rows_affected;
        }
        Outcome::Error { code, sqlstate, message: error_message } => {
            message.code = code;
            message.sqlstate = sqlstate.map(String::into_bytes);
            message.message = error_message.map(text);
        }
        Outcome::Unfinished => {}
    }
    message
}

fn coverage(span: Coverage, server: u32) -> message::Coverage {
    let lost = span.lost.into_iter();
    let lost = lost.map(|(reason, events)| message::Gap { reason: reason.as_str().into(), events });
    let filtered_by = span.filtered_by.into_iter();
    let filtered_by = filtered_by.map(|(rule, events)| message::Filtered { rule: rule.into(), events });
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
        detail: span.detail.map(String::into_bytes),
        filtered_by: filtered_by.collect(),
    }
}
