//! A stored audit event as the API, the exports and the pages name its fields: one list for all of them.

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::Value;

use super::{EventRow, from_ipv6};

/// Makes the list of names and the values from one list, so that they cannot part.
macro_rules! fields {
    ($row:ident => $($name:ident: $value:expr,)+) => {
        /// Names of an event's fields, in the order of every export.
        pub const FIELD_NAMES: &[&str] = &[$(stringify!($name),)+];

        fn values($row: &EventRow) -> Vec<Value> {
            vec![$(Value::from($value),)+]
        }
    };
}

fields! { row =>
    event_id: row.event_id.to_string(),
    collector_id: row.collector_id.to_string(),
    sequence: row.sequence,
    batch_id: row.batch_id.to_string(),
    kind: row.kind.as_str(),
    provider: row.provider.as_str(),
    signed: row.is_signed(),
    started_at: row.started_at.to_string(),
    duration_ns: row.duration_ns,
    received_at: row.received_at.to_string(),
    host: row.host.as_str(),
    instance_id: row.instance_id.to_string(),
    product: row.product.as_str(),
    version: row.version.as_deref(),
    server_ip: row.server_ip.map(|address| from_ipv6(address).to_string()),
    server_port: row.server_port,
    server_process_id: row.server_process_id,
    server_started_at: row.server_started_at.to_string(),
    container_id: row.container_id.as_deref(),
    user: row.user.as_deref(),
    login_user: row.login_user.as_deref(),
    client_host: row.client_host.as_deref(),
    client_ip: row.client_ip.map(|address| from_ipv6(address).to_string()),
    client_port: row.client_port,
    transport: row.transport.as_deref(),
    tls: row.tls,
    connection_id: row.connection_id,
    database: row.database.as_deref(),
    command: row.command.as_deref(),
    command_code: row.command_code,
    statement_class: row.statement_class.as_deref(),
    sql_text: row.sql_text.as_deref(),
    sql_original_bytes: row.sql_original_bytes,
    sql_truncated: row.sql_truncated,
    fingerprint: row.fingerprint.map(|fingerprint| format!("{fingerprint:016x}")),
    tables: row.tables.clone(),
    result: row.result.as_deref(),
    error_code: row.error_code,
    sqlstate: row.sqlstate.as_deref(),
    error_message: row.error_message.as_deref(),
    error_message_original_bytes: row.error_message_original_bytes,
    error_message_truncated: row.error_message_truncated,
    rows_sent: row.rows_sent,
    rows_affected: row.rows_affected,
    gap_reason: row.gap_reason.as_deref(),
    gap_events: row.gap_events,
    sampled_one_in: row.sampled_one_in,
    event_hash: hex::encode(row.event_hash),
}

/// An event for people and programs outside: flat, times in RFC 3339 with nanoseconds, addresses and ids as text,
/// hashes and the fingerprint in hexadecimal. As JSON it is one object with [`FIELD_NAMES`] in their order.
#[derive(Clone, Copy, Debug)]
pub struct EventView<'a>(pub &'a EventRow);

impl EventView<'_> {
    /// Every field with its value, in the order of [`FIELD_NAMES`].
    pub fn fields(&self) -> impl Iterator<Item = (&'static str, Value)> {
        FIELD_NAMES.iter().copied().zip(values(self.0))
    }

    /// Every value as text, in the order of [`FIELD_NAMES`]; null is empty, several tables are joined by a space.
    pub fn texts(&self) -> Vec<String> {
        values(self.0).into_iter().map(text).collect()
    }
}

fn text(value: Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text,
        Value::Array(values) => values.into_iter().map(text).collect::<Vec<_>>().join(" "),
        other => other.to_string(),
    }
}

impl Serialize for EventView<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(FIELD_NAMES.len()))?;
        for (name, value) in self.fields() {
            map.serialize_entry(name, &value)?;
        }
        map.end()
    }
}
