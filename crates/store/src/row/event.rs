//! A row of `events` from and to the audit event.

use std::net::Ipv6Addr;
use std::sync::Arc;

use clickhouse::Row;
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use whence_model::{
    BatchId, CollectorId, Command, Event, EventKind, Gap, InstanceId, LossReason, Outcome, Principal,
    Provider, Server, Session, Statement, StatementClass, Text, Timestamp, Transport,
};

use super::{from_ipv6, parse, to_ipv6};
use crate::{StoreError, codec};

/// One stored audit event. Fields are the columns of the table, in their order.
#[derive(Clone, Debug, PartialEq, Eq, Row, Serialize, Deserialize)]
pub struct EventRow {
    #[serde(with = "clickhouse::serde::uuid")]
    pub collector_id: Uuid,
    pub sequence: u64,
    #[serde(with = "clickhouse::serde::uuid")]
    pub event_id: Uuid,
    #[serde(with = "clickhouse::serde::uuid")]
    pub batch_id: Uuid,
    pub kind: String,
    pub provider: String,
    #[serde(with = "codec::timestamp")]
    pub started_at: Timestamp,
    pub duration_ns: Option<u64>,
    #[serde(with = "codec::timestamp")]
    pub received_at: Timestamp,
    pub host: String,
    #[serde(with = "clickhouse::serde::uuid")]
    pub instance_id: Uuid,
    pub product: String,
    pub version: Option<String>,
    pub server_ip: Option<Ipv6Addr>,
    pub server_port: Option<u16>,
    pub server_process_id: u32,
    #[serde(with = "codec::timestamp")]
    pub server_started_at: Timestamp,
    pub container_id: Option<String>,
    pub user: Option<String>,
    pub login_user: Option<String>,
    pub client_host: Option<String>,
    pub client_ip: Option<Ipv6Addr>,
    pub client_port: Option<u16>,
    pub transport: Option<String>,
    pub tls: Option<bool>,
    pub connection_id: Option<u64>,
    pub database: Option<String>,
    pub command: Option<String>,
    pub command_code: Option<u32>,
    pub statement_class: Option<String>,
    pub sql_text: Option<String>,
    pub sql_original_bytes: Option<u64>,
    pub sql_truncated: Option<bool>,
    pub fingerprint: Option<u64>,
    pub tables: Vec<String>,
    pub result: Option<String>,
    pub error_code: Option<u32>,
    pub sqlstate: Option<String>,
    pub error_message: Option<String>,
    pub error_message_original_bytes: Option<u64>,
    pub error_message_truncated: Option<bool>,
    pub rows_sent: Option<u64>,
    pub rows_affected: Option<u64>,
    pub gap_reason: Option<String>,
    pub gap_events: Option<u64>,
    pub sampled_one_in: Option<u32>,
    #[serde(with = "codec::fixed")]
    pub event_hash: [u8; 32],
}

impl EventRow {
    /// The row of `event`, which came in `batch` and has the hash `event_hash`.
    pub fn new(event: &Event, batch: BatchId, received_at: Timestamp, event_hash: [u8; 32]) -> Self {
        Self::from_event(event.clone(), batch, received_at, event_hash)
    }

    /// The same, where the event is needed no more.
    pub fn from_event(event: Event, batch: BatchId, received_at: Timestamp, event_hash: [u8; 32]) -> Self {
        let event_id = event.id().0;
        let Event { server, principal, session, .. } = event;
        let class = event.statement.as_ref().map(|statement| statement.class.as_str().into());
        let fingerprint = event.statement.as_ref().and_then(|statement| statement.fingerprint);
        let (sql, tables) =
            event.statement.map_or_else(Default::default, |statement| (statement.sql, statement.tables));
        let (sql_text, sql_original_bytes, sql_truncated) = columns(sql);
        let outcome = OutcomeColumns::new(event.outcome);
        let (error_message, error_message_original_bytes, error_message_truncated) = columns(outcome.message);
        Self {
            collector_id: event.collector.0,
            sequence: event.sequence,
            event_id,
            batch_id: batch.0,
            kind: event.kind.as_str().into(),
            provider: event.provider.as_str().into(),
            started_at: event.started_at,
            duration_ns: event.duration_ns,
            received_at,
            host: server.host.clone(),
            instance_id: server.instance.0,
            product: server.product.clone(),
            version: server.version.clone(),
            server_ip: server.address.map(to_ipv6),
            server_port: server.port,
            server_process_id: server.process_id,
            server_started_at: server.process_started_at,
            container_id: server.container_id.clone(),
            user: principal.user,
            login_user: principal.login_user,
            client_host: principal.client_host,
            client_ip: principal.client_ip.map(to_ipv6),
            client_port: principal.client_port,
            transport: principal.transport.map(|transport| transport.as_str().into()),
            tls: principal.tls,
            connection_id: session.connection_id,
            database: session.database,
            command: event.command.map(Command::name),
            command_code: event.command.map(|command| command.0),
            statement_class: class,
            sql_text,
            sql_original_bytes,
            sql_truncated,
            fingerprint,
            tables,
            result: outcome.result,
            error_code: outcome.error_code,
            sqlstate: outcome.sqlstate,
            error_message,
            error_message_original_bytes,
            error_message_truncated,
            rows_sent: outcome.rows_sent,
            rows_affected: outcome.rows_affected,
            gap_reason: event.gap.map(|gap| gap.reason.as_str().into()),
            gap_events: event.gap.map(|gap| gap.events),
            sampled_one_in: event.sampled_one_in,
            event_hash,
        }
    }

