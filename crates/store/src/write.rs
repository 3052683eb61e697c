//! Writing batches: every event once, whatever is repeated or cut off.
//!
//! The row in `batches` is written last and is the mark that the batch is complete. A batch that is sent again
//! at once is dropped by ClickHouse (`insert_deduplication_token`); one that comes again long after is found by
//! its row, or, when its writer died half way, completed with the rows that are missing.

use std::collections::HashSet;

use clickhouse::{Row, RowOwned, RowWrite};
use sha2::{Digest, Sha256};
use uuid::Uuid;
use whence_model::{BatchId, CollectorId, Timestamp};

use crate::row::{BatchRow, CoverageRow, EventRow};
use crate::{Store, StoreError};

/// What became of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// Its rows were written now.
    New,
    /// It had been stored before.
    Before,
}

impl Store {
    /// Stores a batch and returns when ClickHouse has confirmed all of it.
    ///
    /// `events` and `coverage` are those of `batch`. `Rejected` when another batch has taken its number.
    pub async fn write_batch(
        &self,
        batch: &BatchRow,
        events: &[EventRow],
        coverage: &[CoverageRow],
    ) -> Result<Written, StoreError> {
        if let Some(stored) = self.find_batch(BatchId(batch.batch_id)).await? {
            if stored.batch_hash == batch.batch_hash {
                return Ok(Written::Before);
            }
            let reason = format!("batch {} was stored before with other contents", batch.number);
            return Err(StoreError::Rejected { reason });
        }
        let stored = self.stored_sequences(batch).await?;
        let missing: Vec<&EventRow> =
            events.iter().filter(|event| !stored.contains(&event.sequence)).collect();
        let token = token(batch, &stored);
        self.insert("events", &token, missing).await?;
        self.insert("coverage", &token, coverage).await?;
        self.insert("batches", &token, [batch]).await?;
        Ok(Written::New)
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

    /// The sequence numbers of this batch that are stored although the batch is not complete.
    async fn stored_sequences(&self, batch: &BatchRow) -> Result<HashSet<u64>, StoreError> {
        let (Some(first), Some(last)) = (batch.first_started_at, batch.last_started_at) else {
            return Ok(HashSet::new());
        };
        // The times are the primary key, so this reads little.
        let sql = "SELECT sequence FROM events WHERE batch_id = {id:UUID} AND collector_id = {collector:UUID}
            AND started_at BETWEEN fromUnixTimestamp64Nano({first:Int64}, 'UTC') \
                AND fromUnixTimestamp64Nano({last:Int64}, 'UTC')";
        let query = self.client().query(sql);
        let query =
            query.param("id", batch.batch_id.to_string()).param("collector", batch.collector_id.to_string());
        let rows = query.param("first", first.0).param("last", last.0).fetch_all::<u64>().await?;
        Ok(rows.into_iter().collect())
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
            .with_setting("async_insert", "0")
            .with_setting("insert_deduplicate", "1")
            .with_setting("insert_deduplication_token", token);
        for row in rows {
            insert.write(row).await?;
        }
        Ok(insert.end().await?)
    }
}

/// What ClickHouse knows this insert by. Writing the rest of a half-written batch is another insert.
fn token(batch: &BatchRow, stored: &HashSet<u64>) -> String {
    if stored.is_empty() {
        return batch.batch_id.to_string();
    }
    let mut sequences: Vec<u64> = stored.iter().copied().collect();
    sequences.sort_unstable();
    let bytes: Vec<u8> = sequences.iter().flat_map(|sequence| sequence.to_be_bytes()).collect();
    format!("{}-{}", batch.batch_id, hex::encode(Sha256::digest(bytes)))
}

/// A token for a row that is not part of a batch: nothing is the same twice.
pub(crate) fn fresh_token() -> String {
    format!("{}-{}", Timestamp::now().0, Uuid::new_v4())
}
