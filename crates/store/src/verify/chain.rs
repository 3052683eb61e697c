//! One collector's chain, batch by batch.

use std::collections::{HashMap, VecDeque};

use clickhouse::Row;
use serde::Deserialize;
use uuid::Uuid;
use whence_chain::{Expired, PublicKey};
use whence_model::{BatchId, CollectorId, Timestamp};

use super::contents::Contents;
use super::event::{Judged, StoredEvent};
use super::expired::Expiries;
use super::link::{Hole, Links};
use super::manifest::Sealed;
use super::rows::{Rows, judged, stream};
use super::{Chain, Finding, Kind, Report, Scope, Step};
use crate::row::{BatchRow, CoverageRow};
use crate::{Store, StoreError};

/// Rows of batches that are asked for at once.
const PAGE: u64 = 2048;
/// As many batches are looked at together as have this many events …
const EVENTS: u64 = 65_536;
/// … but not more than this.
const BATCHES: usize = 512;

/// Which part of a chain is to be walked: from `first` to `last`, and the links to `before` and `after`.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub collector: CollectorId,
    /// Events in it, as the rows of its batches say.
    pub events: u64,
    first: u64,
    last: u64,
    before: Option<u64>,
    after: Option<u64>,
}

#[derive(Row, Deserialize)]
struct PlanRow {
    #[serde(with = "clickhouse::serde::uuid")]
    collector_id: Uuid,
    /// Batches in the window.
    inside: u64,
    /// Of those, the first and the last number. Without any: the first after the window, the last before it.
    first: u64,
    last: u64,
    /// The numbers next to those; 0 when there is none.
    before: u64,
    after: u64,
    events: u64,
}

impl PlanRow {
    fn plan(self, is_whole: bool) -> Option<Plan> {
        let collector = CollectorId(self.collector_id);
        if self.inside == 0 {
            // Nothing in the window, but before and after it: the two must be linked.
            let (before, after) = (Some(self.last), Some(self.first));
            let is_between = self.last > 0 && self.first > self.last;
            return is_between.then_some(Plan { collector, events: 0, first: 1, last: 0, before, after });
        }
        Some(Plan {
            collector,
            events: self.events,
            first: self.first,
            last: self.last,
            before: (self.before > 0).then_some(self.before),
            // What came since is not asked for when everything is.
            after: (self.after > 0 && !is_whole).then_some(self.after),
        })
    }
}

/// What is to be walked, collector by collector.
pub async fn plan(store: &Store, scope: &Scope) -> Result<Vec<Plan>, StoreError> {
    let sql = "WITH
            fromUnixTimestamp64Nano({from:Int64}, 'UTC') AS begin,
            fromUnixTimestamp64Nano({to:Int64}, 'UTC') AS end,
            parts AS (
                SELECT collector_id, countIf(is_inside) AS inside,
                    if(inside > 0, minIf(number, is_inside), minIf(number, sealed_at >= end)) AS first,
                    if(inside > 0, maxIf(number, is_inside), maxIf(number, sealed_at < begin)) AS last
                FROM (SELECT collector_id, number, sealed_at, {all_time:Bool}
                        OR ifNull(first_started_at < end AND last_started_at >= begin, false)
                        OR (sealed_at >= begin AND sealed_at < end)
                        OR batch_id IN (SELECT batch_id FROM coverage WHERE span_from < end AND span_to > begin)
                        AS is_inside
                    FROM batches)
                WHERE ({all_collectors:Bool} OR collector_id = {collector:UUID})
                    AND ({all_instances:Bool} OR collector_id IN (
                        SELECT collector_id FROM coverage WHERE instance_id = {instance:UUID}
                        UNION DISTINCT SELECT collector_id FROM events WHERE instance_id = {instance:UUID}))
                GROUP BY collector_id)
        SELECT collector_id, any(parts.inside) AS inside, any(parts.first) AS first, any(parts.last) AS last,
            maxIf(number, number < parts.first) AS before, minIf(number, number > parts.last) AS after,
            sumIf(toUInt64(event_count), number BETWEEN parts.first AND parts.last) AS events
        FROM batches INNER JOIN parts USING (collector_id)
        GROUP BY collector_id ORDER BY collector_id";
    let window = scope.window;
    let query = store
        .ask_to_verify(sql)
        .param("all_collectors", scope.collector.is_none())
        .param("collector", scope.collector.map_or_else(Uuid::nil, |id| id.0).to_string())
        .param("all_instances", scope.instance.is_none())
        .param("instance", scope.instance.map_or_else(Uuid::nil, |id| id.0).to_string())
        .param("all_time", window.is_none())
        .param("from", window.map_or(0, |window| window.from.0))
        .param("to", window.map_or(0, |window| window.to.0));
    let rows: Vec<PlanRow> = query.fetch_all().await?;
    Ok(rows.into_iter().filter_map(|row| row.plan(window.is_none())).collect())
}

