//! An event's row, judged where it lies in the answer: nothing of it is copied, and little of it goes on.

use std::net::{IpAddr, Ipv6Addr};

use uuid::Uuid;
use whence_chain::canonical::{EventFields, OutcomeFields, ServerFields, StatementFields, TextFields};
use whence_chain::{Hash, event_fields_hash};
use whence_model::{EventKind, Gap, LossReason, Provider, StatementClass, Timestamp, Transport};

use super::row_binary::{Stop, Value, row};
use super::{Kind, columns};

row! {
    /// One stored event.
    StoredEvent<'a> {
        collector_id: Uuid,
        sequence: u64,
        event_id: Uuid,
        batch_id: Uuid,
        kind: &'a str,
        provider: &'a str,
        started_at: Timestamp,
        duration_ns: Option<u64>,
        received_at: Timestamp,
        host: &'a str,
        instance_id: Uuid,
        product: &'a str,
        version: Option<&'a str>,
        server_ip: Option<Ipv6Addr>,
        server_port: Option<u16>,
        server_process_id: u32,
        server_started_at: Timestamp,
        container_id: Option<&'a str>,
        user: Option<&'a str>,
        login_user: Option<&'a str>,
        client_host: Option<&'a str>,
        client_ip: Option<Ipv6Addr>,
        client_port: Option<u16>,
        transport: Option<&'a str>,
        tls: Option<bool>,
        connection_id: Option<u64>,
        database: Option<&'a str>,
        command: Option<&'a str>,
        command_code: Option<u32>,
        statement_class: Option<&'a str>,
        sql_text: Option<&'a str>,
        sql_original_bytes: Option<u64>,
        sql_truncated: Option<bool>,
        fingerprint: Option<u64>,
        tables: Vec<&'a str>,
        result: Option<&'a str>,
        error_code: Option<u32>,
        sqlstate: Option<&'a str>,
        error_message: Option<&'a str>,
        error_message_original_bytes: Option<u64>,
        error_message_truncated: Option<bool>,
        rows_sent: Option<u64>,
        rows_affected: Option<u64>,
        gap_reason: Option<&'a str>,
        gap_events: Option<u64>,
        sampled_one_in: Option<u32>,
        event_hash: Hash,
    }
}

/// What was found out about a row by itself.
#[derive(Debug)]
pub struct Judged {
    pub batch_id: Uuid,
    pub sequence: u64,
    pub started_at: Timestamp,
    pub received_at: Timestamp,
    /// The hash that follows from the row.
    pub hash: Hash,
    pub gap: Option<Gap>,
    /// What is wrong with it: kind, what was expected, what was found.
    pub wrong: Option<Box<(Kind, String, String)>>,
}

impl StoredEvent<'_> {
    pub fn judge(&self) -> Judged {
        let hash = event_fields_hash(&self.fields());
        let gap = self.gap_reason.and_then(LossReason::parse);
        let wrong = if hash == self.event_hash {
            columns::check(self).map(|(expected, found)| (Kind::ColumnChanged, expected, found))
        } else {
            Some(self.unreadable().unwrap_or_else(|| {
                let (stored, found) = (hex::encode(self.event_hash), hex::encode(hash));
                let expected = format!("a row that makes event_hash {stored}");
                (Kind::EventChanged, expected, format!("one that makes {found}"))
            }))
        };
        Judged {
            batch_id: self.batch_id,
            sequence: self.sequence,
            started_at: self.started_at,
            received_at: self.received_at,
            hash,
            gap: gap.map(|reason| Gap { reason, events: self.gap_events.unwrap_or_default() }),
            wrong: wrong.map(Box::new),
        }
    }

    fn fields(&self) -> EventFields<'_, &str> {
        let address = |ip: Option<Ipv6Addr>| ip.map(IpAddr::V6);
        EventFields {
            collector: self.collector_id.into_bytes(),
            sequence: self.sequence,
            kind: self.kind,
            provider: self.provider,
            started_at: self.started_at,
            duration_ns: self.duration_ns,
            server: ServerFields {
                host: self.host,
                instance: self.instance_id.into_bytes(),
                product: self.product,
                version: self.version,
                address: address(self.server_ip),
                port: self.server_port,
                process_id: self.server_process_id,
                process_started_at: self.server_started_at,
                container_id: self.container_id,
            },
            user: self.user,
            login_user: self.login_user,
            client_host: self.client_host,
            client_ip: address(self.client_ip),
            client_port: self.client_port,
            transport: self.transport,
            tls: self.tls,
            connection_id: self.connection_id,
            database: self.database,
            command: self.command_code,
            statement: self.statement_class.map(|class| StatementFields {
                class,
                sql: text(self.sql_text, self.sql_original_bytes, self.sql_truncated),
                fingerprint: self.fingerprint,
                tables: &self.tables,
            }),
            outcome: self.result.and_then(|result| self.outcome(result)),
            gap: self.gap_reason.map(|reason| (reason, self.gap_events.unwrap_or_default())),
            sampled_one_in: self.sampled_one_in,
        }
    }

    fn outcome(&self, result: &str) -> Option<OutcomeFields<'_>> {
        let (message, original_bytes) = (self.error_message, self.error_message_original_bytes);
        Some(match result {
            "ok" => OutcomeFields::Ok { rows_sent: self.rows_sent, rows_affected: self.rows_affected },
            "error" => OutcomeFields::Error {
                code: self.error_code,
                sqlstate: self.sqlstate,
                message: text(message, original_bytes, self.error_message_truncated),
            },
            "unfinished" => OutcomeFields::Unfinished,
            // A result that is none has a column check of its own.
            _ => return None,
        })
    }

    /// The first value that is none that Whence writes.
    pub fn unreadable(&self) -> Option<(Kind, String, String)> {
        let result = ["ok", "error", "unfinished"];
        let values = [
            ("kind", Some(self.kind), EventKind::parse(self.kind).is_some()),
            ("provider", Some(self.provider), Provider::parse(self.provider).is_some()),
            ("transport", self.transport, self.transport.and_then(Transport::parse).is_some()),
            (
                "statement_class",
                self.statement_class,
                self.statement_class.and_then(StatementClass::parse).is_some(),
            ),
            ("result", self.result, self.result.is_some_and(|text| result.contains(&text))),
            ("gap_reason", self.gap_reason, self.gap_reason.and_then(LossReason::parse).is_some()),
        ];
        let bad = values.into_iter().find(|(_, value, is_known)| value.is_some() && !is_known);
        let (column, value) = bad.and_then(|(column, value, _)| value.map(|value| (column, value)))?;
        Some((Kind::Unreadable, "a value that Whence writes".into(), format!("{column} {value:?}")))
    }
}

fn text(text: Option<&str>, original_bytes: Option<u64>, truncated: Option<bool>) -> Option<TextFields<'_>> {
    text.map(|text| TextFields {
        text,
        original_bytes: original_bytes.unwrap_or_default(),
        truncated: truncated.unwrap_or_default(),
    })
}
