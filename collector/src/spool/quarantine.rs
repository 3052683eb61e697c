//! The files of batches that will not be shipped: what ingest refuses, and notes of what became unreadable. Beside each lies
//! a note of what it held, should it not be readable any more when that is counted.

use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use super::uncounted::{Missing, Uncounted};
use super::{Held, Lost, LostBatch, SpoolError, file_error, files};

pub const DIRECTORY: &str = "quarantine";
pub const UNCOUNTED: &str = "batch";
pub const COUNTED: &str = "counted";
pub const DAMAGED: &str = "damaged";
pub const HELD: &str = "held";

/// A batch that was refused.
struct Refused {
    number: u64,
    path: PathBuf,
    batch: LostBatch,
}

/// The open directory.
pub struct Quarantine {
    directory: PathBuf,
    /// Refused batches of which it will be known with the next answer whether ingest has them all the same.
    held: Vec<Refused>,
}

impl Quarantine {
    /// Opens or makes it, in the spool's `directory`.
    pub fn open(directory: &Path) -> Result<Self, SpoolError> {
        let directory = directory.join(DIRECTORY);
        // What is in it was said to a database, by name.
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory);
        made.map_err(file_error(&directory))?;
        Ok(Self { directory, held: Vec::new() })
    }

    /// What stands for a batch that ingest refuses.
    pub fn path_of_batch(&self, number: u64) -> PathBuf {
        self.path(number, UNCOUNTED)
    }

    /// What stands for a batch that cannot be read any more.
    pub fn path_of_note(&self, number: u64) -> PathBuf {
        self.path(number, DAMAGED)
    }

    fn path(&self, number: u64, extension: &str) -> PathBuf {
        self.directory.join(format!("{number}.{extension}"))
    }

    /// Batch `number`, whose file is in place, is lost unless ingest turns out to have it.
    pub fn hold(&mut self, number: u64, batch: LostBatch) {
        self.held.push(Refused { number, path: self.path_of_batch(number), batch });
    }

    /// Ingest has all that is held.
    pub fn delete_held(&mut self) -> Result<(), SpoolError> {
        for refused in std::mem::take(&mut self.held) {
            tracing::info!(batch = refused.number, "ingest has a batch that was refused when it came again");
            fs::remove_file(&refused.path).map_err(file_error(&refused.path))?;
        }
        Ok(())
    }

    /// Ingest does not have batches `from` to `to`: those of them that are held are lost.
    pub fn declare_missing(&mut self, from: u64, to: u64, uncounted: &mut Uncounted) {
        let missing = |refused: &mut Refused| (from..=to).contains(&refused.number);
        for Refused { path, batch, .. } in self.held.extract_if(.., missing) {
            uncounted.note_told(&batch.held.lost_batches);
            uncounted.note(Missing::Quarantined(path), [Lost::Refused { batch }]);
        }
    }

    /// A batch counts batch `number` as lost.
    pub fn settle(&self, number: u64) {
        // They are not there any more unless a crash came between.
        let _ = fs::rename(self.path(number, UNCOUNTED), self.path(number, COUNTED));
        let _ = fs::remove_file(self.path(number, DAMAGED));
    }

    /// Finds what lies in it and is counted in no batch. Batches behind `acknowledged` were not given up, since a crash came
    /// before, and still will be.
    pub fn find_uncounted(&self, acknowledged: u64, uncounted: &mut Uncounted) -> Result<(), SpoolError> {
        for (path, bytes) in self.read_given_up(UNCOUNTED, acknowledged)? {
            // There is none where it was put aside by a version that wrote none.
            let held = noted_in(&path.with_extension(HELD)).unwrap_or_default();
            uncounted.note_told(&held.lost_batches);
            uncounted.note(Missing::Quarantined(path), [Lost::Refused { batch: LostBatch { bytes, held } }]);
        }
        for (path, text) in self.read_given_up(DAMAGED, acknowledged)? {
            let held = serde_json::from_slice(&text).ok().or_else(|| noted_in(&path.with_extension(HELD)));
            if held.is_none() {
                tracing::error!(file = %path.display(), "damaged: what this batch held is lost and cannot be counted");
            }
            uncounted.note_corrupt(Missing::Damaged(path), held.unwrap_or_default());
        }
        for note in files(&self.directory, HELD)? {
            // It has done its work when what it tells of is counted, or turned out to be stored.
            if ![UNCOUNTED, DAMAGED].iter().any(|extension| note.with_extension(extension).exists()) {
                fs::remove_file(&note).map_err(file_error(&note))?;
            }
        }
        Ok(())
    }

    /// The files of batches that will not be shipped, and what is in them. The others are deleted.
    fn read_given_up(
        &self,
        extension: &str,
        acknowledged: u64,
    ) -> Result<Vec<(PathBuf, Vec<u8>)>, SpoolError> {
        let mut given_up = Vec::new();
        for path in files(&self.directory, extension)? {
            if number_of(&path).is_some_and(|number| number <= acknowledged) {
                let text = fs::read(&path).map_err(file_error(&path))?;
                given_up.push((path, text));
            } else {
                fs::remove_file(&path).map_err(file_error(&path))?;
            }
        }
        Ok(given_up)
    }
}

fn noted_in(path: &Path) -> Option<Held> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// The number of the batch that a file is called by.
pub fn number_of(path: &Path) -> Option<u64> {
    path.file_stem()?.to_str()?.parse().ok()
}
