//! The access report, as a page and as a file.

use std::net::IpAddr;

use axum::body::Body;
use axum::extract::RawQuery;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use whence_model::Timestamp;
use whence_store::read::{AccessReport, EventFilter};

use super::export::add_file_headers;
use super::history::around_form;
use crate::audit::Action;
use crate::export::{Format, csv_header, csv_line};
use crate::page::{FilterForm, Maker, Report, ReportPage, Shell};
use crate::people::Role;
use crate::problem::Problem;
use crate::query::{Query, Search};
use crate::statement;
use crate::visitor::Visitor;

pub async fn page(visitor: Visitor, RawQuery(raw): RawQuery) -> Result<Response, Problem> {
    let query = Query::parse(raw.as_deref());
    visitor.require(Role::Auditor, Action::Report, &query.to_string()).await?;
    let now = Timestamp::now();
    let asked = Search::all(&query, now);
    let store = &visitor.web.store;
    let work = async {
        let window = asked.as_ref().ok().map(|filter| filter.window);
        let (instances, suggested) = around_form(store, window).await?;
        let report = match &asked {
            // Without a question there is nothing to report on yet.
            Ok(filter) if !query.is_empty() => Some((store.access_report(filter).await?, filter.clone())),
            _ => None,
        };
        let rows = report.as_ref().map_or(0, |(report, _)| rows(report));
        Ok(((instances, suggested, report), rows))
    };
    let (instances, suggested, report) = visitor.read(Action::Report, &query.to_string(), work).await?;
    let status = if asked.is_ok() { StatusCode::OK } else { StatusCode::BAD_REQUEST };
    let maker =
        Maker { person: &visitor.asker.person, request_id: visitor.asker.request_id.to_string(), at: now };
    let page = ReportPage {
        shell: Shell::new("Access report", "report", &visitor).with_silence(&visitor).await?,
        form: FilterForm::new("/report", &query, &instances, suggested, asked.err().unwrap_or_default()),
        report: report.map(|(report, filter)| Report::new(&report, &filter, &query, &maker)),
    };
    Ok((status, page).into_response())
}

pub async fn csv(visitor: Visitor, RawQuery(raw): RawQuery) -> Result<Response, Problem> {
    let query = Query::parse(raw.as_deref());
    visitor.require(Role::Auditor, Action::Report, &query.to_string()).await?;
    let filter = Search::all(&query, Timestamp::now())?;
    let report = read(&visitor, Action::Report, &query, &filter).await?;
    let file = file(&report, &filter).map_err(|error| Problem::Internal(error.into()))?;
    let stamp = |at: Timestamp| at.to_utc().format("%Y%m%dT%H%M%SZ").to_string();
    let name = format!("whence-access-{}-{}.csv", stamp(filter.window.from), stamp(filter.window.to));
    let mut response = Response::new(Body::from(file));
    add_file_headers(&mut response, Format::Csv.content_type(), &name)?;
    Ok(response)
}

/// The report that a query asks for.
pub async fn read(
    visitor: &Visitor,
    action: Action,
    query: &Query,
    filter: &EventFilter,
) -> Result<AccessReport, Problem> {
    let work = async {
        let report = visitor.web.store.access_report(filter).await?;
        let rows = rows(&report);
        Ok((report, rows))
    };
    visitor.read(action, &query.to_string(), work).await
}

fn rows(report: &AccessReport) -> u64 {
    (report.rows.len() + report.failed_logins.len()) as u64
}

/// Columns of the file. `part` says what a row is: `access`, `failed_login`, `not_watched`, `lost`, `statement`.
const COLUMNS: [&str; 22] = [
    "part",
    "user",
    "client_host",
    "client_ip",
    "instance_id",
    "host",
    "first",
    "last",
    "events",
    "failures",
    "connects",
    "commands",
    "reads",
    "writes",
    "ddl",
    "privileges",
    "transactions",
    "admin",
    "others",
    "unknown",
    "error_code",
    "detail",
];

fn file(report: &AccessReport, filter: &EventFilter) -> std::io::Result<Vec<u8>> {
    let mut file = csv_header(&COLUMNS);
    let mut add = |part: &str, cells: &[(&str, String)]| {
        let cell = |column: &&str| match *column {
            "part" => part.to_owned(),
            column => cells
                .iter()
                .find(|(name, _)| *name == column)
                .map(|(_, cell)| cell.clone())
                .unwrap_or_default(),
        };
        file.extend(csv_line(COLUMNS.iter().map(cell))?);
        std::io::Result::Ok(())
    };
    let ip = |ip: Option<std::net::Ipv6Addr>| {
        ip.map(|ip| IpAddr::V6(ip).to_canonical().to_string()).unwrap_or_default()
    };
    for row in &report.rows {
        add(
            "access",
            &[
                ("user", row.user.clone().unwrap_or_default()),
                ("client_host", row.client_host.clone().unwrap_or_default()),
                ("client_ip", ip(row.client_ip)),
                ("instance_id", row.instance_id.to_string()),
                ("host", row.host.clone()),
                ("first", row.first.to_string()),
                ("last", row.last.to_string()),
                ("events", row.events.to_string()),
                ("failures", row.failures.to_string()),
                ("connects", row.connects.to_string()),
                ("commands", row.commands.to_string()),
                ("reads", row.reads.to_string()),
                ("writes", row.writes.to_string()),
                ("ddl", row.ddl.to_string()),
                ("privileges", row.privileges.to_string()),
                ("transactions", row.transactions.to_string()),
                ("admin", row.admin.to_string()),
                ("others", row.others.to_string()),
                ("unknown", row.unknown.to_string()),
            ],
        )?;
    }
    for row in &report.failed_logins {
        add(
            "failed_login",
            &[
                ("user", row.user.clone().unwrap_or_default()),
                ("client_host", row.client_host.clone().unwrap_or_default()),
                ("client_ip", ip(row.client_ip)),
                ("instance_id", row.instance_id.to_string()),
                ("host", row.host.clone()),
                ("first", row.first.to_string()),
                ("last", row.last.to_string()),
                ("events", row.attempts.to_string()),
                ("error_code", row.error_code.map(|code| code.to_string()).unwrap_or_default()),
            ],
        )?;
    }
    for server in &report.coverage {
        let of_server = [("instance_id", server.instance.to_string()), ("host", server.host.clone())];
        for span in &server.unwatched {
            let times = [("first", span.from.to_string()), ("last", span.to.to_string())];
            add("not_watched", &[of_server.as_slice(), &times].concat())?;
        }
        for (reason, events) in server.lost.iter().filter(|(_, events)| **events > 0) {
            let lost = [("events", events.to_string()), ("detail", reason.clone())];
            add("lost", &[of_server.as_slice(), &lost].concat())?;
        }
        for (rule, events) in server.filtered_by.iter().filter(|(_, events)| **events > 0) {
            let filtered = [("events", events.to_string()), ("detail", rule.clone())];
            add("filtered", &[of_server.as_slice(), &filtered].concat())?;
        }
    }
    if report.totals.unsigned > 0 {
        add("unsigned", &[("events", report.totals.unsigned.to_string())])?;
    }
    let window = [("first", filter.window.from.to_string()), ("last", filter.window.to.to_string())];
    let mut sentences = statement::state(&report.coverage, filter.window).sentences;
    if report.cut_off {
        sentences.push("There were more rows than a report holds; the least frequent are left out.".into());
    }
    add("statement", &[window.as_slice(), &[("detail", sentences.join(" "))]].concat())?;
    Ok(file)
}
