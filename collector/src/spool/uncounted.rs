//! What is lost and counted in no batch yet: what it is known by stays on disk until a batch counts it.

use std::fs;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use super::Lost;
use super::losses::{Entry, Hole};
use crate::seal::SealedBatch;

/// What a loss is known by.
struct Missing {
    hole: Hole,
    /// A segment that is given up.
    segment: Option<PathBuf>,
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
    /// Takes in what is lost with these batches, and the segment that is not needed once they are counted.
    pub fn note(&mut self, hole: Hole, segment: Option<PathBuf>, lost: impl IntoIterator<Item = Lost>) {
        self.untold.push(Missing { hole, segment });
        self.lost.extend(lost);
    }

    /// Lost batches told that these are lost: that is to be told again.
    pub fn note_told(&mut self, batches: &[(u64, u64)]) {
        for batches in batches {
            // Their events are counted already.
            self.note(Hole { batches: *batches, sequences: (0, 0) }, None, []);
        }
    }

    /// What is not told yet.
    pub fn take(&mut self) -> Vec<Lost> {
        self.told.append(&mut self.untold);
        std::mem::take(&mut self.lost)
    }

    /// Numbers of all batches that were taken and that no batch tells to be lost yet, in order.
    pub fn lost_batches(&self) -> Vec<RangeInclusive<u64>> {
        let mut batches: Vec<(u64, u64)> = self.told.iter().map(|missing| missing.hole.batches).collect();
        batches.sort_unstable();
        let mut ranges = Vec::<RangeInclusive<u64>>::new();
        for (from, to) in batches {
            match ranges.last_mut().filter(|last| from <= last.end().saturating_add(1)) {
                Some(last) => *last = *last.start()..=to.saturating_sub(1).max(*last.end()),
                None => ranges.push(from..=to.saturating_sub(1)),
            }
        }
        ranges
    }

    /// What `batch`, which comes next, counts.
    pub fn counted_by(&self, batch: &SealedBatch) -> Entry {
        Entry {
            batch: batch.number,
            batch_hash: batch.batch_hash,
            gaps: batch.gaps.clone(),
            holes: self.told.iter().map(|missing| missing.hole).collect(),
        }
    }

    /// All that was taken is counted in a batch that is on disk.
    pub fn settle(&mut self) {
        for segment in self.told.drain(..).filter_map(|missing| missing.segment) {
            if let Err(error) = fs::remove_file(&segment) {
                tracing::warn!(file = %segment.display(), %error, "what is lost and counted stays in the spool");
            }
        }
    }

    /// Whether batches before `number` are among it.
    pub fn is_before(&self, number: u64) -> bool {
        self.untold.iter().chain(&self.told).any(|missing| missing.hole.batches.0 < number)
    }
}
