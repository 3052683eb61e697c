//! Who may write a collector's batches, so that many batches go in at once and each of them once.
//!
//! A *writer* is a process of ingest, and the name of a session of ClickHouse (`session_id` of its HTTP interface) that it
//! opened. It writes batches of many collectors in one insert, where no token can tell them apart. Instead nobody else writes
//! what it may write:
//!
//! 1. A writer stores a *claim* on a collector, and then reads all claims on it.
//! 2. It closes the session of every other writer that it finds there. ClickHouse refuses to while a query of that session runs.
//! 3. Only then it looks at what is stored of this collector, and at what the others have said of it ([`Store::leapt`]).
//! 4. Its inserts demand that its session exists (`session_check`), else ClickHouse refuses them.
//!
//! So what a writer saw in step 3 stays as it is until it writes itself, or its inserts are refused: whoever else writes has
//! closed its session before. Of two that claim at once, at least one reads the claim of the other. No clock decides: an insert
//! that was held up for hours on its way is refused when it comes. A session also ends with ClickHouse, and by lying idle; its writer
//! then begins anew with another. An insert whose end is not known runs in the session, so that its writer, too, has to close
//! the session before it looks.
//!
//! A session belongs to an account of one server. So all services of ingest must use one account and one ClickHouse server, not
//! several behind one address; a claim from elsewhere is an error that a person must resolve. A writer is used for a day at most
//! ([`WRITER_LIFETIME`]), so that claims can be forgotten after a month.

use std::borrow::Borrow;
use std::collections::{HashMap, HashSet};
use std::time::Duration;

use clickhouse::Row;
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use whence_model::CollectorId;

use crate::row::{BatchRow, CoverageRow, EventRow};
use crate::write::fresh_token;
use crate::{Store, StoreError};

/// ClickHouse forgets a session that is not used for so long (`max_session_timeout` is an hour).
const SESSION_SECONDS: &str = "3600";

/// How long a writer may be used. Claims are kept for much longer.
pub const WRITER_LIFETIME: Duration = Duration::from_hours(24);

/// A process that writes batches, by the session that it opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WriterId(Uuid);

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
    leaps: bool,
}

/// A claim as it is found.
#[derive(Debug, Row, Deserialize)]
struct FoundRow {
    #[serde(with = "clickhouse::serde::uuid")]
    writer_id: Uuid,
    /// Empty when the account and the server of ClickHouse are ours; else which they are.
    elsewhere: String,
}

impl Store {
    /// Opens a session to write in.
    pub async fn open_writer(&self) -> Result<WriterId, StoreError> {
        let writer = WriterId(Uuid::new_v4());
        self.in_session(writer).query("SELECT 1").fetch_one::<u8>().await?;
        Ok(writer)
    }

    /// Claims these collectors; the answer is everyone else who did so before or meanwhile.
    pub async fn claim(
        &self,
        writer: WriterId,
        collectors: &[CollectorId],
    ) -> Result<Vec<WriterId>, StoreError> {
        self.insert_claims(writer, collectors, false).await?;
        let sql = "SELECT DISTINCT writer_id,
                if(account = currentUser() AND server = serverUUID(), '', account || ' of server ' || toString(server)) \
                    AS elsewhere
            FROM claims WHERE collector_id IN {ids:Array(UUID)} AND writer_id != {writer:UUID} AND NOT leaps";
        let query = self.client().query(sql).param("ids", texts(collectors));
        let rows = query.param("writer", writer.0.to_string()).fetch_all::<FoundRow>().await?;
        if let Some(FoundRow { elsewhere, .. }) = rows.iter().find(|row| !row.elsewhere.is_empty()) {
            let reason = format!(
                "an ingest wrote by another account or server of ClickHouse, as {elsewhere}, where this one cannot keep it from \
                 writing. Give all of them one account and one server. When no ingest uses the other any more: \
                 DELETE FROM claims WHERE NOT leaps"
            );
            return Err(StoreError::Misconfigured { reason });
        }
        Ok(rows.into_iter().map(|row| WriterId(row.writer_id)).collect())
    }

    /// Those of these collectors of which ever a batch was taken that did not follow the newest: any batch of them may be
    /// half-written. To be asked when all other writers are closed.
    pub async fn leapt(&self, collectors: &[CollectorId]) -> Result<HashSet<CollectorId>, StoreError> {
        let sql = "SELECT DISTINCT toString(collector_id) FROM claims WHERE collector_id IN {ids:Array(UUID)} AND leaps";
        let ids = self.client().query(sql).param("ids", texts(collectors)).fetch_all::<String>().await?;
        Ok(ids.iter().filter_map(|id| id.parse().ok()).map(CollectorId).collect())
    }

    /// Says to all who claim this collector later that a batch of it is written that does not follow the newest.
    pub async fn claim_leap(&self, writer: WriterId, collector: CollectorId) -> Result<(), StoreError> {
        self.insert_claims(writer, &[collector], true).await
    }

    /// Ends the session of another writer: nothing that it sent comes into effect after this. False while an insert of it runs.
    pub async fn close_writer(&self, writer: WriterId) -> Result<bool, StoreError> {
        let client = self.in_session(writer).with_setting("session_check", "1");
        let ask = async |client: clickhouse::Client| {
            client.query("SELECT 1").fetch_one::<u8>().await.map_err(StoreError::from)
        };
        match ask(client.clone().with_setting("close_session", "1")).await {
            Err(StoreError::SessionEnded) => return Ok(true),
            Err(StoreError::SessionBusy) => return Ok(false),
            closed => closed?,
        };
        match ask(client).await {
            Err(StoreError::SessionEnded) => Ok(true),
            Err(StoreError::SessionBusy) => Ok(false),
            Err(error) => Err(error),
            Ok(_) => {
                let reason = "ClickHouse does not close sessions when it is told to, so that two ingests could write one \
                     batch; set enable_http_close_session, and let no proxy drop the parameter close_session";
                Err(StoreError::Misconfigured { reason: reason.into() })
            }
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
    pub async fn write_group(
        &self,
        writer: WriterId,
        group: &[impl Borrow<GroupedBatch>],
    ) -> Result<(), StoreError> {
        let token = fresh_token();
        let store =
            Self { client: self.in_session(writer).with_setting("session_check", "1"), ..self.clone() };
        let group: Vec<&GroupedBatch> = group.iter().map(Borrow::borrow).collect();
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
        let row =
            |collector: &CollectorId| ClaimRow { collector_id: collector.0, writer_id: writer.0, leaps };
        let rows: Vec<ClaimRow> = collectors.iter().map(row).collect();
        self.insert("claims", &fresh_token(), &rows).await
    }
}

fn texts(collectors: &[CollectorId]) -> Vec<String> {
    collectors.iter().map(ToString::to_string).collect()
}
