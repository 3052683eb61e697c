//! The batches that ingest refuses: a copy of each, for people to look at, which also says that it is not to be sent again.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use super::{SpoolError, file_error};

pub const DIRECTORY: &str = "quarantine";
pub const EXTENSION: &str = "batch";

/// The open directory.
pub struct Quarantine {
    directory: PathBuf,
}

impl Quarantine {
    /// Opens or makes it, in the spool's `directory`.
    pub fn open(directory: &Path) -> Result<Self, SpoolError> {
        let directory = directory.join(DIRECTORY);
        // What is in it was said to a database, by name.
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory);
        made.map_err(file_error(&directory))?;
        Ok(Self { directory })
    }

    fn path(&self, number: u64) -> PathBuf {
        self.directory.join(format!("{number}.{EXTENSION}"))
    }

    /// Adds batch `number`. Nothing of it stays when that fails, as on a full disk.
    pub fn add(&self, number: u64, bytes: &[u8]) -> Result<(), SpoolError> {
        let path = self.path(number);
        let written = File::create(&path).and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        });
        if written.is_err() {
            let _ = fs::remove_file(&path);
        }
        written.map_err(file_error(&path))
    }

    /// Removes batch `number`, if it is there.
    pub fn remove(&self, number: u64) -> Result<(), SpoolError> {
        let path = self.path(number);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(file_error(&path)(error)),
            _ => Ok(()),
        }
    }

    /// Whether batch `number` is there.
    pub fn has(&self, number: u64) -> bool {
        self.path(number).exists()
    }
}

/// The number of the batch that a file is called by.
pub fn number_of(path: &Path) -> Option<u64> {
    path.file_stem()?.to_str()?.parse().ok()
}
