//! Retention: removes the old part of the record, after a service has declared and signed what goes.
//!
//! What is removed is always the beginning of a collector's chain, batch by batch, so that the rest hangs on one hash.
//! Contents (events and coverage) of whole months go first; the batches' own rows may stay longer, and prove then that
//! there was a record, of what size, signed by whom. Nothing is declared that does not verify: retention must not wash
//! away what tampering left. A run that was killed between declaring and removing is completed by the next.

use std::fmt::Write as _;
use std::ops::RangeInclusive;

use chrono::{Datelike, NaiveDate};
use clickhouse::Row;
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use whence_chain::{Expired, Expiry, SigningKey};
use whence_model::{CollectorId, Timestamp};

use crate::read::Window;
use crate::verify::{Finding, Hole, Lost, Outside, Scope, Step};
use crate::write::fresh_token;
use crate::{Store, StoreError, codec};

/// A row of `expiries`.
#[derive(Clone, Debug, PartialEq, Eq, Row, Serialize, Deserialize)]
pub struct ExpiryRow {
    #[serde(with = "clickhouse::serde::uuid")]
    pub collector_id: Uuid,
    /// `contents` or `batches`.
    pub what: String,
    pub first_batch: u64,
    pub last_batch: u64,
    pub events: u64,
    pub last_sequence: u64,
    #[serde(with = "codec::fixed")]
    pub head: [u8; 32],
    #[serde(with = "codec::timestamp")]
    pub before: Timestamp,
    pub reason: String,
    #[serde(with = "codec::timestamp")]
    pub declared_at: Timestamp,
    pub lost_batches: Vec<(u64, u64)>,
    /// Of the service that declared it.
    #[serde(with = "codec::fixed")]
    pub public_key: [u8; 32],
    #[serde(with = "codec::fixed")]
    pub signature: [u8; 64],
}

impl ExpiryRow {
    fn new(expiry: &Expiry, key: &SigningKey) -> Self {
        Self {
            collector_id: expiry.collector.0,
            what: expiry.what.as_str().into(),
            first_batch: expiry.first_batch,
            last_batch: expiry.last_batch,
            events: expiry.events,
            last_sequence: expiry.last_sequence,
            head: expiry.head,
            before: expiry.before,
            reason: expiry.reason.clone(),
            declared_at: expiry.declared_at,
            lost_batches: expiry.lost_batches.clone(),
            public_key: key.public().to_bytes(),
            signature: key.sign(&expiry.hash()),
        }
    }

    /// What was declared; whether it was signed is another question.
    pub fn to_expiry(&self) -> Result<Expiry, StoreError> {
        let what = Expired::parse(&self.what);
        Ok(Expiry {
            collector: CollectorId(self.collector_id),
            what: what.ok_or_else(|| StoreError::Corrupt { what: "what", value: self.what.clone() })?,
            first_batch: self.first_batch,
            last_batch: self.last_batch,
            events: self.events,
            last_sequence: self.last_sequence,
            head: self.head,
            before: self.before,
            reason: self.reason.clone(),
            declared_at: self.declared_at,
            lost_batches: self.lost_batches.clone(),
        })
    }
}

/// What is to be kept.
#[derive(Clone, Copy, Debug)]
pub struct Retention<'a> {
    /// Events are kept for so many days, and longer until their month is over.
    pub days: u32,
    /// The batches' own rows are kept for so many days.
    pub batch_days: u32,
    pub now: Timestamp,
    /// Signs the declarations.
    pub key: &'a SigningKey,
    /// Name of this host.
    pub host: &'a str,
}

/// What a run of retention did.
#[derive(Clone, Debug, Default)]
pub struct Retained {
    /// What was declared now.
    pub declared: Vec<Expiry>,
    /// What does not verify, and so was not declared.
    pub refused: Vec<Finding>,
}

#[derive(Row, Deserialize)]
struct SpanRow {
    #[serde(with = "clickhouse::serde::uuid")]
    collector_id: Uuid,
    first: u64,
    last: u64,
    events: u64,
}

/// A batch that has spans and no row of its own.
#[derive(Row, Deserialize)]
struct StrayRow {
    #[serde(with = "clickhouse::serde::uuid")]
    collector_id: Uuid,
    #[serde(with = "clickhouse::serde::uuid")]
    batch_id: Uuid,
}

impl Store {
    /// The declarations of a collector, or of all.
    pub async fn expiries(&self, collector: Option<CollectorId>) -> Result<Vec<ExpiryRow>, StoreError> {
        let sql = "SELECT ?fields FROM expiries WHERE {all:Bool} OR collector_id = {collector:UUID}
            ORDER BY collector_id, what, first_batch, declared_at";
        let query = self.client().query(sql).param("all", collector.is_none());
        let collector = collector.map_or_else(Uuid::nil, |id| id.0);
        Ok(query.param("collector", collector.to_string()).fetch_all().await?)
    }

