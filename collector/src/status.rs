//! What the collector is doing now, in a file that `whence up` and `whence doctor` read.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use whence_model::Timestamp;

/// The state of one collector, as of `updated_at`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    pub updated_at: Timestamp,
    /// Process id of the collector.
    pub process_id: u32,
    pub spool: SpoolStatus,
    /// Every server known, in the order in which they were found.
    pub servers: Vec<ServerStatus>,
}

/// What waits to be shipped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpoolStatus {
    pub batches: u64,
    pub bytes: u64,
    /// When ingest confirmed a batch last.
    pub shipped_at: Option<Timestamp>,
}

/// One database server and what could be attached to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerStatus {
    pub process_id: u32,
    /// Product, version, address and process id, for people: `MariaDB 10.11.19 on 127.0.0.1:3306 (pid 812)`.
    pub server: String,
    /// A value of [`whence_model::CoverageState`].
    pub state: String,
    /// For people: what was attached to, or why nothing could be.
    pub detail: String,
}

/// The status file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    #[error("cannot write the status file {path}: {source}")]
    Unwritable { path: PathBuf, source: std::io::Error },
    #[error("cannot read the status file {path}: {source}")]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("{path} is not a status file of this version: {source}")]
    Malformed { path: PathBuf, source: serde_json::Error },
}

impl Status {
    /// Replaces the file at `path` in one step, so that a reader never sees half of it.
    pub fn write(&self, path: &Path) -> Result<(), StatusError> {
        let unwritable = |source| StatusError::Unwritable { path: path.into(), source };
        let text = serde_json::to_vec_pretty(self)
            .map_err(|source| StatusError::Malformed { path: path.into(), source })?;
        let partial = path.with_extension("partial");
        std::fs::write(&partial, text).map_err(unwritable)?;
        std::fs::rename(&partial, path).map_err(unwritable)
    }

    /// Reads the file at `path`.
    pub fn read(path: &Path) -> Result<Self, StatusError> {
        let text =
            std::fs::read(path).map_err(|source| StatusError::Unreadable { path: path.into(), source })?;
        serde_json::from_slice(&text).map_err(|source| StatusError::Malformed { path: path.into(), source })
    }
}
