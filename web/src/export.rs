//! All events of a filter as a stream of CSV or NDJSON, in constant memory.
//!
//! A task reads the store and fills chunks; the answer's body takes them. The beginning and the end are written to
//! the audit of reads. An export that cannot be finished breaks its connection off, so that nobody takes it for
//! all, and is recorded as cut off.
//!
//! At its end an export has a signed manifest, which is kept in the store and is the last file of an archive.

use std::io;
use std::pin::pin;

use axum::body::Body;
use bytes::Bytes;
use futures::StreamExt;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use whence_model::{CollectorId, InstanceId, Timestamp};
use whence_proof::export::{
    Archive, ChainHead, Content, Digest, ExportManifest, Gap, MANIFEST_SUFFIX, Unwatched,
};
use whence_store::read::{EventFilter, InstanceCoverage, Span};
use whence_store::row::{EventRow, EventView, FIELD_NAMES};
use whence_store::{ExportRow, GapRow, Head};

use crate::audit::{Action, Ending};
use crate::keys;
use crate::problem::Problem;
use crate::statement;
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

    fn content(self) -> Content {
        match self {
            Self::Csv => Content::Csv,
            Self::Ndjson => Content::Ndjson,
        }
    }

    fn header(self) -> Vec<u8> {
        match self {
            Self::Csv => csv_header(FIELD_NAMES),
            Self::Ndjson => Vec::new(),
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

/// The first line of a CSV file: names of ours, as they are in a manifest.
pub fn csv_header(names: &[&str]) -> Vec<u8> {
    format!("{}\r\n", names.join(",")).into_bytes()
}

/// One line of a CSV file that no spreadsheet takes for formulas.
pub fn csv_line(cells: impl Iterator<Item = String>) -> Result<Vec<u8>, io::Error> {
    let mut writer = csv::WriterBuilder::new()
        .quote_style(csv::QuoteStyle::Always)
        .terminator(csv::Terminator::CRLF)
        .from_writer(Vec::new());
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
    #[error("the manifest cannot be written: {0}")]
    Manifest(#[from] serde_json::Error),
}

/// Begins an export; the body ends with the last event, or breaks off. Zipped it is an archive with the manifest.
pub async fn begin(
    visitor: Visitor,
    format: Format,
    zipped: bool,
    filter: EventFilter,
    query: String,
) -> Result<Body, Problem> {
    let permits = visitor.web.export_permits.clone();
    let permit = permits.try_acquire_owned().map_err(|_| Problem::TooManyExports)?;
    keys::known(&visitor.web, &visitor.asker).await?;
    visitor.record(Action::Export, &query, None, Ending::Started).await?;
    let (sender, receiver) = mpsc::channel(WAITING_CHUNKS);
    let tracker = visitor.web.exporting.clone();
    let began = Timestamp::now();
    let output = Output::new(zipped, began);
    let digest = Digest::default();
    tracker.spawn(run(Export {
        visitor,
        format,
        filter,
        query,
        sender,
        began,
        digest,
        output,
        rows: 0,
        _permit: permit,
    }));
    Ok(Body::from_stream(ReceiverStream::new(receiver)))
}

/// What is handed out: the rows' file as it is, or an archive with it.
enum Output {
    Plain(Vec<u8>),
    Zipped(Box<Archive>),
}

impl Output {
    fn new(zipped: bool, at: Timestamp) -> Self {
        if zipped { Self::Zipped(Box::new(Archive::new(at))) } else { Self::Plain(Vec::new()) }
    }

    fn start(&mut self, name: &str) -> io::Result<()> {
        match self {
            Self::Plain(_) => Ok(()),
            Self::Zipped(archive) => archive.start(name),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(chunk) => {
                chunk.extend_from_slice(bytes);
                Ok(())
            }
            Self::Zipped(archive) => archive.write(bytes),
        }
    }

    fn take(&mut self) -> Vec<u8> {
        match self {
            Self::Plain(chunk) => std::mem::take(chunk),
            Self::Zipped(archive) => archive.take(),
        }
    }

    /// The rest, with the manifest where there is room for one.
    fn finish(self, name: &str, manifest: &str) -> io::Result<Vec<u8>> {
        match self {
            Self::Plain(chunk) => Ok(chunk),
            Self::Zipped(mut archive) => {
                archive.start(&format!("{name}{MANIFEST_SUFFIX}"))?;
                archive.write(manifest.as_bytes())?;
                archive.finish()
            }
        }
    }
}

struct Export {
    visitor: Visitor,
    format: Format,
    filter: EventFilter,
    query: String,
    sender: mpsc::Sender<Result<Bytes, io::Error>>,
    began: Timestamp,
    digest: Digest,
    output: Output,
    /// Rows that were given to the reader.
    rows: u64,
    _permit: OwnedSemaphorePermit,
}

async fn run(mut export: Export) {
    let visitor = export.visitor.clone();
    let (metrics, sender, query) = (&visitor.web.metrics, export.sender.clone(), export.query.clone());
    metrics.exports_running.inc();
    let copied = export.copy().await;
    let mut rows = export.rows;
    let ended = match copied {
        Ok(()) => {
            let all = export.digest.rows();
            export.finish().await.inspect(|_| rows = all)
        }
        Err(broken) => Err(broken),
    };
    let ending = if ended.is_ok() { Ending::Ok } else { Ending::CutOff };
    let recorded = visitor.record(Action::Export, &query, Some(rows), ending).await;
    metrics.exported_events.inc_by(rows);
    metrics.exports_running.dec();
    let cause = match (ended, recorded) {
        (Ok(last), Ok(())) => {
            // Nothing after this is needed to make it whole.
            let _ = sender.send(Ok(last.into())).await;
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
    tracing::warn!(rows, cause, "export cut off");
    // An error in the body makes the server break the connection off.
    let _ = sender.send(Err(io::Error::other("the export was cut off"))).await;
}

impl Export {
    /// Hands out all events but for the last chunk.
    async fn copy(&mut self) -> Result<(), Broken> {
        let stopping = self.visitor.web.stopping.clone();
        let mut events = pin!(self.visitor.web.store.stream_events(&self.filter));
        self.output.start(&self.format.file_name(&self.filter))?;
        let mut line = self.format.header();
        self.digest.header(&line);
        self.output.write(&line)?;
        let mut written = 0;
        loop {
            let row = tokio::select! {
                row = events.next() => row,
                () = stopping.cancelled() => return Err(Broken::Stopping),
                () = self.sender.closed() => return Err(Broken::ReaderGone),
            };
            let Some(row) = row else { return Ok(()) };
            line.clear();
            self.format.append(&mut line, &row?)?;
            self.digest.row(&line);
            self.output.write(&line)?;
            written += line.len();
            if written >= CHUNK_BYTES {
                written = 0;
                let full = self.output.take();
                tokio::select! {
                    sent = self.sender.send(Ok(full.into())) => sent.map_err(|_| Broken::ReaderGone)?,
                    () = stopping.cancelled() => return Err(Broken::Stopping),
                }
                self.rows = self.digest.rows();
            }
        }
    }

    /// Signs and keeps the manifest; gives the last chunk.
    async fn finish(self) -> Result<Vec<u8>, Broken> {
        let store = &self.visitor.web.store;
        let (filter, asker) = (&self.filter, &self.visitor.asker);
        let (gaps, heads, coverage) = tokio::try_join!(
            store.gaps(filter),
            store.heads(),
            store.coverage(filter.window, filter.instance)
        )?;
        let file = self.format.file_name(filter);
        let facts = self.digest.finish();
        let manifest = ExportManifest {
            version: env!("CARGO_PKG_VERSION").into(),
            export_id: asker.request_id,
            exported_by: asker.person.clone(),
            exported_at: self.began,
            finished_at: Timestamp::now(),
            file: file.clone(),
            content: self.format.content(),
            columns: FIELD_NAMES.iter().map(|name| (*name).to_owned()).collect(),
            filter: self.query,
            from: filter.window.from,
            to: filter.window.to,
            rows: facts.rows,
            bytes: facts.bytes,
            sha256: facts.sha256,
            gaps: gaps.into_iter().map(gap).collect(),
            unwatched: statement::meant(coverage, filter).into_iter().flat_map(unwatched).collect(),
            chains: heads.iter().map(chain).collect(),
            rows_per_hash: facts.rows_per_hash,
            row_hashes: facts.row_hashes,
        };
        let text = whence_proof::sign(&manifest, &self.visitor.web.config.signing_key)?;
        let last = self.output.finish(&file, &text)?;
        let row = ExportRow {
            export_id: asker.request_id,
            finished_at: manifest.finished_at,
            person: asker.person.clone(),
            file_name: file,
            manifest: text,
        };
        store.add_export(&row).await?;
        Ok(last)
    }
}

fn gap(row: GapRow) -> Gap {
    let GapRow { instance_id, host, reason, events, first, last } = row;
    Gap { instance_id: InstanceId(instance_id), host, reason, events, first, last }
}

fn unwatched(server: InstanceCoverage) -> impl Iterator<Item = Unwatched> {
    let InstanceCoverage { instance, host, unwatched, .. } = server;
    let span = move |span: Span| Unwatched {
        instance_id: instance,
        host: host.clone(),
        from: span.from,
        to: span.to,
    };
    unwatched.into_iter().map(span)
}

fn chain(head: &Head) -> ChainHead {
    ChainHead {
        collector_id: CollectorId(head.batch.collector_id),
        batch: head.batch.number,
        batch_hash: hex::encode(head.batch.batch_hash),
        public_key: head.public_key.map(hex::encode),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cell_is_quoted() {
        let cells = ["a;=b", "", "1"].map(str::to_owned);
        assert_eq!(csv_line(cells.into_iter()).unwrap(), b"\"a;'=b\",\"\",\"1\"\r\n");
        assert_eq!(csv_header(&["a", "b"]), b"a,b\r\n");
    }

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
