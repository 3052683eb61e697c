//! What exports and daily heads are proven with: keys of services, manifests, where the chains are.

use std::collections::BTreeMap;

use chrono::NaiveDate;
use clickhouse::Row;
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use whence_model::{CollectorId, Timestamp};

use crate::read::EventFilter;
use crate::row::BatchRow;
use crate::write::fresh_token;
use crate::{Store, StoreError, codec};

/// A key that a service of Whence signs with.
#[derive(Clone, Debug, PartialEq, Eq, Row, Serialize, Deserialize)]
pub struct ServiceKeyRow {
    /// Ed25519.
    #[serde(with = "codec::fixed")]
    pub public_key: [u8; 32],
    /// Where it was first used.
    pub host: String,
    #[serde(with = "codec::timestamp")]
    pub first_used_at: Timestamp,
}

/// The signed manifest of an export.
#[derive(Clone, Debug, PartialEq, Eq, Row, Serialize, Deserialize)]
pub struct ExportRow {
    #[serde(with = "clickhouse::serde::uuid")]
    pub export_id: Uuid,
    #[serde(with = "codec::timestamp")]
    pub finished_at: Timestamp,
    pub person: String,
    pub file_name: String,
    pub manifest: String,
}

/// Losses of a server for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Row, Deserialize)]
pub struct GapRow {
    #[serde(with = "clickhouse::serde::uuid")]
    pub instance_id: Uuid,
    pub host: String,
    pub reason: String,
    pub events: u64,
    #[serde(with = "codec::timestamp")]
    pub first: Timestamp,
    #[serde(with = "codec::timestamp")]
    pub last: Timestamp,
}

/// The last batch of a collector, at some time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    pub batch: BatchRow,
    pub public_key: Option<[u8; 32]>,
}

#[derive(Row, Deserialize)]
struct DayRow {
    /// Days since 1970.
    day: u16,
    #[serde(with = "clickhouse::serde::uuid")]
    collector_id: Uuid,
    number: u64,
}

impl Store {
    /// Every key of a service that was ever used, oldest first.
    pub async fn service_keys(&self) -> Result<Vec<ServiceKeyRow>, StoreError> {
        let sql = "SELECT public_key, argMin(known.host, known.first_used_at) AS host,
                min(known.first_used_at) AS first_used_at
            FROM service_keys AS known GROUP BY public_key ORDER BY first_used_at, public_key";
        Ok(self.ask(sql).fetch_all().await?)
    }

    /// Makes a key of a service known. True when it was not.
    pub async fn add_service_key(&self, public_key: [u8; 32], host: &str) -> Result<bool, StoreError> {
        let known = self.service_keys().await?;
        if known.iter().any(|known| known.public_key == public_key) {
            return Ok(false);
        }
        let row = ServiceKeyRow { public_key, host: host.into(), first_used_at: Timestamp::now() };
        self.insert("service_keys", &fresh_token(), [&row]).await?;
        Ok(true)
    }

    /// Keeps the manifest of an export.
    pub async fn add_export(&self, row: &ExportRow) -> Result<(), StoreError> {
        self.insert("exports", &row.export_id.to_string(), [row]).await
    }

    /// The manifest of an export that ended.
    pub async fn export(&self, id: Uuid) -> Result<Option<ExportRow>, StoreError> {
        let sql = "SELECT ?fields FROM exports WHERE export_id = {id:UUID} LIMIT 1";
        Ok(self.ask(sql).param("id", id.to_string()).fetch_optional().await?)
    }

    /// What was lost in a filter's window, of the servers that it means.
    pub async fn gaps(&self, filter: &EventFilter) -> Result<Vec<GapRow>, StoreError> {
        let filter = filter.for_gaps();
        let sql = format!(
            "SELECT instance_id, any(gap.host) AS host, reason, sum(lost) AS events, min(started_at) AS first,
                 max(started_at) AS last
             FROM (SELECT instance_id, host, ifNull(gap_reason, '') AS reason, ifNull(gap_events, 0) AS lost, started_at
                 FROM events WHERE {}) AS gap
             GROUP BY instance_id, reason ORDER BY instance_id, reason",
            filter.conditions()
        );
        Ok(filter.bind(self.ask(&sql)).fetch_all().await?)
    }

