//! What is lost and counted in no batch yet: what it is known by stays on disk until a batch counts it.

use std::fs;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use super::losses::{Entry, Hole};
use super::quarantine::{COUNTED, number_of};
use super::{Held, Lost};
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

impl Missing {
    /// Their numbers. The end is without.
    fn batches(&self) -> Option<(u64, u64)> {
        match self {
            Self::Hole(hole) | Self::Segment(_, hole) => Some(hole.batches),
            Self::Quarantined(path) | Self::Damaged(path) => {
                number_of(path).map(|number| (number, number.saturating_add(1)))
            }
        }
    }
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

    /// Notes what cannot be read any more, and `held` this.
    pub fn note_corrupt(&mut self, missing: Missing, held: Held) {
        self.note_told(&held.lost_batches);
        let Held { events, gaps, .. } = held;
        self.note(missing, [Lost::Corrupt { events, gaps }]);
    }

    /// Lost batches told that these are lost: that is to be told again.
    pub fn note_told(&mut self, batches: &[(u64, u64)]) {
        // Their events are counted already.
        let holes = batches.iter().map(|batches| Hole { batches: *batches, sequences: (0, 0) });
        self.untold.extend(holes.map(Missing::Hole));
    }

    /// What is not told yet.
    pub fn take(&mut self) -> Vec<Lost> {
        self.told.append(&mut self.untold);
        std::mem::take(&mut self.lost)
    }

    /// Numbers of all batches that were taken and that no batch tells to be lost yet, in order.
    pub fn lost_batches(&self) -> Vec<RangeInclusive<u64>> {
        let mut batches: Vec<(u64, u64)> = self.told.iter().filter_map(Missing::batches).collect();
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