    /// Whether a collector signed it, in a batch of its chain.
    pub fn is_signed(&self) -> bool {
        self.provider != Provider::External.as_str()
    }

    /// The audit event as it was received; what its hash is computed from.
    pub fn to_event(&self) -> Result<Event, StoreError> {
        self.clone().into_event()
    }

    /// The same, where the row is needed no more.
    pub fn into_event(mut self) -> Result<Event, StoreError> {
        Ok(Event {
            collector: CollectorId(self.collector_id),
            sequence: self.sequence,
            kind: parse("kind", &self.kind, EventKind::parse)?,
            provider: parse("provider", &self.provider, Provider::parse)?,
            started_at: self.started_at,
            duration_ns: self.duration_ns,
            principal: self.take_principal()?,
            statement: self.take_statement()?,
            outcome: self.take_outcome()?,
            gap: self.gap()?,
            sampled_one_in: self.sampled_one_in,
            session: Session { connection_id: self.connection_id, database: self.database },
            command: self.command_code.map(Command),
            server: Arc::new(Server {
                host: self.host,
                instance: InstanceId(self.instance_id),
                product: self.product,
                version: self.version,
                address: self.server_ip.map(from_ipv6),
                port: self.server_port,
                process_id: self.server_process_id,
                process_started_at: self.server_started_at,
                container_id: self.container_id,
            }),
        })
    }

    fn take_principal(&mut self) -> Result<Principal, StoreError> {
        let transport = self.transport.as_deref();
        Ok(Principal {
            transport: transport.map(|text| parse("transport", text, Transport::parse)).transpose()?,
            user: self.user.take(),
            login_user: self.login_user.take(),
            client_host: self.client_host.take(),
            client_ip: self.client_ip.map(from_ipv6),
            client_port: self.client_port,
            tls: self.tls,
        })
    }

    fn take_statement(&mut self) -> Result<Option<Statement>, StoreError> {
        let Some(class) = &self.statement_class else {
            return Ok(None);
        };
        Ok(Some(Statement {
            class: parse("statement_class", class, StatementClass::parse)?,
            sql: text(self.sql_text.take(), self.sql_original_bytes, self.sql_truncated),
            fingerprint: self.fingerprint,
            tables: std::mem::take(&mut self.tables),
        }))
    }

    fn take_outcome(&mut self) -> Result<Option<Outcome>, StoreError> {
        let Some(result) = &self.result else {
            return Ok(None);
        };
        let outcome = match result.as_str() {
            "ok" => Outcome::Ok { rows_sent: self.rows_sent, rows_affected: self.rows_affected },
            "error" => Outcome::Error {
                code: self.error_code,
                sqlstate: self.sqlstate.take(),
                message: text(
                    self.error_message.take(),
                    self.error_message_original_bytes,
                    self.error_message_truncated,
                ),
            },
            "unfinished" => Outcome::Unfinished,
            other => return parse("result", other, |_| None),
        };
        Ok(Some(outcome))
    }

    fn gap(&self) -> Result<Option<Gap>, StoreError> {
        let Some(reason) = &self.gap_reason else {
            return Ok(None);
        };
        Ok(Some(Gap {
            reason: parse("gap_reason", reason, LossReason::parse)?,
            events: self.gap_events.unwrap_or_default(),
        }))
    }
}

fn text(text: Option<String>, original_bytes: Option<u64>, truncated: Option<bool>) -> Option<Text> {
    text.map(|text| Text {
        text,
        original_bytes: original_bytes.unwrap_or_default(),
        truncated: truncated.unwrap_or_default(),
    })
}

/// The columns of a text: the inverse of [`text`].
fn columns(text: Option<Text>) -> (Option<String>, Option<u64>, Option<bool>) {
    text.map_or_else(Default::default, |text| {
        (Some(text.text), Some(text.original_bytes), Some(text.truncated))
    })
}

#[derive(Default)]
struct OutcomeColumns {
    result: Option<String>,
    error_code: Option<u32>,
    sqlstate: Option<String>,
    message: Option<Text>,
    rows_sent: Option<u64>,
    rows_affected: Option<u64>,
}

impl OutcomeColumns {
    fn new(outcome: Option<Outcome>) -> Self {
        let Some(outcome) = outcome else {
            return Self::default();
        };
        let result = Some(outcome.as_str().to_owned());
        match outcome {
            Outcome::Ok { rows_sent, rows_affected } => {
                Self { result, rows_sent, rows_affected, ..Self::default() }
            }
            Outcome::Error { code, sqlstate, message } => {
                Self { result, error_code: code, sqlstate, message, ..Self::default() }
            }
            Outcome::Unfinished => Self { result, ..Self::default() },
        }
    }
}