    /// Removes what is older than `retention` says, and declares it first.
    pub async fn retain(&self, retention: Retention<'_>) -> Result<Retained, StoreError> {
        let contents_before = month_start(days_before(retention.now, retention.days));
        let batches_before =
            month_start(days_before(retention.now, retention.batch_days.max(retention.days)));
        self.add_service_key(retention.key.public().to_bytes(), retention.host).await?;
        let mut retained = Retained::default();
        for (what, before, days) in [
            (Expired::Contents, contents_before, retention.days),
            (Expired::Batches, batches_before, retention.batch_days),
        ] {
            for span in self.expiring(what, before).await? {
                let Some(mut expiry) = self.expiry(&span, what, before, days, retention.now).await? else {
                    continue;
                };
                let (findings, lost) = self.tampering_before(expiry.collector, before, retention.key).await?;
                if !findings.is_empty() {
                    retained.refused.extend(findings);
                    continue;
                }
                let lost = lost.of_collector(expiry.collector).map(RangeInclusive::into_inner);
                expiry.lost_batches = lost.filter(|(_, last)| *last < expiry.last_batch).collect();
                let row = ExpiryRow::new(&expiry, retention.key);
                self.insert("expiries", &fresh_token(), [&row]).await?;
                retained.declared.push(expiry);
            }
            // What was declared before too: the run that declared it may have been killed.
            match what {
                Expired::Contents => self.remove_contents(before).await?,
                Expired::Batches => self.remove_batches().await?,
            }
        }
        Ok(retained)
    }

    /// For each collector with such: the batches behind what has expired, up to the last before the first that must be
    /// kept. The newest batch's row stays, since ingest goes on from it.
    async fn expiring(&self, what: Expired, before: Timestamp) -> Result<Vec<SpanRow>, StoreError> {
        let sql = "WITH
                fromUnixTimestamp64Nano({before:Int64}, 'UTC') AS end,
                done AS (SELECT collector_id, max(last_batch) AS through FROM expiries
                    WHERE what = {what:String} GROUP BY collector_id),
                allowed AS (SELECT collector_id, max(last_batch) AS through FROM expiries
                    WHERE what = 'contents' GROUP BY collector_id),
                kept AS (SELECT collector_id, max(number) AS newest,
                        minIf(number, sealed_at >= end OR ifNull(last_started_at >= end, false)) AS first_kept
                    FROM batches GROUP BY collector_id)
            SELECT batches.collector_id AS collector_id, min(number) AS first, max(number) AS last,
                sum(toUInt64(event_count)) AS events
            FROM batches
                INNER JOIN kept ON kept.collector_id = batches.collector_id
                LEFT JOIN done ON done.collector_id = batches.collector_id
                LEFT JOIN allowed ON allowed.collector_id = batches.collector_id
            WHERE number > done.through AND (kept.first_kept = 0 OR number < kept.first_kept)
                AND ({what:String} = 'contents' OR (number <= allowed.through AND number < kept.newest))
            GROUP BY batches.collector_id ORDER BY collector_id";
        let query = self.ask_to_verify(sql).param("what", what.as_str()).param("before", before.0);
        Ok(query.fetch_all().await?)
    }

    async fn expiry(
        &self,
        span: &SpanRow,
        what: Expired,
        before: Timestamp,
        days: u32,
        now: Timestamp,
    ) -> Result<Option<Expiry>, StoreError> {
        let collector = CollectorId(span.collector_id);
        let last = self.batches(collector, &[span.last]).await?;
        Ok(last.first().map(|last| Expiry {
            collector,
            what,
            first_batch: span.first,
            last_batch: span.last,
            events: span.events,
            last_sequence: last.next_sequence().saturating_sub(1),
            head: last.batch_hash,
            before,
            reason: format!("kept for {days} days"),
            declared_at: now,
            lost_batches: Vec::new(),
        }))
    }

    /// What does not verify, and the batches that were lost on the way.
    async fn tampering_before(
        &self,
        collector: CollectorId,
        before: Timestamp,
        key: &SigningKey,
    ) -> Result<(Vec<Finding>, Lost), StoreError> {
        let window = Some(Window { from: Timestamp(0), to: before });
        let scope = Scope { window, collector: Some(collector), instance: None };
        let mut service_keys = vec![key.public()];
        let others = self.service_keys().await?;
        service_keys
            .extend(others.iter().filter_map(|row| whence_chain::PublicKey::from_bytes(&row.public_key)));
        let outside = Outside { service_keys, heads: Vec::new() };
        let mut findings = Vec::new();
        let sink = |step| match step {
            Step::Finding(finding) if finding.kind.is_tampering() => findings.push(finding),
            _ => {}
        };
        let (_, lost) = self.verify_and_know_lost(&scope, &outside, sink).await?;
        Ok((findings, lost))
    }

