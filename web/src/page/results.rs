//! What a search found: the distribution over time, what was not watched, and one page of events.

use std::net::{IpAddr, Ipv6Addr};

use askama::Template;
use whence_store::read::{Bucket, ClientFilter, InstanceCoverage, Page, Window};
use whence_store::row::EventRow;

use super::CoverageLine;
use super::histogram::Histogram;
use crate::query::Query;
use crate::{statement, text};

/// How much of a statement a row shows.
const EXCERPT_CHARS: usize = 240;

/// What the store answered.
pub struct Found {
    pub page: Page,
    pub buckets: Vec<Bucket>,
    /// Of the servers meant.
    pub coverage: Vec<InstanceCoverage>,
}

/// The part of the history below the form; the live view gets it alone.
pub struct Results {
    pub from: String,
    pub to: String,
    pub events: String,
    pub failed: u64,
    pub failed_text: String,
    pub lost: u64,
    pub lost_text: String,
    pub histogram: Histogram,
    pub coverage: CoverageLine,
    pub rows: Vec<Row>,
    pub older: Option<String>,
    pub newest: Option<String>,
    pub may_export: bool,
    pub csv: String,
    pub ndjson: String,
    pub report: String,
    /// Whether the query narrows more than the window.
    pub is_narrowed: bool,
    pub wider: String,
}

/// One event in the table.
pub struct Row {
    pub href: String,
    pub time: String,
    pub exact_time: String,
    pub kind: &'static str,
    pub what: String,
    pub class: String,
    /// `one of 10`, where a rule let only that one through.
    pub sampled: Option<String>,
    pub user: Option<String>,
    pub user_href: String,
    pub client: Option<String>,
    pub client_detail: String,
    pub client_href: String,
    pub server: String,
    pub server_detail: String,
    pub database: Option<String>,
    pub sql: Option<String>,
    pub is_excerpt: bool,
    pub duration: Option<String>,
    pub result: &'static str,
    pub result_text: String,
    /// Whether a collector signed it.
    pub is_signed: bool,
}

impl Results {
    pub fn new(found: &Found, query: &Query, window: Window, may_export: bool) -> Self {
        let plain = query.without(&["cursor", "limit"]);
        let over = plain.over(window);
        let sum = |count: fn(&Bucket) -> u64| found.buckets.iter().map(count).fold(0, u64::saturating_add);
        let failed = sum(|bucket| bucket.error);
        let lost = sum(|bucket| bucket.gap);
        let events = sum(|bucket| bucket.ok).saturating_add(failed);
        // The window is fixed, so that no event is missed while pages are turned.
        let older = found
            .page
            .next
            .map(|next| format!("/history?{}", query.over(window).with("cursor", next.to_string())));
        let is_later_page = !query.first("cursor").is_empty();
        let narrowing = ["command", "class", "kind", "result", "text", "connection_id", "server_started_at"];
        let scope = plain.without(&narrowing);
        Self {
            from: text::second(window.from),
            to: text::second(window.to),
            events: text::counted(events, "event", "events"),
            failed,
            failed_text: text::count(failed),
            lost,
            lost_text: text::count(lost),
            histogram: Histogram::new(&found.buckets, &found.coverage, window, &plain),
            coverage: CoverageLine {
                statement: statement::state(&found.coverage, window),
                href: format!("/coverage?{}", Query::default().over(window)),
            },
            rows: found.page.rows.iter().map(Row::new).collect(),
            older,
            newest: is_later_page.then(|| format!("/history?{}", query.without(&["cursor"]))),
            may_export,
            csv: format!("/export.csv.zip?{over}"),
            ndjson: format!("/export.ndjson.zip?{over}"),
            report: format!("/report?{}", scope.over(window)),
            is_narrowed: !plain.without(&["from", "to"]).is_empty(),
            wider: format!("/history?{}", Query::default().with("from", "-30d")),
        }
    }
}

