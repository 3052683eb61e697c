//! What is lost and counted in no batch yet: what it is known by stays on disk until a batch counts it.

use std::fs;
use std::path::PathBuf;

use super::Lost;
use super::losses::{Entry, Hole};
use super::quarantine::{COUNTED, number_of};
use crate::seal::SealedBatch;

/// What a loss is known by.
pub enum Missing {
    /// Batches that are damaged.
    Hole(Hole),
    /// A segment that is given up.
    Segment(PathBuf, Hole),
    Quarantined(PathBuf),
    /// A note of a batch that became unreadable.
    Damaged(PathBuf),
}

/// All of it.
#[derive(Default)]
pub struct Uncounted {
    /// Not told yet, and what that is known by.
    lost: Vec<Lost>,
    untold: Vec<Missing>,
    told: Vec<Missing>,
}

impl Uncounted {
    pub fn note(&mut self, missing: Missing, lost: impl IntoIterator<Item = Lost>) {
        self.untold.push(missing);
        self.lost.extend(lost);
    }

    /// What is not told yet.
    pub fn take(&mut self) -> Vec<Lost> {
        self.told.append(&mut self.untold);
        std::mem::take(&mut self.lost)
    }

    /// What `batch`, which comes next, counts.
    pub fn counted_by(&self, batch: &SealedBatch) -> Entry {
        let mut entry = Entry {
            batch: batch.number,
            batch_hash: batch.batch_hash,
            gaps: batch.gaps.clone(),
            holes: Vec::new(),
            quarantined: Vec::new(),
        };
        for missing in &self.told {
            match missing {
                Missing::Hole(hole) | Missing::Segment(_, hole) => entry.holes.push(*hole),
                Missing::Quarantined(path) | Missing::Damaged(path) => {
                    entry.quarantined.extend(number_of(path));
                }
            }
        }
        entry
    }

    /// All that was taken is counted in a batch that is on disk.
    pub fn settle(&mut self) {
        for missing in std::mem::take(&mut self.told) {
            let (path, settled) = match &missing {
                Missing::Hole(_) => continue,
                Missing::Segment(path, _) | Missing::Damaged(path) => (path, fs::remove_file(path)),
                Missing::Quarantined(path) => (path, fs::rename(path, path.with_extension(COUNTED))),
            };
            if let Err(error) = settled {
                tracing::warn!(file = %path.display(), %error, "what is lost and counted stays in the spool");
            }
        }
    }

    /// Whether batches before `number` are among it, but for those in quarantine.
    pub fn is_before(&self, number: u64) -> bool {
        self.untold.iter().chain(&self.told).any(|missing| match missing {
            Missing::Hole(hole) | Missing::Segment(_, hole) => hole.batches.0 < number,
            Missing::Quarantined(_) | Missing::Damaged(_) => false,
        })
    }
}