    /// Removes the events and spans of batches that are declared so, and what senders that sign nothing sent before
    /// `before`.
    async fn remove_contents(&self, before: Timestamp) -> Result<(), StoreError> {
        let expired = self.expired_sql(Expired::Contents, "sequence").await?;
        let expired = expired.unwrap_or_else(|| "false".into());
        let unsigned = format!(
            "(provider = 'external' AND started_at < fromUnixTimestamp64Nano(toInt64({}), 'UTC'))",
            before.0
        );
        let goes = format!("((provider != 'external' AND {expired}) OR {unsigned})");
        let sql =
            format!("SELECT DISTINCT toYYYYMM(started_at) AS month FROM events WHERE {goes} ORDER BY month");
        let months: Vec<u32> = self.ask_to_verify(&sql).fetch_all().await?;
        for month in months {
            self.mutate(&format!("ALTER TABLE events DELETE IN PARTITION ID '{month}' WHERE {goes}")).await?;
        }
        let Some(expired) = self.expired_sql(Expired::Contents, "number").await? else { return Ok(()) };
        let spans = format!("batch_id IN (SELECT batch_id FROM batches WHERE {expired})");
        self.remove("coverage", &spans).await?;
        self.remove_lost_spans().await
    }

    /// Removes the spans of batches that were lost when a part of them had been written, where they expired. Their events
    /// go with those of the other batches, by their numbers.
    async fn remove_lost_spans(&self) -> Result<(), StoreError> {
        let mut lost = Lost::default();
        for row in self.expiries(None).await? {
            lost.add(CollectorId(row.collector_id), row.lost_batches.into_iter().map(Hole::from));
        }
        let sql = "SELECT DISTINCT collector_id, batch_id FROM coverage
            WHERE batch_id NOT IN (SELECT batch_id FROM batches) ORDER BY collector_id";
        let mut strays: Vec<StrayRow> = self.ask_to_verify(sql).fetch_all().await?;
        strays.retain(|row| lost.of_spans(CollectorId(row.collector_id), row.batch_id).is_some());
        if strays.is_empty() {
            return Ok(());
        }
        let ids: Vec<String> = strays.iter().map(|row| format!("'{}'", row.batch_id)).collect();
        self.mutate(&format!("ALTER TABLE coverage DELETE WHERE batch_id IN ({})", ids.join(","))).await
    }

    async fn remove_batches(&self) -> Result<(), StoreError> {
        match self.expired_sql(Expired::Batches, "number").await? {
            Some(expired) => self.remove("batches", &expired).await,
            None => Ok(()),
        }
    }

    async fn remove(&self, table: &str, of: &str) -> Result<(), StoreError> {
        let sql = format!("SELECT count() > 0 FROM {table} WHERE {of}");
        if self.ask_to_verify(&sql).fetch_one::<bool>().await? {
            self.mutate(&format!("ALTER TABLE {table} DELETE WHERE {of}")).await?;
        }
        Ok(())
    }

    async fn mutate(&self, sql: &str) -> Result<(), StoreError> {
        let query = self.client().query(sql).with_setting("mutations_sync", "1");
        Ok(query.with_setting("max_execution_time", "0").execute().await?)
    }

    /// A condition on rows of a collector whose `column` (`sequence` or `number`) is of an expired batch.
    async fn expired_sql(&self, what: Expired, column: &str) -> Result<Option<String>, StoreError> {
        let rows = self.expiries(None).await?;
        let mut ends = std::collections::BTreeMap::<Uuid, u64>::new();
        for row in rows.iter().filter(|row| row.what == what.as_str()) {
            let end = if column == "sequence" { row.last_sequence } else { row.last_batch };
            let known = ends.entry(row.collector_id).or_default();
            *known = end.max(*known);
        }
        if ends.is_empty() {
            return Ok(None);
        }
        // Ids and numbers: nothing that needs quoting. A statement that changes a table takes no parameters.
        let (mut ids, mut last) = (String::new(), String::new());
        for (id, end) in &ends {
            let comma = if ids.is_empty() { "" } else { "," };
            let _ = write!(ids, "{comma}'{id}'");
            let _ = write!(last, "{comma}toUInt64({end})");
        }
        Ok(Some(format!("{column} <= transform(toString(collector_id), [{ids}], [{last}], toUInt64(0))")))
    }
}

fn days_before(now: Timestamp, days: u32) -> NaiveDate {
    let today = now.to_utc().date_naive();
    today.checked_sub_days(chrono::Days::new(days.into())).unwrap_or(NaiveDate::MIN)
}

/// The beginning of the month that this day is in: events are partitioned by it.
fn month_start(day: NaiveDate) -> Timestamp {
    let start = day.with_day(1).unwrap_or(day).and_hms_opt(0, 0, 0).unwrap_or_default();
    Timestamp::from(start.and_utc())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_months_expire() {
        let now = Timestamp(1_795_435_200_000_000_000);
        let before = |days| month_start(days_before(now, days)).to_string();
        assert_eq!(before(0), "2026-11-01T00:00:00.000000000Z");
        assert_eq!(before(22), "2026-11-01T00:00:00.000000000Z");
        assert_eq!(before(23), "2026-10-01T00:00:00.000000000Z");
    }
}
