//! All events of a filter as a stream of CSV or NDJSON, in constant memory.
//!
//! A task reads the store and fills chunks; the answer's body takes them. The beginning and the end are written to
//! the audit of reads. An export that cannot be finished breaks its connection off, so that nobody takes it for
//! all, and is recorded as cut off.

use std::io;
use std::pin::pin;

use axum::body::Body;
use bytes::Bytes;
use futures::StreamExt;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use whence_store::read::EventFilter;
use whence_store::row::{EventRow, EventView, FIELD_NAMES};

use crate::audit::{Action, Ending};
use crate::problem::Problem;
use crate::text::csv_cell;
use crate::visitor::Visitor;

const CHUNK_BYTES: usize = 64 * 1024;
/// Chunks that wait for a slow reader.
const WAITING_CHUNKS: usize = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Csv,
    Ndjson,
}

impl Format {
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Csv => "text/csv; charset=utf-8; header=present",
            Self::Ndjson => "application/x-ndjson",
        }
    }

    fn extension(self) -> &'static str {
        match self {
            Self::Csv => "csv",
            Self::Ndjson => "ndjson",
        }
    }

    pub fn file_name(self, filter: &EventFilter) -> String {
        let stamp = |at: whence_model::Timestamp| at.to_utc().format("%Y%m%dT%H%M%SZ").to_string();
        let window = filter.window;
        format!("whence-events-{}-{}.{}", stamp(window.from), stamp(window.to), self.extension())
    }

    fn header(self) -> Result<Vec<u8>, io::Error> {
        match self {
            Self::Csv => csv_line(FIELD_NAMES.iter().map(|name| (*name).to_owned())),
            Self::Ndjson => Ok(Vec::new()),
        }
    }

    fn append(self, chunk: &mut Vec<u8>, row: &EventRow) -> Result<(), io::Error> {
        match self {
            Self::Csv => chunk.extend(csv_line(EventView(row).texts().into_iter())?),
            Self::Ndjson => {
                serde_json::to_writer(&mut *chunk, &EventView(row))?;
                chunk.push(b'\n');
            }
        }
        Ok(())
    }
}

/// One line of a CSV file that no spreadsheet takes for formulas.
pub fn csv_line(cells: impl Iterator<Item = String>) -> Result<Vec<u8>, io::Error> {
    let mut writer = csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(Vec::new());
    writer.write_record(cells.map(|cell| csv_cell(&cell).into_owned().into_bytes()))?;
    writer.into_inner().map_err(csv::IntoInnerError::into_error)
}

/// Why an export did not come to its end.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("the reader went away")]
    ReaderGone,
    #[error("the service is stopping")]
    Stopping,
    #[error(transparent)]
    Store(#[from] whence_store::StoreError),
    #[error(transparent)]
    Format(#[from] io::Error),
}

/// Begins an export; the body ends with the last event, or breaks off.
pub async fn begin(
    visitor: Visitor,
    format: Format,
    filter: EventFilter,
    query: String,
) -> Result<Body, Problem> {
    let permits = visitor.web.export_permits.clone();
    let permit = permits.try_acquire_owned().map_err(|_| Problem::TooManyExports)?;
    visitor.record(Action::Export, &query, None, Ending::Started).await?;
    let (sender, receiver) = mpsc::channel(WAITING_CHUNKS);
    let tracker = visitor.web.exporting.clone();
    tracker.spawn(run(Export { visitor, format, filter, query, sender, rows: 0, _permit: permit }));
    Ok(Body::from_stream(ReceiverStream::new(receiver)))
}

struct Export {
    visitor: Visitor,
    format: Format,
    filter: EventFilter,
    query: String,
    sender: mpsc::Sender<Result<Bytes, io::Error>>,
    /// Rows that were given to the reader.
    rows: u64,
    _permit: OwnedSemaphorePermit,
}

async fn run(mut export: Export) {
    let metrics = &export.visitor.web.clone().metrics;
    metrics.exports_running.inc();
    let ended = export.copy().await;
    let ending = if ended.is_ok() { Ending::Ok } else { Ending::CutOff };
    let recorded = export.visitor.record(Action::Export, &export.query, Some(export.rows), ending).await;
    metrics.exported_events.inc_by(export.rows);
    metrics.exports_running.dec();
    let cause = match (ended, recorded) {
        (Ok(last), Ok(())) => {
            // Nothing after this is needed to make it whole.
            let _ = export.sender.send(Ok(last.into())).await;
            return;
        }
        (Err(broken), _) => broken.to_string(),
        (Ok(_), Err(problem)) => {
            problem.log();
            problem.to_string()
        }
    };
    metrics.exports_cut_off.inc();
    let cause = cause.lines().next().unwrap_or_default().to_owned();
    tracing::warn!(rows = export.rows, cause, "export cut off");
    // An error in the body makes the server break the connection off.
    let _ = export.sender.send(Err(io::Error::other("the export was cut off"))).await;
}

impl Export {
    /// Hands out everything but the last chunk, which is returned.
    async fn copy(&mut self) -> Result<Vec<u8>, Broken> {
        let stopping = self.visitor.web.stopping.clone();
        let mut events = pin!(self.visitor.web.store.stream_events(&self.filter));
        let mut chunk = self.format.header()?;
        let mut in_chunk = 0;
        loop {
            let row = tokio::select! {
                row = events.next() => row,
                () = stopping.cancelled() => return Err(Broken::Stopping),
                () = self.sender.closed() => return Err(Broken::ReaderGone),
            };
            let Some(row) = row else { break };
            self.format.append(&mut chunk, &row?)?;
            in_chunk += 1;
            if chunk.len() >= CHUNK_BYTES {
                let full = std::mem::take(&mut chunk);
                tokio::select! {
                    sent = self.sender.send(Ok(full.into())) => sent.map_err(|_| Broken::ReaderGone)?,
                    () = stopping.cancelled() => return Err(Broken::Stopping),
                }
                self.rows += in_chunk;
                in_chunk = 0;
            }
        }
        self.rows += in_chunk;
        Ok(chunk)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_one_record_whatever_is_in_it() {
        let cells = ["=1+1", "a,b", "quote\"d", "two\nlines", ""].map(str::to_owned);
        let line = csv_line(cells.clone().into_iter()).unwrap();
        let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(line.as_slice());
        let records: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
        assert_eq!(records.len(), 1);
        assert_eq!(records[0].iter().collect::<Vec<_>>(), ["'=1+1", "a,b", "quote\"d", "two\nlines", ""]);
    }
}
