//! One event with all that is known of it.

use askama::Template;
use whence_store::row::{EventRow, EventView};

use super::results::{self, Client};
use super::{Link, Shell};
use crate::query::Query;
use crate::text;

const HOUR_NS: i64 = 3_600_000_000_000;
/// How far from the event its session is looked for.
const SESSION_NS: i64 = 24 * HOUR_NS;

#[derive(Template)]
#[template(path = "event.html")]
pub struct EventPage {
    pub shell: Shell,
    headline: String,
    kind: &'static str,
    result: &'static str,
    result_text: String,
    /// Whether a collector signed it; else another sender said so.
    is_signed: bool,
    time: String,
    user: String,
    client: String,
    duration: String,
    sql: Option<Sql>,
    error: Option<Sql>,
    links: Vec<Link>,
    groups: Vec<Group>,
}

struct Sql {
    text: String,
    /// How much of it there is, when that is not all.
    cut: Option<String>,
}

struct Group {
    title: &'static str,
    fields: Vec<(&'static str, String)>,
}

const GROUPS: &[(&str, &[&str])] = &[
    (
        "Who and from where",
        &["user", "login_user", "client_host", "client_ip", "client_port", "transport", "tls"],
    ),
    ("Session", &["connection_id", "database"]),
    (
        "Command",
        &[
            "kind",
            "command",
            "command_code",
            "statement_class",
            "tables",
            "fingerprint",
            "sql_original_bytes",
            "sql_truncated",
        ],
    ),
    (
        "Result",
        &[
            "result",
            "error_code",
            "sqlstate",
            "error_message_original_bytes",
            "error_message_truncated",
            "rows_sent",
            "rows_affected",
            "gap_reason",
            "gap_events",
        ],
    ),
    ("Time", &["started_at", "duration_ns", "received_at"]),
    (
        "Server",
        &[
            "host",
            "product",
            "version",
            "server_ip",
            "server_port",
            "instance_id",
            "server_process_id",
            "server_started_at",
            "container_id",
        ],
    ),
    (
        "Record",
        &[
            "event_id",
            "collector_id",
            "sequence",
            "batch_id",
            "provider",
            "signed",
            "sampled_one_in",
            "event_hash",
        ],
    ),
];

impl EventPage {
    pub fn new(mut shell: Shell, row: &EventRow) -> Self {
        let (result, result_text) = results::result(row);
        let Client { shown, detail, .. } = results::client(row);
        let client =
            shown.map(|client| if detail.is_empty() { client } else { format!("{client} ({detail})") });
        let headline = results::what(row);
        shell.title = format!("{headline} at {}", text::second(row.started_at));
        Self {
            shell,
            headline,
            kind: results::kind(&row.kind),
            result,
            result_text,
            is_signed: row.is_signed(),
            time: format!("{} UTC", text::millisecond(row.started_at)),
            user: results::user(row).unwrap_or_else(|| "not given".into()),
            client: client.unwrap_or_else(|| "not given".into()),
            duration: row.duration_ns.map_or_else(|| "not given".into(), text::duration),
            sql: sql(row.sql_text.as_deref(), row.sql_original_bytes, row.sql_truncated),
            error: sql(
                row.error_message.as_deref(),
                row.error_message_original_bytes,
                row.error_message_truncated,
            ),
            links: links(row),
            groups: groups(row),
        }
    }
}

fn sql(kept: Option<&str>, original_bytes: Option<u64>, is_cut: Option<bool>) -> Option<Sql> {
    let kept = kept?;
    let cut = (is_cut == Some(true)).then(|| {
        let original = original_bytes.unwrap_or_default();
        format!("cut: {} of {original} bytes", kept.len())
    });
    Some(Sql { text: text::visible_lines(kept).into_owned(), cut })
}

fn groups(row: &EventRow) -> Vec<Group> {
    let values: std::collections::BTreeMap<&str, serde_json::Value> = EventView(row).fields().collect();
    let text = |name: &str| match values.get(name) {
        None | Some(serde_json::Value::Null) => None,
        Some(serde_json::Value::String(text)) if text.is_empty() => Some("(empty)".to_owned()),
        Some(serde_json::Value::String(text)) => Some(text::visible(text).into_owned()),
        Some(serde_json::Value::Array(items)) => {
            let items = items.iter().filter_map(|item| item.as_str()).map(text::visible);
            Some(items.collect::<Vec<_>>().join(", ")).filter(|items| !items.is_empty())
        }
        Some(other) => Some(other.to_string()),
    };
    let group = |(title, names): &(&'static str, &'static [&'static str])| Group {
        title,
        fields: names.iter().map(|name| (*name, text(name).unwrap_or_else(|| "\u{2014}".into()))).collect(),
    };
    GROUPS.iter().map(group).collect()
}

fn links(row: &EventRow) -> Vec<Link> {
    let around = |ns: i64| {
        let query = Query::default().with("from", row.started_at.plus_ns(-ns).to_string());
        query.with("to", row.started_at.plus_ns(ns).to_string())
    };
    let mut links = Vec::new();
    let mut add = |label: &str, query: Query| {
        links.push(Link { href: format!("/history?{query}"), label: label.into(), current: false });
    };
    if let Some(connection) = row.connection_id {
        let session = around(SESSION_NS).with("instance", row.instance_id.to_string());
        let session = session.with("server_started_at", row.server_started_at.to_string());
        add("Same session", session.with("connection_id", connection.to_string()));
    }
    if let Some(user) = results::user_value(row) {
        add("Same user, an hour around", around(HOUR_NS).with("user", user));
    }
    if let Some(client) = results::client(row).value {
        add("Same client host, an hour around", around(HOUR_NS).with("client_host", client));
    }
    add(
        "Everything on this server, a minute around",
        around(HOUR_NS / 60).with("instance", row.instance_id.to_string()),
    );
    links
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use whence_store::row::FIELD_NAMES;

    use super::*;

    #[test]
    fn the_page_shows_every_field() {
        let shown: BTreeSet<&str> = GROUPS.iter().flat_map(|(_, names)| names.iter().copied()).collect();
        let elsewhere = ["sql_text", "error_message"];
        let missing: Vec<&&str> =
            FIELD_NAMES.iter().filter(|name| !shown.contains(*name) && !elsewhere.contains(name)).collect();
        assert!(missing.is_empty(), "{missing:?}");
    }

    #[test]
    fn a_cut_text_says_so() {
        let cut = sql(Some("SELECT"), Some(1_000_000), Some(true)).unwrap();
        assert_eq!(cut.cut.as_deref(), Some("cut: 6 of 1000000 bytes"));
        assert!(sql(Some("SELECT"), Some(6), Some(false)).unwrap().cut.is_none());
    }
}
