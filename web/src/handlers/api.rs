//! The API: the same questions as the pages, for programs.

use std::net::IpAddr;

use axum::Json;
use axum::extract::{Path, RawQuery};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Value, json};
use whence_model::{ClockQuality, Timestamp};
use whence_store::read::{Heard, InstanceCoverage, Window};
use whence_store::row::{EventRow, EventView};

use crate::audit::Action;
use crate::keys;
use crate::people::Role;
use crate::problem::Problem;
use crate::query::{FILTER_NAMES, FieldProblem, Query, Search};
use crate::statement::{self, ServerCoverage, Statement};
use crate::visitor::Visitor;

/// Events in an answer when none are asked for.
pub const DEFAULT_LIMIT: u32 = 100;
const DEFAULT_BUCKETS: u32 = 60;

pub async fn openapi() -> Json<Value> {
    Json(crate::openapi::document())
}

#[derive(Serialize)]
struct EventsBody<'a> {
    from: Timestamp,
    to: Timestamp,
    events: Vec<EventView<'a>>,
    next_cursor: Option<String>,
    coverage: CoverageBody<'a>,
}

/// How the window was watched: in words, and server by server.
#[derive(Serialize)]
struct CoverageBody<'a> {
    #[serde(flatten)]
    statement: Statement,
    instances: Vec<ServerCoverage<'a>>,
}

impl<'a> CoverageBody<'a> {
    fn new(coverage: &'a [InstanceCoverage], window: Window) -> Self {
        Self {
            statement: statement::state(coverage, window),
            instances: coverage.iter().map(ServerCoverage::from).collect(),
        }
    }
}

pub async fn events(visitor: Visitor, RawQuery(raw): RawQuery) -> Result<Response, Problem> {
    let query = Query::parse(raw.as_deref());
    let search = Search::page(&query, Timestamp::now(), DEFAULT_LIMIT)?;
    let store = &visitor.web.store;
    let filter = &search.filter;
    let work = async {
        let (page, coverage) = tokio::try_join!(
            store.events_page(filter, search.limit, search.cursor),
            store.coverage(filter.window, filter.instance),
        )?;
        let rows = page.rows.len() as u64;
        Ok(((page, statement::meant(coverage, filter)), rows))
    };
    let (page, coverage) = visitor.read(Action::ApiSearch, &query.to_string(), work).await?;
    answer(&EventsBody {
        from: filter.window.from,
        to: filter.window.to,
        events: page.rows.iter().map(EventView).collect(),
        next_cursor: page.next.map(|next| next.to_string()),
        coverage: CoverageBody::new(&coverage, filter.window),
    })
}

pub async fn event(visitor: Visitor, Path(id): Path<String>) -> Result<Response, Problem> {
    let row: EventRow = super::event::read(&visitor, Action::ApiEvent, &id).await?;
    answer(&EventView(&row))
}

pub async fn histogram(visitor: Visitor, RawQuery(raw): RawQuery) -> Result<Json<Value>, Problem> {
    let query = Query::parse(raw.as_deref());
    let buckets = buckets(&query)?;
    let filter = Search::all(&query.without(&["buckets"]), Timestamp::now())?;
    let work = async {
        let buckets = visitor.web.store.histogram(&filter, buckets).await?;
        let rows = buckets.len() as u64;
        Ok((buckets, rows))
    };
    let buckets = visitor.read(Action::ApiHistogram, &query.to_string(), work).await?;
    let buckets = buckets.iter().map(|bucket| {
        json!({
            "from": bucket.from,
            "to": bucket.to,
            "ok": bucket.ok,
            "error": bucket.error,
            "lost": bucket.gap,
        })
    });
    let buckets: Vec<Value> = buckets.collect();
    Ok(Json(json!({ "from": filter.window.from, "to": filter.window.to, "buckets": buckets })))
}

fn buckets(query: &Query) -> Result<u32, Problem> {
    let most = whence_store::read::MAX_BUCKETS;
    match query.first("buckets") {
        "" => Ok(DEFAULT_BUCKETS),
        text => text.parse().ok().filter(|buckets| (1..=most).contains(buckets)).ok_or_else(|| {
            vec![FieldProblem::new("buckets", format!("is no number from 1 to {most}"))].into()
        }),
    }
}

pub async fn report(visitor: Visitor, RawQuery(raw): RawQuery) -> Result<Json<Value>, Problem> {
    let query = Query::parse(raw.as_deref());
    visitor.require(Role::Auditor, Action::ApiReport, &query.to_string()).await?;
    let filter = Search::all(&query, Timestamp::now())?;
    let report = super::report::read(&visitor, Action::ApiReport, &query, &filter).await?;
    let ip = |ip: Option<std::net::Ipv6Addr>| ip.map(|ip| IpAddr::V6(ip).to_canonical().to_string());
    let access = report.rows.iter().map(|row| {
        json!({
            "user": row.user, "client_host": row.client_host, "client_ip": ip(row.client_ip),
            "instance_id": row.instance_id, "host": row.host, "first": row.first, "last": row.last,
            "events": row.events, "failures": row.failures, "connects": row.connects, "commands": row.commands,
            "classes": {
                "read": row.reads, "write": row.writes, "ddl": row.ddl, "privileges": row.privileges,
                "transaction": row.transactions, "admin": row.admin, "other": row.others, "unknown": row.unknown,
            },
        })
    });
    let failed_logins = report.failed_logins.iter().map(|row| {
        json!({
            "user": row.user, "client_host": row.client_host, "client_ip": ip(row.client_ip),
            "instance_id": row.instance_id, "host": row.host, "error_code": row.error_code, "first": row.first,
            "last": row.last, "attempts": row.attempts,
        })
    });
    let totals = report.totals;
    let coverage = CoverageBody::new(&report.coverage, filter.window);
    Ok(Json(json!({
        "from": filter.window.from,
        "to": filter.window.to,
        "totals": {
            "events": totals.events, "failures": totals.failures, "failed_logins": totals.failed_logins,
            "users": totals.users, "clients": totals.clients, "instances": totals.instances,
            "unsigned": totals.unsigned,
        },
        "access": access.collect::<Vec<Value>>(),
        "failed_logins": failed_logins.collect::<Vec<Value>>(),
        "cut_off": report.cut_off,
        "coverage": json_of(&coverage)?,
    })))
}