/// Some batches that are looked at together, whose rows are on their way.
struct Portion {
    batches: Vec<Sealed>,
    events: Rows<Judged>,
    coverage: Rows<CoverageRow>,
}

/// Walks the part of a chain that `plan` names, and returns what its collector signed to have lost in it.
pub async fn walk<F: FnMut(Step)>(
    store: &Store,
    plan: &Plan,
    service_keys: &[PublicKey],
    report: &mut Report<F>,
) -> Result<Vec<Hole>, StoreError> {
    let expiries = Expiries::load(store, plan.collector, service_keys, report).await?;
    let stored_key = store.collector(plan.collector).await?.map(|known| known.public_key);
    let key = stored_key.and_then(|key| PublicKey::from_bytes(&key));
    let mut walk = Walk {
        store,
        plan: *plan,
        key,
        links: Links::new(plan.collector, plan.before.is_none(), &expiries),
        expiries,
        waiting: VecDeque::new(),
        next: Some(plan.before.unwrap_or(plan.first)),
        head: None,
    };
    let mut portion = walk.portion().await?;
    while let Some(current) = portion {
        // Asked for before the one at hand is looked at, so that ClickHouse does not wait for us.
        portion = walk.portion().await?;
        walk.look_at(current, report).await?;
    }
    while let Some(finding) = walk.links.unaccounted() {
        report.find(finding);
    }
    report.summary.collectors += 1;
    if let Some((last_batch, head)) = walk.head {
        let (collector, first_batch) = (plan.collector, plan.first);
        (report.sink)(Step::Chain(Chain {
            collector,
            public_key: stored_key,
            first_batch,
            last_batch,
            head,
        }));
    }
    Ok(walk.links.into_lost())
}

struct Walk<'a> {
    store: &'a Store,
    plan: Plan,
    key: Option<PublicKey>,
    links: Links,
    expiries: Expiries,
    /// Batches whose rows in `batches` have been read.
    waiting: VecDeque<Sealed>,
    /// The number from which on they are to be read; none when all have been.
    next: Option<u64>,
    head: Option<(u64, whence_chain::Hash)>,
}