impl Row {
    fn new(row: &EventRow) -> Self {
        let excerpt = row.sql_text.as_deref().map(|sql| text::excerpt(sql, EXCERPT_CHARS));
        let is_cut = row.sql_truncated == Some(true);
        let (result, result_text) = result(row);
        let client = client(row);
        Self {
            href: format!("/events/{}", row.event_id),
            time: text::millisecond(row.started_at),
            exact_time: row.started_at.to_string(),
            kind: kind(&row.kind),
            what: what(row),
            class: row.statement_class.as_deref().map(text::words).unwrap_or_default(),
            sampled: row.sampled_one_in.map(|one_in| format!("one of {}", text::count(one_in.into()))),
            user: user(row),
            user_href: search_for("user", user_value(row)),
            client_href: client.href(),
            client_detail: client.detail,
            client: client.shown,
            server: text::visible(&row.host).into_owned(),
            server_detail: statement::server_label("", &row.product, row.server_ip, row.server_port),
            database: row.database.as_deref().map(|name| text::visible(name).into_owned()),
            is_excerpt: excerpt.as_ref().is_some_and(|(_, is_all)| !is_all) || is_cut,
            sql: excerpt.map(|(sql, _)| sql),
            duration: row.duration_ns.map(text::duration),
            result,
            result_text,
            is_signed: row.is_signed(),
        }
    }
}

/// The account for people; the name given at login where there is no account.
pub fn user(row: &EventRow) -> Option<String> {
    match row.user.as_deref().or(row.login_user.as_deref()) {
        Some("") => Some("(anonymous)".into()),
        name => name.map(|name| text::visible(name).into_owned()),
    }
}

/// The account as a query has it.
pub fn user_value(row: &EventRow) -> Option<&str> {
    match row.user.as_deref().or(row.login_user.as_deref()) {
        Some("") => Some("''"),
        name => name,
    }
}

/// Where a client came from.
pub struct Client {
    pub shown: Option<String>,
    /// Address and port, as far as they say more.
    pub detail: String,
    /// As a query has it.
    pub value: Option<String>,
}

impl Client {
    /// Where its events are; nowhere when its name cannot be asked for.
    fn href(&self) -> String {
        let askable = self.value.clone().filter(|value| ClientFilter::parse(value).is_ok());
        askable.map(|value| search_for("client_host", Some(value))).unwrap_or_default()
    }
}

pub fn client(row: &EventRow) -> Client {
    named_client(row.client_host.as_deref(), row.client_ip, row.client_port)
}

/// A client by its name, address and port.
pub fn named_client(host: Option<&str>, ip: Option<Ipv6Addr>, port: Option<u16>) -> Client {
    let ip = ip.map(|ip| IpAddr::V6(ip).to_canonical().to_string());
    let host = host.filter(|host| !host.is_empty());
    let value = host.map(str::to_owned).or_else(|| ip.clone());
    let other_ip = ip.filter(|ip| host != Some(ip.as_str()) && host.is_some());
    let detail = match (other_ip, port) {
        (Some(ip), Some(port)) => format!("{ip} port {port}"),
        (Some(ip), None) => ip,
        (None, Some(port)) => format!("port {port}"),
        (None, None) => String::new(),
    };
    Client { shown: value.as_deref().map(|value| text::visible(value).into_owned()), detail, value }
}

fn search_for(name: &str, value: Option<impl Into<String>>) -> String {
    let query = Query::default();
    let query = value.map(|value| query.with(name, value)).unwrap_or_default();
    format!("/history?{query}")
}

/// What happened, for people.
pub fn what(row: &EventRow) -> String {
    match row.kind.as_str() {
        "connect" => "connected".into(),
        "connect_failed" => "login failed".into(),
        "disconnect" => "disconnected".into(),
        "change_user" => "changed user".into(),
        "gap" => {
            let events = text::counted(row.gap_events.unwrap_or_default(), "event lost", "events lost");
            format!("{events}: {}", text::words(row.gap_reason.as_deref().unwrap_or("unknown")))
        }
        _ => row
            .command
            .as_deref()
            .map_or_else(|| "command".into(), |command| text::visible(command).into_owned()),
    }
}

/// The kind as a name for the style sheet.
pub fn kind(kind: &str) -> &'static str {
    whence_model::EventKind::parse(kind).map_or("unknown", whence_model::EventKind::as_str)
}

/// How it ended: a name for the style sheet, and words.
pub fn result(row: &EventRow) -> (&'static str, String) {
    match row.result.as_deref() {
        Some("ok") => ("ok", "ok".into()),
        Some("error") => match row.error_code {
            Some(code) => ("error", format!("error {code}")),
            None => ("error", "error".into()),
        },
        Some("unfinished") => ("unfinished", "unfinished".into()),
        _ if row.kind == "connect_failed" => ("error", "failed".into()),
        _ if row.kind == "gap" => ("gap", "lost".into()),
        _ => ("none", "\u{2014}".into()),
    }
}

/// The results alone.
#[derive(Template)]
#[template(path = "results.html")]
pub struct ResultsPage {
    pub results: Results,
}