/// The keys that manifests of exports are signed with.
pub async fn keys(visitor: Visitor) -> Result<Json<Value>, Problem> {
    let own = keys::known(&visitor.web, &visitor.asker).await?.to_bytes();
    let work = async {
        let keys = visitor.web.store.service_keys().await?;
        let rows = keys.len() as u64;
        Ok((keys, rows))
    };
    let keys = visitor.read(Action::ApiKeys, "", work).await?;
    let keys = keys.iter().map(|key| {
        json!({
            "public_key": hex::encode(key.public_key),
            "host": key.host,
            "first_used_at": key.first_used_at,
            "own": key.public_key == own,
        })
    });
    Ok(Json(json!({ "keys": keys.collect::<Vec<Value>>() })))
}

pub async fn coverage(visitor: Visitor, RawQuery(raw): RawQuery) -> Result<Json<Value>, Problem> {
    let query = Query::parse(raw.as_deref());
    let unknown: Vec<&str> = FILTER_NAMES
        .iter()
        .copied()
        .filter(|name| !["instance", "host", "from", "to"].contains(name))
        .collect();
    let filter = Search::all(&query.without(&unknown), Timestamp::now())?;
    let problems = query.check(&["instance", "host", "from", "to"]);
    if !problems.is_empty() {
        return Err(problems.into());
    }
    let work = async {
        let coverage = visitor.web.store.coverage(filter.window, filter.instance).await?;
        let coverage = statement::meant(coverage, &filter);
        let turns = visitor.web.store.collector_turns(filter.window).await?;
        let heard = visitor.web.heard().await?;
        let rows = coverage.len() as u64;
        Ok(((coverage, turns, heard), rows))
    };
    let (coverage, turns, heard) = visitor.read(Action::ApiCoverage, &query.to_string(), work).await?;
    let mut body = json_of(&CoverageBody::new(&coverage, filter.window))?;
    if let Some(body) = body.as_object_mut() {
        body.insert("from".into(), json!(filter.window.from));
        body.insert("to".into(), json!(filter.window.to));
        let now = Timestamp::now();
        let collectors: Vec<Value> = heard.iter().map(|heard| collector(heard, now)).collect();
        body.insert("collectors".into(), json!(collectors));
        let turns = turns.iter().map(|turn| {
            let what = turn.began.map_or("stop", whence_model::Began::as_str);
            json!({ "at": turn.at, "collector_id": turn.collector_id, "host": turn.host, "what": what })
        });
        body.insert("turns".into(), json!(turns.collect::<Vec<Value>>()));
    }
    Ok(Json(body))
}

fn collector(heard: &Heard, now: Timestamp) -> Value {
    let (clock, error_us, offset_us) = match heard.clock() {
        ClockQuality::Unknown => ("unknown", None, None),
        ClockQuality::Unsynchronised => ("unsynchronised", None, None),
        ClockQuality::Synchronised { error_us, offset_us } => {
            ("synchronised", Some(error_us), Some(offset_us))
        }
    };
    json!({
        "collector_id": heard.collector.collector_id,
        "host": heard.collector.host,
        "state": heard.state(now).as_str(),
        "last_seen": heard.last_seen,
        "clock": clock,
        "clock_error_us": error_us,
        "clock_offset_us": offset_us,
    })
}

pub async fn instances(visitor: Visitor, RawQuery(raw): RawQuery) -> Result<Json<Value>, Problem> {
    let query = Query::parse(raw.as_deref());
    let problems = query.check(&[]);
    if !problems.is_empty() {
        return Err(problems.into());
    }
    let work = async {
        let instances = visitor.web.store.instances().await?;
        let rows = instances.len() as u64;
        Ok((instances, rows))
    };
    let instances = visitor.read(Action::ApiInstances, &query.to_string(), work).await?;
    let instances = instances.iter().map(|row| {
        json!({
            "instance_id": row.instance_id, "host": row.host, "product": row.product, "version": row.version,
            "server_ip": row.server_ip.map(|ip| IpAddr::V6(ip).to_canonical().to_string()),
            "server_port": row.server_port, "server_process_id": row.server_process_id, "state": row.state,
            "container_id": row.container_id, "provider": row.provider, "detail": row.detail,
            "first_seen": row.first_seen, "last_seen": row.last_seen,
        })
    });
    Ok(Json(json!({ "instances": instances.collect::<Vec<Value>>() })))
}

/// `body` with its fields in their order.
fn answer(body: &impl Serialize) -> Result<Response, Problem> {
    let json = serde_json::to_vec(body).map_err(|error| Problem::Internal(error.into()))?;
    Ok(([(header::CONTENT_TYPE, "application/json")], json).into_response())
}

fn json_of(body: &impl Serialize) -> Result<Value, Problem> {
    serde_json::to_value(body).map_err(|error| Problem::Internal(error.into()))
}
