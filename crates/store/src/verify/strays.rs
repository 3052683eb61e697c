//! Rows that no batch brought: they were inserted, or moved away from their batch, or their batch is not complete yet,
//! or never will be, since its collector lost it.

use clickhouse::Row;
use clickhouse::query::Query;
use serde::Deserialize;
use uuid::Uuid;
use whence_model::{CollectorId, Timestamp};

use super::unproven::Lost;
use super::{Finding, Kind, Report, Scope, Step};
use crate::read::Window;
use crate::{Store, StoreError, codec};

/// How long the rows of a batch may be there before its own row is: ingest writes that one last.
const UNSETTLED_NS: i64 = 5 * 60 * 1_000_000_000;
/// How far the clock of an ingest server may be ahead of ours.
const AHEAD_NS: i64 = 60 * 1_000_000_000;

/// Rows that name one batch and are not of it.
#[derive(Row, Deserialize)]
struct Strays {
    #[serde(with = "clickhouse::serde::uuid")]
    collector_id: Uuid,
    #[serde(with = "clickhouse::serde::uuid")]
    batch_id: Uuid,
    /// The first sequence number, or position, and the last.
    first: u64,
    last: u64,
    /// Whether each of these says one thing, once.
    is_plain: bool,
    rows: u64,
    /// Number of the batch; 0 when there is none.
    number: u64,
    #[serde(with = "codec::timestamp")]
    oldest: Timestamp,
    #[serde(with = "codec::timestamp")]
    newest: Timestamp,
}

impl Strays {
    /// The lost batch that they are of.
    fn lost(&self, kind: Kind, lost: &mut Lost) -> Option<u64> {
        let collector = CollectorId(self.collector_id);
        match kind {
            _ if self.number > 0 || !self.is_plain => None,
            Kind::EventInserted => lost.of_events(collector, self.batch_id, &(self.first..=self.last)),
            _ => lost.of_spans(collector, self.batch_id),
        }
    }

    fn finding(self, kind: Kind, what: &str, now: Timestamp, lost: &mut Lost) -> Finding {
        let sequence = (kind == Kind::EventInserted).then_some(self.first);
        if let Some(number) = self.lost(kind, lost) {
            let counted = match sequence {
                Some(_) => ", and the gap that counts them as lost says so much too much",
                None => "",
            };
            return Finding {
                kind: Kind::Unproven,
                collector: CollectorId(self.collector_id),
                batch: Some(number),
                sequence,
                expected: String::new(),
                found: format!(
                    "{} {what} of batch {number}, which its collector lost on the way: nothing proves them{counted}",
                    self.rows
                ),
            };
        }
        let unfinished = self.number == 0
            && self.oldest > now.plus_ns(-UNSETTLED_NS)
            && self.newest < Timestamp::now().plus_ns(AHEAD_NS);
        let (expected, found) = match self.number {
            0 if unfinished => {
                (String::new(), format!("{} {what} of a batch that is not complete yet", self.rows))
            }
            0 => (
                "a batch that brought it".into(),
                format!("{} {what} of no batch ({})", self.rows, self.batch_id),
            ),
            _ => (
                "rows as the batch's own row describes them".into(),
                format!("{} {what} with another collector, number or time", self.rows),
            ),
        };
        Finding {
            kind: if unfinished { Kind::Unfinished } else { kind },
            collector: CollectorId(self.collector_id),
            batch: (self.number > 0).then_some(self.number),
            sequence,
            expected,
            found,
        }
    }
}

fn bind(query: Query, scope: &Scope, collectors: &[CollectorId]) -> Query {
    let window = scope.window.unwrap_or(Window { from: Timestamp(0), to: Timestamp(0) });
    let all = scope.collector.is_none() && scope.instance.is_none();
    let collectors: Vec<String> = collectors.iter().map(ToString::to_string).collect();
    query
        .param("all", all)
        .param("collectors", &collectors)
        .param("collector", scope.collector.map_or_else(Uuid::nil, |id| id.0).to_string())
        .param("instance", scope.instance.map_or_else(Uuid::nil, |id| id.0).to_string())
        .param("all_time", scope.window.is_none())
        .param("from", window.from.0)
        .param("to", window.to.0)
}

const IN_SCOPE: &str = "({all:Bool} OR collector_id IN {collectors:Array(UUID)}
    OR collector_id = {collector:UUID} OR instance_id = {instance:UUID})";