impl Walk<'_> {
    /// The next batches to look at; none when all have been.
    async fn portion(&mut self) -> Result<Option<Portion>, StoreError> {
        if self.waiting.len() < BATCHES {
            self.page().await?;
        }
        let mut events = 0_u64;
        let mut batches = Vec::new();
        while let Some(batch) = self.waiting.front() {
            events = events.saturating_add(batch.row.event_count.into());
            if batches.len() == BATCHES || (events > EVENTS && !batches.is_empty()) {
                break;
            }
            batches.extend(self.waiting.pop_front());
        }
        if batches.is_empty() {
            return Ok(None);
        }
        let (events, coverage) = self.ask(&batches, &[]);
        Ok(Some(Portion { batches, events, coverage }))
    }

    /// Reads on in `batches`.
    async fn page(&mut self) -> Result<(), StoreError> {
        let Some(next) = self.next.take() else { return Ok(()) };
        let last = self.plan.after.unwrap_or(self.plan.last);
        // All rows of a number, however many there are.
        let sql = "SELECT ?fields FROM batches
            WHERE collector_id = {collector:UUID} AND number BETWEEN {next:UInt64} AND {last:UInt64}
            ORDER BY number LIMIT {page:UInt64} WITH TIES";
        let query = self.store.ask_to_verify(sql).param("collector", self.plan.collector.to_string());
        let query = query.param("next", next).param("last", last).param("page", PAGE);
        let rows: Vec<BatchRow> = query.fetch_all().await?;
        if let Some(row) = rows.last().filter(|row| rows.len() as u64 >= PAGE && row.number < last) {
            self.next = Some(row.number + 1);
        }
        let numbers = rows.chunk_by(|one, other| one.number == other.number);
        self.waiting.extend(numbers.filter_map(|rows| Sealed::new(rows, self.key.as_ref())));
        Ok(())
    }

    /// Asks for the rows of `batches`, but for those that cannot be read.
    fn ask(&self, batches: &[Sealed], without: &[Uuid]) -> (Rows<Judged>, Rows<CoverageRow>) {
        let inside = batches.iter().filter(|batch| self.is_inside(batch));
        let collector = self.plan.collector;
        let ids = inside.map(|batch| BatchId::derive(collector, batch.row.number).0);
        let ids: Vec<String> = ids.filter(|id| !without.contains(id)).map(|id| id.to_string()).collect();
        // The times are the primary key. A row outside of them is found as a stray.
        let first = batches.iter().filter_map(|batch| batch.row.first_started_at).min();
        let last = batches.iter().filter_map(|batch| batch.row.last_started_at).max();
        let sql = format!(
            "SELECT {} FROM events WHERE collector_id = {{collector:UUID}}
                AND started_at BETWEEN fromUnixTimestamp64Nano({{first:Int64}}, 'UTC') \
                    AND fromUnixTimestamp64Nano({{last:Int64}}, 'UTC')
                AND batch_id IN {{ids:Array(UUID)}}
            ORDER BY sequence",
            StoredEvent::COLUMNS.join(", ")
        );
        let query = self.store.ask_to_verify(&sql).param("collector", collector.to_string());
        let query = query.param("first", first.unwrap_or_default().0);
        let query = query.param("last", last.unwrap_or(Timestamp(-1)).0).param("ids", &ids);
        let events = judged(query);
        let sql = "SELECT ?fields FROM coverage
            WHERE collector_id = {collector:UUID} AND batch_id IN {ids:Array(UUID)}
            ORDER BY batch_id, position, received_at";
        let query =
            self.store.ask_to_verify(sql).param("collector", collector.to_string()).param("ids", &ids);
        (events, stream(query))
    }

    /// Whether the batch's contents are to be verified, and not its link only.
    fn is_inside(&self, batch: &Sealed) -> bool {
        (self.plan.first..=self.plan.last).contains(&batch.row.number)
    }

    /// Verifies the batches of a portion and says what is wrong with them, in their order.
    async fn look_at<F: FnMut(Step)>(
        &mut self,
        portion: Portion,
        report: &mut Report<F>,
    ) -> Result<(), StoreError> {
        let Portion { batches, events, coverage } = portion;
        let mut rows = 0;
        let looked = match read(&batches, &[], events, coverage, &mut rows).await {
            Ok(looked) => looked,
            Err(error) => {
                // Bytes that are no text cannot be received as a row at all.
                let unreadable = self.unreadable(&batches).await?;
                if unreadable.is_empty() {
                    return Err(error);
                }
                let without: Vec<Uuid> = unreadable.iter().map(|row| row.batch_id).collect();
                let (events, coverage) = self.ask(&batches, &without);
                rows = 0;
                read(&batches, &unreadable, events, coverage, &mut rows).await?
            }
        };
        report.events(rows);
        for mut contents in looked {
            let is_inside = self.is_inside(&contents.sealed);
            if is_inside {
                self.finish(&mut contents, report);
            }
            self.links.follow(&mut contents.sealed);
            self.head = Some((contents.sealed.row.number, contents.sealed.row.batch_hash))
                .filter(|_| is_inside)
                .or(self.head);
            if let Some(finding) = contents.finding() {
                report.find(finding.clone());
            }
            // What is left of a batch that retention is removing proves nothing; the declaration names what it told.
            if contents.finding().is_none_or(|finding| finding.kind != Kind::Unfinished) {
                self.links.declare(contents.gaps.iter().map(|(_, gap)| *gap), &contents.lost_batches);
            }
            for (sequence, gap) in &contents.gaps {
                report.find(Finding {
                    kind: Kind::EventsLost,
                    collector: self.plan.collector,
                    batch: Some(contents.sealed.row.number),
                    sequence: Some(*sequence),
                    expected: String::new(),
                    found: format!("{} events were lost: {}", gap.events, gap.reason),
                });
            }
            while let Some(finding) = self.links.accounted() {
                report.find(finding);
            }
        }
        Ok(())
    }

    /// Judges a batch as a whole, now that all of its rows have come.
    fn finish<F: FnMut(Step)>(&self, contents: &mut Contents, report: &mut Report<F>) {
        report.summary.batches += 1;
        let number = contents.sealed.row.number;
        self.expiries.compare(&mut contents.sealed);
        if contents.is_empty() && self.expiries.of(Expired::Contents, number).is_some() {
            report.summary.expired += 1;
            return;
        }
        contents.finish();
        if self.expiries.is_removing(number, Timestamp::now()) {
            contents.excuse_missing();
        }
    }

    /// The batches that hold bytes that are not UTF-8, each with the first event that does.
    async fn unreadable(&self, batches: &[Sealed]) -> Result<Vec<Unreadable>, StoreError> {
        let sql = format!(
            "SELECT batch_id, min(number) AS sequence FROM (
                SELECT batch_id, sequence AS number FROM events
                WHERE collector_id = {{collector:UUID}} AND batch_id IN {{ids:Array(UUID)}}
                    AND NOT isValidUTF8(concatWithSeparator(' ', {EVENT_TEXTS}))
                UNION ALL SELECT batch_id, 0 AS number FROM coverage
                WHERE collector_id = {{collector:UUID}} AND batch_id IN {{ids:Array(UUID)}}
                    AND NOT isValidUTF8(concatWithSeparator(' ', {COVERAGE_TEXTS})))
            GROUP BY batch_id"
        );
        let ids = batches.iter().map(|batch| BatchId::derive(self.plan.collector, batch.row.number));
        let ids: Vec<String> = ids.map(|id| id.to_string()).collect();
        let query = self.store.ask_to_verify(&sql).param("collector", self.plan.collector.to_string());
        Ok(query.param("ids", &ids).fetch_all().await?)
    }
}

