//! The newest confirmed batch, and where the chain goes on behind it: the file `acknowledged`.

use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::SpoolError;
use super::file_error;
use super::record::Head;
use super::scan::Scan;
use crate::seal::Link;

pub const ACKNOWLEDGED: &str = "acknowledged";

/// What the file says.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Acknowledged {
    pub number: u64,
    pub next_sequence: u64,
    pub batch_hash: [u8; 32],
}

impl Acknowledged {
    const NONE: Self = Self {
        number: Link::FIRST.number - 1,
        next_sequence: Link::FIRST.sequence,
        batch_hash: Link::FIRST.previous_hash,
    };

    pub fn of(head: &Head) -> Self {
        Self { number: head.number, next_sequence: head.next_sequence(), batch_hash: head.batch_hash }
    }

    /// Where the chain goes on.
    pub fn link(&self) -> Link {
        Link { number: self.number + 1, sequence: self.next_sequence, previous_hash: self.batch_hash }
    }

    /// None is known: before the first there is none. Where the segments tell how to go on, a damaged file, or one that is
    /// missing though batches have been confirmed, says nothing: what was confirmed is sent again, and ingest knows it.
    pub fn read(directory: &Path, scan: &Scan) -> Result<Option<Self>, SpoolError> {
        let path = directory.join(ACKNOWLEDGED);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let is_whole =
                    scan.segments.front().is_none_or(|segment| segment.first == Link::FIRST.number);
                return Ok(is_whole.then_some(Self::NONE));
            }
            Err(source) => return Err(SpoolError::File { path, source }),
        };
        match serde_json::from_slice(&text) {
            Ok(acknowledged) => Ok(Some(acknowledged)),
            Err(source) if scan.newest.is_some() => {
                tracing::warn!(file = %path.display(), error = %source, "damaged, going on without it");
                Ok(None)
            }
            Err(source) => Err(SpoolError::Acknowledged { path, source }),
        }
    }

    pub fn write(&self, directory: &Path) -> Result<(), SpoolError> {
        let path = directory.join(ACKNOWLEDGED);
        let partial = path.with_extension("partial");
        let text = serde_json::to_vec(self)
            .map_err(|source| SpoolError::Acknowledged { path: path.clone(), source })?;
        // Not synced: were it lost, the batch would be sent again, and ingest knows it.
        fs::write(&partial, text).and_then(|()| fs::rename(&partial, &path)).map_err(file_error(&path))
    }
}
