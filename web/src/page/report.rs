//! The access report: who came from where, when, how often, what for, and what was not watched.

use askama::Template;
use whence_model::Timestamp;
use whence_store::read::{AccessReport, AccessRow, EventFilter, FailedLoginRow, MAX_REPORT_ROWS, Span};

use super::results::{self, named_client};
use super::{FilterForm, Shell};
use crate::query::Query;
use crate::statement::{self, Statement};
use crate::text;

/// Unwatched spans that are listed for one server.
const MAX_SPANS: usize = 20;

#[derive(Template)]
#[template(path = "report.html")]
pub struct ReportPage {
    pub shell: Shell,
    pub form: FilterForm,
    pub report: Option<Report>,
}

pub struct Report {
    scope: String,
    from: String,
    to: String,
    made_at: String,
    made_by: String,
    request_id: String,
    csv: String,
    history: String,
    figures: Vec<(String, &'static str)>,
    statement: Statement,
    unwatched: Vec<(String, Vec<String>, usize)>,
    rows: Vec<Access>,
    failed_logins: Vec<FailedLogin>,
    cut_off: Option<String>,
}

struct Access {
    user: String,
    client: String,
    client_detail: String,
    server: String,
    first: String,
    last: String,
    connects: String,
    commands: String,
    failures: u64,
    failures_text: String,
    classes: Vec<(&'static str, String)>,
    history: String,
}

struct FailedLogin {
    user: String,
    client: String,
    client_detail: String,
    server: String,
    error: String,
    first: String,
    last: String,
    attempts: String,
}

/// Who makes the report, in which request.
pub struct Maker<'a> {
    pub person: &'a str,
    pub request_id: String,
    pub at: Timestamp,
}

impl Report {
    pub fn new(report: &AccessReport, filter: &EventFilter, query: &Query, maker: &Maker) -> Self {
        let window = filter.window;
        let totals = report.totals;
        let unsigned = (totals.unsigned > 0).then_some((totals.unsigned, "of the events unsigned"));
        let figures = [
            (totals.events, "events"),
            (totals.failures, "failures"),
            (totals.failed_logins, "failed logins"),
            (totals.users, "accounts"),
            (totals.clients, "client hosts"),
            (totals.instances, "servers"),
        ]
        .into_iter()
        .chain(unsigned);
        let unwatched = report.coverage.iter().filter(|server| !server.unwatched.is_empty());
        let cut_off = format!(
            "Only the {} most frequent rows are shown; the sums above count all.",
            text::count(MAX_REPORT_ROWS as u64)
        );
        Self {
            scope: scope(filter, report),
            from: text::second(window.from),
            to: text::second(window.to),
            made_at: text::second(maker.at),
            made_by: text::visible(maker.person).into_owned(),
            request_id: maker.request_id.clone(),
            csv: format!("/report.csv?{}", query.over(window)),
            history: format!("/history?{}", query.over(window)),
            figures: figures.map(|(number, what)| (text::count(number), what)).collect(),
            statement: statement::state(&report.coverage, window),
            unwatched: unwatched
                .map(|server| {
                    let spans = server.unwatched.iter().take(MAX_SPANS).map(span);
                    let more = server.unwatched.len().saturating_sub(MAX_SPANS);
                    (statement::label(server), spans.collect(), more)
                })
                .collect(),
            rows: report.rows.iter().map(|row| Access::new(row, query, filter)).collect(),
            failed_logins: report.failed_logins.iter().map(FailedLogin::new).collect(),
            cut_off: report.cut_off.then_some(cut_off),
        }
    }
}

fn span(span: &Span) -> String {
    format!("{} to {} UTC", text::second(span.from), text::second(span.to))
}

/// What the report is about, in words.
fn scope(filter: &EventFilter, report: &AccessReport) -> String {
    let mut parts = Vec::new();
    let names: Vec<String> = filter.users.iter().map(|user| name(Some(user))).collect();
    match names.as_slice() {
        [] => parts.push("All accounts".to_owned()),
        [one] => parts.push(format!("Account {one}")),
        several => parts.push(format!("Accounts {}", several.join(", "))),
    }
    if let Some(client) = &filter.client {
        use whence_store::read::ClientFilter;
        let client = match client {
            ClientFilter::Host(host) => text::visible(host).into_owned(),
            ClientFilter::Ip(address) => address.to_string(),
            ClientFilter::Network(network) => network.to_string(),
        };
        parts.push(format!("from {client}"));
    }
    if let Some(instance) = filter.instance {
        let known = report.coverage.iter().find(|server| server.instance == instance);
        parts.push(format!("on {}", known.map_or_else(|| instance.to_string(), statement::label)));
    }
    if let Some(host) = &filter.host {
        parts.push(format!("on host {}", text::visible(host)));
    }
    if let Some(database) = &filter.database {
        parts.push(format!("in database {}", text::visible(database)));
    }
    parts.join(" ")
}

fn name(user: Option<&str>) -> String {
    match user {
        None => "not given".into(),
        Some("") => "(anonymous)".into(),
        Some(name) => text::visible(name).into_owned(),
    }
}

impl Access {
    fn new(row: &AccessRow, query: &Query, filter: &EventFilter) -> Self {
        let client = named_client(row.client_host.as_deref(), row.client_ip, None);
        let classes = [
            ("read", row.reads),
            ("write", row.writes),
            ("DDL", row.ddl),
            ("privileges", row.privileges),
            ("transaction", row.transactions),
            ("admin", row.admin),
            ("other", row.others),
            ("unknown", row.unknown),
        ];
        let classes = classes.iter().filter(|(_, events)| *events > 0);
        let mut history = query.over(filter.window).with("instance", row.instance_id.to_string());
        if let Some(user) = &row.user {
            history = history.with("user", if user.is_empty() { "''" } else { user });
        }
        if let Some(client) = &client.value {
            history = history.with("client_host", client);
        }
        Self {
            user: name(row.user.as_deref()),
            client: client.shown.unwrap_or_else(|| "not given".into()),
            client_detail: client.detail,
            server: text::visible(&row.host).into_owned(),
            first: text::second(row.first),
            last: text::second(row.last),
            connects: text::count(row.connects),
            commands: text::count(row.commands),
            failures: row.failures,
            failures_text: text::count(row.failures),
            classes: classes.map(|(class, events)| (*class, text::count(*events))).collect(),
            history: format!("/history?{history}"),
        }
    }
}

impl FailedLogin {
    fn new(row: &FailedLoginRow) -> Self {
        let client: results::Client = named_client(row.client_host.as_deref(), row.client_ip, None);
        Self {
            user: name(row.user.as_deref()),
            client: client.shown.unwrap_or_else(|| "not given".into()),
            client_detail: client.detail,
            server: text::visible(&row.host).into_owned(),
            error: row.error_code.map_or_else(|| "not given".into(), |code| code.to_string()),
            first: text::second(row.first),
            last: text::second(row.last),
            attempts: text::count(row.attempts),
        }
    }
}
