//! Which losses which batch counts: the file `losses` beside the segments, written one step ahead of them.
//!
//! A batch that tells of losses is entered here before it is appended. At the next start what it counts is not told
//! again, unless it never came to be appended, or another of its number did. Was the batch itself damaged since, its gaps are told again from here, and
//! so on: a loss is always counted by the newest batch that tells of it.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use whence_model::{Event, Gap, LossReason, Server, Timestamp};

use super::scan::Scan;
use super::{Held, SpoolError, file_error};

const FILE: &str = "losses";

/// A gap that a batch holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToldGap {
    pub server: Server,
    pub reason: LossReason,
    pub events: u64,
    pub from: Timestamp,
    pub to: Timestamp,
}

impl ToldGap {
    /// The gap that an event tells of; None of one that happened.
    pub fn of(event: &Event) -> Option<Self> {
        let Gap { reason, events } = event.gap?;
        let length = i64::try_from(event.duration_ns.unwrap_or(0)).unwrap_or(i64::MAX);
        let (from, to) = (event.started_at, event.started_at.plus_ns(length));
        Some(Self { server: event.server.as_ref().clone(), reason, events, from, to })
    }
}

/// Batches that are not in the spool any more: their numbers, and the sequence numbers of their events. Ends are without.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hole {
    pub batches: (u64, u64),
    pub sequences: (u64, u64),
}

impl Hole {
    pub fn has_batch(&self, number: u64) -> bool {
        (self.batches.0..self.batches.1).contains(&number)
    }

    /// What of it lies behind the batch before `number`, whose last event is before `sequence`.
    pub fn behind(self, number: u64, sequence: u64) -> Option<Self> {
        let batches = (self.batches.0.max(number), self.batches.1);
        let sequences = (self.sequences.0.max(sequence).min(self.sequences.1), self.sequences.1);
        (batches.0 < batches.1).then_some(Self { batches, sequences })
    }
}

/// What one batch counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub batch: u64,
    pub batch_hash: [u8; 32],
    pub gaps: Vec<ToldGap>,
    pub holes: Vec<Hole>,
}

/// All entries that still matter.
#[derive(Debug)]
pub struct Losses {
    path: PathBuf,
    entries: Vec<Entry>,
    /// The file has entries of batches that were never appended.
    is_stale: bool,
}

impl Losses {
    /// The entries in `directory` of batches that were appended: those before the next that are not another one than the
    /// record of their number in `scan`. A file that cannot be read is as good as none: losses are told again.
    pub fn open(directory: &Path, scan: &Scan) -> Self {
        let path = directory.join(FILE);
        let entries = fs::read(&path).ok().and_then(|text| match serde_json::from_slice(&text) {
            Ok(entries) => Some(entries),
            Err(error) => {
                tracing::warn!(file = %path.display(), %error, "damaged, going on without it");
                None
            }
        });
        let mut entries: Vec<Entry> = entries.unwrap_or_default();
        let (before, next) = (entries.len(), scan.link().number);
        entries.retain(|entry| {
            let is_it = |hash| hash == entry.batch_hash;
            entry.batch < next && scan.batch_hash(entry.batch).is_none_or(is_it)
        });
        Self { path, is_stale: entries.len() < before, entries }
    }

    /// What the batches of `hole`, with so many events, hold and tell, but for what a later batch has told again.
    pub fn held_in(&self, hole: &Hole, events: u64) -> Held {
        let mut held = Held { events, ..Held::default() };
        for entry in self.entries.iter().filter(|entry| hole.has_batch(entry.batch)) {
            if !self.is_counted(entry.batch) {
                held.gaps.extend(entry.gaps.iter().cloned());
                held.lost_batches.extend(entry.holes.iter().map(|hole| hole.batches));
            }
        }
        held
    }

    /// Whether each batch of `hole` is told to be lost.
    pub fn is_told(&self, hole: &Hole) -> bool {
        let mut told: Vec<(u64, u64)> = self.holes().map(|hole| hole.batches).collect();
        told.sort_unstable();
        let (first, end) = hole.batches;
        let reached = |next: u64, (from, to): (u64, u64)| if from <= next { next.max(to) } else { next };
        told.into_iter().fold(first, reached) >= end
    }

    /// How many sequence numbers of `hole` no batch counts.
    pub fn not_counted_in(&self, hole: &Hole) -> u64 {
        let (mut from, to) = hole.sequences;
        let mut counted: Vec<(u64, u64)> = self.holes().map(|hole| hole.sequences).collect();
        counted.sort_unstable();
        let mut events = 0;
        // They may overlap: more of a place may be damaged later.
        for (counted_from, counted_to) in counted {
            events += counted_from.min(to).saturating_sub(from);
            from = from.max(counted_to);
        }
        events + to.saturating_sub(from)
    }

    /// What batches count.
    pub fn holes(&self) -> impl Iterator<Item = &Hole> {
        self.entries.iter().flat_map(|entry| &entry.holes)
    }

    /// Whether a batch counts batch `number`.
    pub fn is_counted(&self, number: u64) -> bool {
        self.holes().any(|hole| hole.has_batch(number))
    }

    /// Enters a batch that is about to be appended, if it counts anything. What lies before `oldest`, the oldest number
    /// that can be missed, is forgotten.
    pub fn enter(&mut self, entry: Entry, oldest: u64) -> Result<(), SpoolError> {
        let counts = !(entry.gaps.is_empty() && entry.holes.is_empty());
        if !counts && !self.is_stale {
            return Ok(());
        }
        let mut entries = self.entries.clone();
        let is_past =
            |entry: &Entry| entry.batch < oldest && entry.holes.iter().all(|hole| hole.batches.1 <= oldest);
        entries.retain(|known| known.batch != entry.batch && !is_past(known));
        entries.extend(counts.then_some(entry));
        let partial = self.path.with_extension("partial");
        // Not synced: were it lost with the power, a loss would be told once more.
        serde_json::to_vec(&entries)
            .map_err(std::io::Error::other)
            .and_then(|text| fs::write(&partial, text))
            .and_then(|()| fs::rename(&partial, &self.path))
            .map_err(file_error(&self.path))?;
        self.entries = entries;
        self.is_stale = false;
        Ok(())
    }
}
