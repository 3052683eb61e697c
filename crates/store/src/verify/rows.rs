//! Rows as a stream that is read ahead while those before are looked at.

use clickhouse::query::Query;
use clickhouse::{Compression, RowOwned, RowRead};
use tokio::sync::mpsc;

use super::event::{Judged, StoredEvent};
use super::row_binary::{Stop, Value as _};
use crate::{Store, StoreError};

/// Rows that are handed over at once.
const ROWS: usize = 512;
/// How many times so many are read ahead.
const AHEAD: usize = 4;

/// Some rows of an answer, or why there are no more.
pub type Rows<R> = mpsc::Receiver<Result<Vec<R>, StoreError>>;

impl Store {
    /// A question of verification: it may take as long as it needs, but not much memory.
    pub(crate) fn ask_to_verify(&self, sql: &str) -> Query {
        // The columns are those of the migrations; checking their types row by row would cost a third of the time.
        let client = self.client().clone().with_validation(false);
        // On one machine, compressing costs ClickHouse a third of what it does for verification, and gains nothing.
        let compression = if self.is_near { Compression::None } else { Compression::Lz4 };
        client
            .with_compression(compression)
            .query(sql)
            .with_setting("max_execution_time", "0")
            .with_setting("max_memory_usage", "2000000000")
            .with_setting("max_bytes_before_external_sort", "500000000")
            .with_setting("max_bytes_before_external_group_by", "500000000")
            .with_setting("max_threads", "2")
    }
}

/// Asks now, and reads on in the background as fast as the rows are taken.
pub fn stream<R: RowOwned + RowRead + Send + 'static>(query: Query) -> Rows<R> {
    in_background(|sender| async move {
        let mut cursor = query.fetch::<R>()?;
        let mut rows = Vec::with_capacity(ROWS);
        while let Some(row) = cursor.next().await? {
            rows.push(row);
            if rows.len() == ROWS {
                let full = std::mem::replace(&mut rows, Vec::with_capacity(ROWS));
                if sender.send(Ok(full)).await.is_err() {
                    return Ok(());
                }
            }
        }
        let _ = sender.send(Ok(rows)).await;
        Ok(())
    })
}

/// The same of events, of which only what was found out about each is handed on. `query` asks for
/// [`StoredEvent::COLUMNS`].
pub fn judged(query: Query) -> Rows<Judged> {
    in_background(|sender| async move {
        let mut cursor = query.fetch_bytes("RowBinary")?;
        let mut bytes = Vec::new();
        while let Some(some) = cursor.next().await? {
            bytes.extend_from_slice(&some);
            let (rows, read) = judge(&bytes)?;
            bytes.drain(..read);
            if sender.send(Ok(rows)).await.is_err() {
                return Ok(());
            }
        }
        if bytes.is_empty() { Ok(()) } else { Err(unreadable(&bytes)) }
    })
}

/// Judges the rows at the beginning of `bytes` that are there whole, and says how many bytes they are.
fn judge(bytes: &[u8]) -> Result<(Vec<Judged>, usize), StoreError> {
    let mut rows = Vec::new();
    let mut rest = bytes;
    loop {
        let mut next = rest;
        match StoredEvent::read(&mut next) {
            Ok(row) => rows.push(row.judge()),
            Err(Stop::Short) => return Ok((rows, bytes.len() - rest.len())),
            Err(Stop::Wrong) => return Err(unreadable(rest)),
        }
        rest = next;
    }
}

fn unreadable(bytes: &[u8]) -> StoreError {
    let value = hex::encode(&bytes[..bytes.len().min(64)]);
    StoreError::Corrupt { what: "a row of events", value }
}

fn in_background<T, F>(read: impl FnOnce(mpsc::Sender<Result<Vec<T>, StoreError>>) -> F) -> Rows<T>
where
    T: Send + 'static,
    F: Future<Output = Result<(), StoreError>> + Send + 'static,
{
    let (sender, receiver) = mpsc::channel(AHEAD);
    let reading = read(sender.clone());
    tokio::spawn(async move {
        if let Err(error) = reading.await {
            // Whoever takes no more rows has no use for the error.
            let _ = sender.send(Err(error)).await;
        }
    });
    receiver
}
