//! Writing batches: every event once, whatever is repeated or cut off.
//!
//! The row in `batches` is written last and is the mark that the batch is complete. A batch that comes again is found by its
//! row, or, when its writer died half way, completed with the rows that are missing. Who may write is in `claim.rs`.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use clickhouse::{Row, RowOwned, RowWrite};
use serde::Deserialize;
use uuid::Uuid;
use whence_model::{BatchId, CollectorId, Timestamp};

use crate::row::{BatchRow, CoverageRow, EventRow};
use crate::{GroupedBatch, Store, StoreError};

/// How long ClickHouse may take for one insert, or to take in a part of it.
const INSERT_TIMEOUT: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);

/// What became of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// Its rows were written now.
    New,
    /// It had been stored before.
    Before,
}

impl Store {
    /// Stores one batch as a writer of its own, and returns when ClickHouse has confirmed all of it.
    ///
    /// `events` and `coverage` are those of `batch`. `Rejected` when another batch has taken its number.
    pub async fn write_batch(
        &self,
        batch: &BatchRow,
        events: &[EventRow],
        coverage: &[CoverageRow],
    ) -> Result<Written, StoreError> {
        loop {
            match self.write_alone(batch, events, coverage).await {
                // Of many at once, one after the other gets its turn.
                Err(StoreError::SessionEnded | StoreError::SessionBusy) => {
                    tokio::time::sleep(POLL.mul_f64(1.0 + 9.0 * rand::random::<f64>())).await;
                }
                written => return written,
            }
        }
    }

    async fn write_alone(
        &self,
        batch: &BatchRow,
        events: &[EventRow],
        coverage: &[CoverageRow],
    ) -> Result<Written, StoreError> {
        let collector = CollectorId(batch.collector_id);
        let writer = self.open_writer().await?;
        // It follows nothing that this writer has looked at.
        self.claim_leap(writer, collector).await?;
        for other in self.claim(writer, &[collector]).await? {
            if !self.close_writer(other).await? {
                return Err(StoreError::SessionBusy);
            }
        }
        let written = match self.find_batch(BatchId(batch.batch_id)).await? {
            Some(stored) if stored.batch_hash == batch.batch_hash => Written::Before,
            Some(_) => {
                let reason = format!("batch {} was stored before with other contents", batch.number);
                return Err(StoreError::Rejected { reason });
            }
            None => {
                let stored =
                    self.stored_sequences(&[batch]).await?.remove(&batch.batch_id).unwrap_or_default();
                let missing = events.iter().filter(|event| !stored.contains(&event.sequence));
                let group = GroupedBatch {
                    batch: batch.clone(),
                    events: missing.cloned().collect(),
                    coverage: coverage.to_vec(),
                };
                self.write_group(writer, &[group]).await?;
                Written::New
            }
        };
        self.close_writer(writer).await?;
        Ok(written)
    }

    /// The batch with this id, when all of it is stored.
    pub async fn find_batch(&self, id: BatchId) -> Result<Option<BatchRow>, StoreError> {
        let sql = "SELECT ?fields FROM batches WHERE batch_id = {id:UUID} ORDER BY received_at LIMIT 1";
        let query = self.client().query(sql).param("id", id.to_string());
        Ok(query.fetch_optional().await?)
    }

    /// The newest stored batch of a collector.
    pub async fn last_batch(&self, collector: CollectorId) -> Result<Option<BatchRow>, StoreError> {
        let sql = "SELECT ?fields FROM batches WHERE collector_id = {id:UUID} ORDER BY number DESC, received_at LIMIT 1";
        let query = self.client().query(sql).param("id", collector.to_string());
        Ok(query.fetch_optional().await?)
    }

    /// The sequence numbers that are stored of these batches although they are not complete, by the batch's id.
    pub async fn stored_sequences(
        &self,
        batches: &[&BatchRow],
    ) -> Result<HashMap<Uuid, HashSet<u64>>, StoreError> {
        #[derive(Row, Deserialize)]
        struct Stored {
            #[serde(with = "clickhouse::serde::uuid")]
            batch_id: Uuid,
            sequence: u64,
        }
        let first = batches.iter().filter_map(|batch| batch.first_started_at).min();
        let last = batches.iter().filter_map(|batch| batch.last_started_at).max();
        let (Some(first), Some(last)) = (first, last) else { return Ok(HashMap::new()) };
        // The times are the primary key, so this reads little.
        let sql = "SELECT batch_id, sequence FROM events WHERE batch_id IN {ids:Array(UUID)}
            AND collector_id IN {collectors:Array(UUID)}
            AND started_at BETWEEN fromUnixTimestamp64Nano({first:Int64}, 'UTC') \
                AND fromUnixTimestamp64Nano({last:Int64}, 'UTC')";
        let texts = |id: fn(&BatchRow) -> Uuid| batches.iter().map(|batch| id(batch).to_string()).collect();
        let (ids, collectors): (Vec<String>, Vec<String>) =
            (texts(|batch| batch.batch_id), texts(|batch| batch.collector_id));
        let query = self.client().query(sql).param("ids", ids).param("collectors", collectors);
        let rows = query.param("first", first.0).param("last", last.0).fetch_all::<Stored>().await?;
        let mut stored = HashMap::<Uuid, HashSet<u64>>::new();
        for row in rows {
            stored.entry(row.batch_id).or_default().insert(row.sequence);
        }
        Ok(stored)
    }

    /// Inserts rows as one block, and returns when ClickHouse has them. No rows: nothing is sent.
    pub(crate) async fn insert<'a, R>(
        &self,
        table: &str,
        token: &str,
        rows: impl IntoIterator<Item = &'a R>,
    ) -> Result<(), StoreError>
    where
        R: for<'b> Row<Value<'b> = R> + RowOwned + RowWrite + 'a,
    {
        let mut rows = rows.into_iter().peekable();
        if rows.peek().is_none() {
            return Ok(());
        }
        let insert = self.client().insert::<R>(table).await?;
        let mut insert = insert
            .with_timeouts(Some(INSERT_TIMEOUT), Some(INSERT_TIMEOUT))
            .with_setting("async_insert", "0")
            .with_setting("insert_deduplicate", "1")
            .with_setting("insert_deduplication_token", token);
        for row in rows {
            insert.write(row).await?;
        }
        Ok(insert.end().await?)
    }
}

/// A token for a row that is not part of a batch: nothing is the same twice.
pub(crate) fn fresh_token() -> String {
    format!("{}-{}", Timestamp::now().0, Uuid::new_v4())
}
