//! What is signed of an export.

use serde::{Deserialize, Serialize};
use uuid::Uuid;
use whence_model::{CollectorId, InstanceId, Timestamp};

/// What the name of a manifest's file adds to that of the rows' file.
pub const MANIFEST_SUFFIX: &str = ".manifest.json";

/// How the rows are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Content {
    /// RFC 4180, lines ended by CRLF, the first with the names of the columns. What a spreadsheet would take
    /// for a formula has a `'` before it.
    Csv,
    /// One JSON object a line.
    Ndjson,
}

/// An export: what was asked, by whom, and what was handed out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportManifest {
    /// Version of Whence.
    pub version: String,
    /// The request's id, which its entries in the audit of reads bear too.
    pub export_id: Uuid,
    pub exported_by: String,
    pub exported_at: Timestamp,
    pub finished_at: Timestamp,
    /// Name of the rows' file.
    pub file: String,
    pub content: Content,
    pub columns: Vec<String>,
    /// The filter, as in the address.
    pub filter: String,
    /// The window, `to` not being part of it.
    pub from: Timestamp,
    pub to: Timestamp,
    pub rows: u64,
    pub bytes: u64,
    /// Of the whole file, as `sha256sum` prints it.
    pub sha256: String,
    /// Losses in the window, of the servers that the filter means.
    pub gaps: Vec<Gap>,
    /// Times in the window in which such a server was not watched.
    pub unwatched: Vec<Unwatched>,
    /// Where the collectors' chains were when the export ended.
    pub chains: Vec<ChainHead>,
    /// As many rows each of `row_hashes` is of; the last may be of fewer.
    pub rows_per_hash: u64,
    /// Say where a file that was changed differs (`whence_chain::RowTree`).
    pub row_hashes: Vec<String>,
}

/// Events of a server that were seen to happen and could not be recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    pub instance_id: InstanceId,
    pub host: String,
    pub reason: String,
    pub events: u64,
    pub first: Timestamp,
    pub last: Timestamp,
}

/// A time in which no collector watched a server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unwatched {
    pub instance_id: InstanceId,
    pub host: String,
    pub from: Timestamp,
    pub to: Timestamp,
}

/// The newest batch of a collector.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainHead {
    pub collector_id: CollectorId,
    pub batch: u64,
    /// 64 hexadecimal digits.
    pub batch_hash: String,
    /// The collector's key, in 64 hexadecimal digits.
    pub public_key: Option<String>,
}