/// The texts of an event, none of them null.
const EVENT_TEXTS: &str = "kind, provider, host, product, ifNull(version, ''), ifNull(container_id, ''), \
    ifNull(user, ''), ifNull(login_user, ''), ifNull(client_host, ''), ifNull(transport, ''), ifNull(database, ''), \
    ifNull(command, ''), ifNull(statement_class, ''), ifNull(sql_text, ''), arrayStringConcat(tables, ' '), \
    ifNull(result, ''), ifNull(sqlstate, ''), ifNull(error_message, ''), ifNull(gap_reason, '')";
/// … and of a coverage span.
const COVERAGE_TEXTS: &str = "host, product, ifNull(version, ''), ifNull(container_id, ''), state, \
    ifNull(provider, ''), arrayStringConcat(mapKeys(filtered_by), ' '), arrayStringConcat(mapKeys(lost), ' '), \
    ifNull(detail, '')";

/// A batch that holds bytes that are no text.
#[derive(Row, Deserialize)]
struct Unreadable {
    #[serde(with = "clickhouse::serde::uuid")]
    batch_id: Uuid,
    /// 0: a coverage span.
    sequence: u64,
}

/// Takes all rows of some batches, and counts those of events.
async fn read(
    batches: &[Sealed],
    unreadable: &[Unreadable],
    mut events: Rows<Judged>,
    mut coverage: Rows<CoverageRow>,
    rows: &mut u64,
) -> Result<Vec<Contents>, StoreError> {
    let mut contents: Vec<Contents> = batches.iter().cloned().map(Contents::new).collect();
    let ids =
        batches.iter().map(|batch| BatchId::derive(CollectorId(batch.row.collector_id), batch.row.number).0);
    let places: HashMap<Uuid, usize> = ids.zip(0..).collect();
    let place = |id: &Uuid| places.get(id).copied();
    for bad in unreadable {
        if let Some(contents) = place(&bad.batch_id).and_then(|place| contents.get_mut(place)) {
            contents.mark_unreadable((bad.sequence > 0).then_some(bad.sequence));
        }
    }
    while let Some(some) = events.recv().await {
        for row in some? {
            *rows += 1;
            if let Some(contents) = place(&row.batch_id).and_then(|place| contents.get_mut(place)) {
                contents.event(row);
            }
        }
    }
    while let Some(some) = coverage.recv().await {
        for row in some? {
            if let Some(contents) = place(&row.batch_id).and_then(|place| contents.get_mut(place)) {
                contents.coverage(row);
            }
        }
    }
    Ok(contents)
}