    /// The newest batch of every collector.
    pub async fn heads(&self) -> Result<Vec<Head>, StoreError> {
        let sql = "SELECT toUInt16(0) AS day, collector_id, max(number) AS number FROM batches
            GROUP BY collector_id ORDER BY collector_id";
        let rows: Vec<DayRow> = self.client().query(sql).fetch_all().await?;
        let places: Vec<_> = rows.iter().map(|row| (row.collector_id, row.number)).collect();
        self.heads_at(&places).await
    }

    /// For each day in `from..to` on which a batch was sealed: the last batch of every collector at its end.
    pub async fn day_heads(
        &self,
        from: Option<NaiveDate>,
        to: NaiveDate,
    ) -> Result<BTreeMap<NaiveDate, Vec<Head>>, StoreError> {
        let sql = "SELECT toDate(sealed_at, 'UTC') AS day, collector_id, max(number) AS number FROM batches
            WHERE sealed_at < fromUnixTimestamp64Nano({to:Int64}, 'UTC')
            GROUP BY day, collector_id ORDER BY day, collector_id";
        let midnight = to.and_hms_opt(0, 0, 0).unwrap_or_default().and_utc();
        let query = self.client().query(sql).param("to", Timestamp::from(midnight).0);
        let rows: Vec<DayRow> = query.fetch_all().await?;
        let mut newest = BTreeMap::new();
        let mut days = BTreeMap::new();
        for rows in rows.chunk_by(|one, other| one.day == other.day) {
            for row in rows {
                let number = newest.entry(row.collector_id).or_insert(row.number);
                *number = row.number.max(*number);
            }
            let Some(day) = rows.first().and_then(|row| day(row.day)) else { continue };
            if from.is_none_or(|from| day >= from) {
                let places: Vec<_> = newest.iter().map(|(id, number)| (*id, *number)).collect();
                days.insert(day, self.heads_at(&places).await?);
            }
        }
        Ok(days)
    }

    async fn heads_at(&self, places: &[(Uuid, u64)]) -> Result<Vec<Head>, StoreError> {
        let keys = self.list_collectors().await?;
        let mut heads = Vec::with_capacity(places.len());
        for (collector, number) in places {
            // Of several rows of a number, the one that came first, as ingest does.
            let sql = "SELECT ?fields FROM batches WHERE collector_id = {collector:UUID} AND number = {number:UInt64}
                ORDER BY received_at LIMIT 1";
            let query = self.client().query(sql).param("collector", collector.to_string());
            let batch: Option<BatchRow> = query.param("number", *number).fetch_optional().await?;
            let key = keys.iter().find(|known| known.collector_id == *collector);
            heads.extend(batch.map(|batch| Head { batch, public_key: key.map(|known| known.public_key) }));
        }
        Ok(heads)
    }

    /// The batches of a collector with these numbers, every row of them.
    pub(crate) async fn batches(
        &self,
        collector: CollectorId,
        numbers: &[u64],
    ) -> Result<Vec<BatchRow>, StoreError> {
        let sql = "SELECT ?fields FROM batches
            WHERE collector_id = {collector:UUID} AND number IN {numbers:Array(UInt64)} ORDER BY number";
        let query = self.client().query(sql).param("collector", collector.to_string());
        Ok(query.param("numbers", numbers).fetch_all().await?)
    }
}

fn day(since_1970: u16) -> Option<NaiveDate> {
    NaiveDate::from_ymd_opt(1970, 1, 1)?.checked_add_days(chrono::Days::new(since_1970.into()))
}
