//! Times in which no collector watched a server: nothing was recorded then, so nothing can be proven of it.

use clickhouse::Row;
use serde::Deserialize;
use uuid::Uuid;
use whence_model::{CollectorId, InstanceId, Timestamp};

use super::{Finding, Kind, Report, Scope, Step};
use crate::read::{UNSETTLED_NS, Window};
use crate::{Store, StoreError, codec};

#[derive(Row, Deserialize)]
struct SpanRow {
    #[serde(with = "clickhouse::serde::uuid")]
    collector_id: Uuid,
    #[serde(with = "clickhouse::serde::uuid")]
    instance_id: Uuid,
    #[serde(with = "codec::timestamp")]
    span_from: Timestamp,
    #[serde(with = "codec::timestamp")]
    span_to: Timestamp,
}

/// The server at hand, and until when it is known to have been watched, or not to have run.
struct Watched {
    collector: CollectorId,
    instance: InstanceId,
    until: Timestamp,
}

impl Watched {
    fn until(&self, to: Timestamp) -> Option<Finding> {
        (self.until < to).then(|| Finding {
            kind: Kind::Unwatched,
            collector: self.collector,
            batch: None,
            sequence: None,
            expected: String::new(),
            found: format!("instance {} was not watched from {} to {to}", self.instance, self.until),
        })
    }
}

/// Tells of every time, from the first span of a server on, that no span covers.
pub async fn spans<F: FnMut(Step)>(
    store: &Store,
    scope: &Scope,
    now: Timestamp,
    report: &mut Report<F>,
) -> Result<(), StoreError> {
    let settled = now.plus_ns(-UNSETTLED_NS);
    let window = scope.window.unwrap_or(Window { from: Timestamp(i64::MIN), to: settled });
    let end = window.to.min(settled);
    // The order is that of the table, so the rows come as they are read.
    let sql = "SELECT collector_id, instance_id, span_from, span_to FROM coverage
        WHERE state IN ('watched', 'not_running') AND ifNull(provider, '') != 'collector'
            AND span_from < fromUnixTimestamp64Nano({to:Int64}, 'UTC')
            AND ({all_collectors:Bool} OR collector_id = {collector:UUID})
            AND ({all_instances:Bool} OR instance_id = {instance:UUID})
        ORDER BY instance_id, span_from";
    let query = store
        .ask_to_verify(sql)
        .param("to", window.to.0)
        .param("all_collectors", scope.collector.is_none())
        .param("collector", scope.collector.map_or_else(Uuid::nil, |id| id.0).to_string())
        .param("all_instances", scope.instance.is_none())
        .param("instance", scope.instance.map_or_else(Uuid::nil, |id| id.0).to_string());
    let mut cursor = query.fetch::<SpanRow>()?;
    let mut watched: Option<Watched> = None;
    while let Some(row) = cursor.next().await? {
        let (collector, instance) = (CollectorId(row.collector_id), InstanceId(row.instance_id));
        if let Some(known) = watched.as_mut().filter(|known| known.instance == instance) {
            known.collector = collector;
            if let Some(finding) = known.until(row.span_from.min(end)) {
                report.find(finding);
            }
            known.until = known.until.max(row.span_to);
            continue;
        }
        let until = row.span_to.max(window.from);
        if let Some(finding) =
            watched.replace(Watched { collector, instance, until }).and_then(|known| known.until(end))
        {
            report.find(finding);
        }
    }
    if let Some(finding) = watched.and_then(|known| known.until(end)) {
        report.find(finding);
    }
    Ok(())
}
