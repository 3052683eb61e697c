//! Writing events of senders that sign nothing: each once, beside the chains and never in one.
//!
//! As with batches, the row in `external_batches` is written last and is the mark that the request is complete.

use std::collections::HashSet;

use clickhouse::Row;
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use whence_model::Timestamp;

use crate::row::EventRow;
use crate::{Store, StoreError, Written, codec};

/// One stored request of such a sender.
#[derive(Clone, Debug, PartialEq, Eq, Row, Serialize, Deserialize)]
pub struct ExternalBatchRow {
    #[serde(with = "clickhouse::serde::uuid")]
    pub batch_id: Uuid,
    /// Name of the sender.
    pub source: String,
    pub event_count: u32,
    /// BLAKE3 of what was sent, decompressed.
    #[serde(with = "codec::fixed")]
    pub body_hash: [u8; 32],
    #[serde(with = "codec::timestamp")]
    pub received_at: Timestamp,
}

impl Store {
    /// Stores the events of one request and returns when ClickHouse has confirmed all of them.
    ///
    /// `Rejected` when another request was stored under this id.
    pub async fn write_external(
        &self,
        batch: &ExternalBatchRow,
        events: &[EventRow],
    ) -> Result<Written, StoreError> {
        let sql =
            "SELECT ?fields FROM external_batches WHERE batch_id = {id:UUID} ORDER BY received_at LIMIT 1";
        let query = self.client().query(sql).param("id", batch.batch_id.to_string());
        if let Some(stored) = query.fetch_optional::<ExternalBatchRow>().await? {
            if stored.body_hash == batch.body_hash {
                return Ok(Written::Before);
            }
            return Err(StoreError::Rejected { reason: "stored before with other contents".into() });
        }
        let stored = self.stored_external(batch.batch_id).await?;
        let missing: Vec<&EventRow> = events.iter().filter(|row| !stored.contains(&row.event_id)).collect();
        let token = format!("{}-{}", batch.batch_id, stored.len());
        self.insert("events", &token, missing).await?;
        self.insert("external_batches", &token, [batch]).await?;
        Ok(Written::New)
    }

    /// The events of this request that are stored although it is not complete.
    async fn stored_external(&self, batch_id: Uuid) -> Result<HashSet<Uuid>, StoreError> {
        #[derive(Row, Deserialize)]
        struct Stored {
            #[serde(with = "clickhouse::serde::uuid")]
            event_id: Uuid,
        }
        let sql = "SELECT event_id FROM events WHERE batch_id = {id:UUID}";
        let rows = self.client().query(sql).param("id", batch_id.to_string()).fetch_all::<Stored>().await?;
        Ok(rows.into_iter().map(|row| row.event_id).collect())
    }
}
