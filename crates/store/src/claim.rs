//! Who may write a collector's batches, so that many batches go in at once and each of them once.
//!
//! A *writer* is a process of ingest, and the name of a session of ClickHouse (`session_id` of its HTTP interface) that it
//! opened. It writes batches of many collectors in one insert, where no token can tell them apart. Instead nobody else writes
//! what it may write:
//!
//! 1. A writer stores a *claim* on a collector, and then reads all claims on it.
//! 2. It closes the session of every other writer that it finds there. ClickHouse refuses to while a query of that session runs.
//! 3. Only then it looks at what is stored of this collector.
//! 4. Its inserts demand that its session exists (`session_check`), else ClickHouse refuses them.
//!
//! So what a writer saw in step 3 stays as it is until it writes itself, or its inserts are refused: whoever else writes has
//! closed its session before. Of two that claim at once, at least one reads the claim of the other. No clock decides: an insert
//! that was held up for hours on its way is refused when it comes. A session also ends with ClickHouse, and by lying idle; its writer
//! then begins anew with another. An insert whose end is not known runs in the session, so that its writer, too, has to close
//! the session before it looks.
//!
//! A session belongs to an account and to one server: all services of ingest share one account, and one ClickHouse server.

use std::collections::HashMap;

use clickhouse::Row;
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use whence_model::{CollectorId, Timestamp};

use crate::row::{BatchRow, CoverageRow, EventRow};
use crate::write::fresh_token;
use crate::{Store, StoreError, codec};

/// ClickHouse forgets a session that is not used for so long (`max_session_timeout` is an hour).
const SESSION_SECONDS: &str = "3600";

/// A process that writes batches, by the session that it opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WriterId(Uuid);

/// What a writer finds when it has made its claim.
#[derive(Clone, Debug, Default)]
pub struct Claims {
    /// Everyone else who ever claimed one of the collectors.
    pub others: Vec<WriterId>,
    /// The collectors of which a batch was taken that did not follow the newest: any batch may be half-written.
    pub leapt: Vec<CollectorId>,
}

/// The rows of one batch that are to be written, those of `events` that are not stored.
#[derive(Clone, Debug)]
pub struct GroupedBatch {
    pub batch: BatchRow,
    pub events: Vec<EventRow>,
    pub coverage: Vec<CoverageRow>,
}

#[derive(Clone, Debug, Row, Serialize, Deserialize)]
struct ClaimRow {
    #[serde(with = "clickhouse::serde::uuid")]
    collector_id: Uuid,
    #[serde(with = "clickhouse::serde::uuid")]
    writer_id: Uuid,
    account: String,
    leaps: bool,
    #[serde(with = "codec::timestamp")]
    claimed_at: Timestamp,
}

impl Store {
    /// Opens a session to write in.
    pub async fn open_writer(&self) -> Result<WriterId, StoreError> {
        let writer = WriterId(Uuid::new_v4());
        self.in_session(writer).query("SELECT 1").fetch_one::<u8>().await?;
        Ok(writer)
    }

    /// Claims these collectors, and says what was claimed before or meanwhile.
    pub async fn claim(&self, writer: WriterId, collectors: &[CollectorId]) -> Result<Claims, StoreError> {
        self.insert_claims(writer, collectors, false).await?;
        let sql = "SELECT ?fields FROM claims WHERE collector_id IN {ids:Array(UUID)}";
        let query = self.client().query(sql).param("ids", texts(collectors));
        let rows = query.fetch_all::<ClaimRow>().await?;
        let mut claims = Claims::default();
        for row in rows {
            if row.writer_id != writer.0 {
                if row.account != self.account {
                    let reason = format!(
                        "another ingest writes as {:?} and this one as {:?}; give all of them one account of ClickHouse, \
                         and delete the other's rows from the table `claims`",
                        row.account, self.account
                    );
                    return Err(StoreError::Misconfigured { reason });
                }
                claims.others.push(WriterId(row.writer_id));
            }
            if row.leaps {
                claims.leapt.push(CollectorId(row.collector_id));
            }
        }
        claims.others.sort_unstable_by_key(|writer| writer.0);
        claims.others.dedup();
        Ok(claims)
    }

    /// Says to all who claim this collector later that a batch of it is written that does not follow the newest.
    pub async fn claim_leap(&self, writer: WriterId, collector: CollectorId) -> Result<(), StoreError> {
        self.insert_claims(writer, &[collector], true).await
    }

    /// Ends the session of another writer: nothing that it sent comes into effect after this. False while an insert of it runs.
    pub async fn close_writer(&self, writer: WriterId) -> Result<bool, StoreError> {
        let client = self.in_session(writer).with_setting("session_check", "1");
        let client = client.with_setting("close_session", "1");
        match client.query("SELECT 1").fetch_one::<u8>().await.map_err(StoreError::from) {
            Ok(_) | Err(StoreError::SessionEnded) => Ok(true),
            Err(StoreError::SessionBusy) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The newest stored batch of each of these collectors that has one.
    pub async fn last_batches(
        &self,
        collectors: &[CollectorId],
    ) -> Result<HashMap<CollectorId, BatchRow>, StoreError> {
        if let [collector] = collectors {
            let row = self.last_batch(*collector).await?;
            return Ok(row.map(|row| (*collector, row)).into_iter().collect());
        }
        let sql = "SELECT ?fields FROM batches
            WHERE (collector_id, number) IN (
                SELECT collector_id, max(number) FROM batches WHERE collector_id IN {ids:Array(UUID)} GROUP BY collector_id
            )
            ORDER BY collector_id, received_at LIMIT 1 BY collector_id";
        let query = self.client().query(sql).param("ids", texts(collectors));
        let rows = query.fetch_all::<BatchRow>().await?;
        Ok(rows.into_iter().map(|row| (CollectorId(row.collector_id), row)).collect())
    }

    /// Writes batches that this writer may write and that are not stored, and returns when ClickHouse has all of them.
    ///
    /// After an error some may be there in part: the writer must not be used again.
    pub async fn write_group(&self, writer: WriterId, group: &[GroupedBatch]) -> Result<(), StoreError> {
        let token = fresh_token();
        let store =
            Self { client: self.in_session(writer).with_setting("session_check", "1"), ..self.clone() };
        let events: Vec<&EventRow> = group.iter().flat_map(|batch| &batch.events).collect();
        store.insert("events", &token, events).await?;
        let coverage: Vec<&CoverageRow> = group.iter().flat_map(|batch| &batch.coverage).collect();
        store.insert("coverage", &token, coverage).await?;
        let batches: Vec<&BatchRow> = group.iter().map(|batch| &batch.batch).collect();
        store.insert("batches", &token, batches).await
    }

    fn in_session(&self, writer: WriterId) -> clickhouse::Client {
        let client = self.client().clone().with_setting("session_id", writer.0.to_string());
        client.with_setting("session_timeout", SESSION_SECONDS)
    }

    async fn insert_claims(
        &self,
        writer: WriterId,
        collectors: &[CollectorId],
        leaps: bool,
    ) -> Result<(), StoreError> {
        let claimed_at = Timestamp::now();
        let row = |collector: &CollectorId| ClaimRow {
            collector_id: collector.0,
            writer_id: writer.0,
            account: self.account.clone(),
            leaps,
            claimed_at,
        };
        let rows: Vec<ClaimRow> = collectors.iter().map(row).collect();
        self.insert("claims", &fresh_token(), &rows).await
    }
}

fn texts(collectors: &[CollectorId]) -> Vec<String> {
    collectors.iter().map(ToString::to_string).collect()
}