/// Events that no batch brought.
pub async fn events<F: FnMut(Step)>(
    store: &Store,
    scope: &Scope,
    collectors: &[CollectorId],
    now: Timestamp,
    lost: &mut Lost,
    report: &mut Report<F>,
) -> Result<(), StoreError> {
    let sql = format!(
        "WITH owners AS (
            SELECT batch_id, any(collector_id) AS owner, any(number) AS number, min(first_sequence) AS start,
                max(first_sequence + event_count) AS end, min(first_started_at) AS earliest,
                max(last_started_at) AS latest
            FROM batches GROUP BY batch_id)
        SELECT events.collector_id AS collector_id, events.batch_id AS batch_id, min(sequence) AS first,
            max(sequence) AS last, uniqExact(sequence) = count() AS is_plain, count() AS rows,
            any(owners.number) AS number, min(received_at) AS oldest, max(received_at) AS newest
        FROM events LEFT JOIN owners ON events.batch_id = owners.batch_id
        WHERE {IN_SCOPE}
            AND ({{all_time:Bool}} OR (started_at >= fromUnixTimestamp64Nano({{from:Int64}}, 'UTC')
                AND started_at < fromUnixTimestamp64Nano({{to:Int64}}, 'UTC')))
            AND provider != 'external'
            AND NOT ifNull(owners.number > 0 AND collector_id = owner AND sequence >= start AND sequence < end
                AND started_at BETWEEN earliest AND latest, false)
        GROUP BY collector_id, batch_id
        ORDER BY collector_id, number, first"
    );
    let mut cursor = bind(store.ask_to_verify(&sql), scope, collectors).fetch::<Strays>()?;
    while let Some(strays) = cursor.next().await? {
        report.find(strays.finding(Kind::EventInserted, "events", now, lost));
    }
    Ok(())
}

/// How many events there are of senders that sign nothing.
pub async fn unsigned(store: &Store, scope: &Scope, collectors: &[CollectorId]) -> Result<u64, StoreError> {
    let sql = format!(
        "SELECT count() FROM events
        WHERE {IN_SCOPE}
            AND ({{all_time:Bool}} OR (started_at >= fromUnixTimestamp64Nano({{from:Int64}}, 'UTC')
                AND started_at < fromUnixTimestamp64Nano({{to:Int64}}, 'UTC')))
            AND provider = 'external'"
    );
    Ok(bind(store.ask_to_verify(&sql), scope, collectors).fetch_one().await?)
}

/// Coverage spans that no batch brought, or that say one thing twice.
pub async fn coverage<F: FnMut(Step)>(
    store: &Store,
    scope: &Scope,
    collectors: &[CollectorId],
    now: Timestamp,
    lost: &mut Lost,
    report: &mut Report<F>,
) -> Result<(), StoreError> {
    // A map may hold a key twice; reading it as a map would show one of the two.
    let sql = format!(
        "WITH owners AS (
            SELECT batch_id, any(collector_id) AS owner, any(number) AS number, max(coverage_count) AS spans
            FROM batches GROUP BY batch_id)
        SELECT coverage.collector_id AS collector_id, coverage.batch_id AS batch_id,
            min(toUInt64(position)) AS first, max(toUInt64(position)) AS last,
            uniqExact(position) = uniqExact(tuple(coverage.* EXCEPT received_at))
                AND min(length(mapKeys(lost)) = length(arrayDistinct(mapKeys(lost)))) AS is_plain,
            count() AS rows, any(owners.number) AS number,
            min(received_at) AS oldest, max(received_at) AS newest
        FROM coverage LEFT JOIN owners ON coverage.batch_id = owners.batch_id
        WHERE {IN_SCOPE}
            AND ({{all_time:Bool}} OR (span_to > fromUnixTimestamp64Nano({{from:Int64}}, 'UTC')
                AND span_from < fromUnixTimestamp64Nano({{to:Int64}}, 'UTC')))
            AND NOT (owners.number > 0 AND collector_id = owner AND position < spans
                AND length(mapKeys(lost)) = length(arrayDistinct(mapKeys(lost))))
        GROUP BY collector_id, batch_id
        ORDER BY collector_id, number, first"
    );
    let mut cursor = bind(store.ask_to_verify(&sql), scope, collectors).fetch::<Strays>()?;
    while let Some(strays) = cursor.next().await? {
        report.find(strays.finding(Kind::CoverageInserted, "coverage spans", now, lost));
    }
    Ok(())
}
