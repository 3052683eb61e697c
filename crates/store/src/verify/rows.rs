//! Rows as a stream that is read ahead while those before are looked at.

use clickhouse::query::Query;
use clickhouse::{RowOwned, RowRead};
use tokio::sync::mpsc;

use super::event::{Judged, StoredEvent};
use crate::{Store, StoreError};

/// Rows that are handed over at once.
const ROWS: usize = 512;
/// How many times [`ROWS`] are read ahead.
const AHEAD: usize = 4;

/// Some rows of an answer, or why there are no more.
pub type Rows<R> = mpsc::Receiver<Result<Vec<R>, StoreError>>;

impl Store {
    /// A question of verification: it may take as long as it needs, but not much memory.
    pub(crate) fn ask_to_verify(&self, sql: &str) -> Query {
        // The columns are those of the migrations; checking their types row by row would cost a third of the time.
        self.client()
            .clone()
            .with_validation(false)
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
    stream_as::<R, R>(query, |row| row)
}

/// The same of events, of which only what was found out about each is handed on.
pub fn judged(query: Query) -> Rows<Judged> {
    stream_as::<StoredEvent<'_>, Judged>(query, |row| row.judge())
}

/// The same of what `taken` makes of each row where it lies in the answer.
fn stream_as<R: RowRead + 'static, T: Send + 'static>(
    query: Query,
    taken: impl Fn(R::Value<'_>) -> T + Send + 'static,
) -> Rows<T> {
    let (sender, receiver) = mpsc::channel(AHEAD);
    tokio::spawn(async move {
        if let Err(error) = read::<R, T>(query, &sender, taken).await {
            // Whoever takes no more rows has no use for the error.
            let _ = sender.send(Err(error)).await;
        }
    });
    receiver
}

async fn read<R: RowRead, T>(
    query: Query,
    sender: &mpsc::Sender<Result<Vec<T>, StoreError>>,
    taken: impl Fn(R::Value<'_>) -> T,
) -> Result<(), StoreError> {
    let mut cursor = query.fetch::<R>()?;
    let mut rows = Vec::with_capacity(ROWS);
    loop {
        let row = cursor.next().await?.map(&taken);
        let Some(row) = row else { break };
        rows.push(row);
        if rows.len() == ROWS {
            let full = std::mem::replace(&mut rows, Vec::with_capacity(ROWS));
            if sender.send(Ok(full)).await.is_err() {
                return Ok(());
            }
        }
    }
    if !rows.is_empty() {
        let _ = sender.send(Ok(rows)).await;
    }
    Ok(())
}
