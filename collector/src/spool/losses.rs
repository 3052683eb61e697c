//! Which losses which batch counts: the file `losses` beside the segments, written one step ahead of them.
//!
//! A batch that tells of losses is entered here before it is appended. At the next start its entry counts when the batch
//! is there, or was confirmed; then what it counts is not told again. Was the batch itself damaged since, its gaps are told
//! again from here.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use whence_model::{Event, Gap, LossReason, Server, Timestamp};

use super::{SpoolError, file_error};

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
        Some(Self { server: event.server.clone(), reason, events, from, to })
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
    pub gaps: Vec<ToldGap>,
    pub holes: Vec<Hole>,
    /// Numbers of the batches in quarantine.
    pub quarantined: Vec<u64>,
}

/// All entries that still matter.
#[derive(Debug)]
pub struct Losses {
    path: PathBuf,
    entries: Vec<Entry>,
}

impl Losses {
    /// The entries in `directory`. A file that cannot be read is as good as none: losses are told again.
    pub fn open(directory: &Path) -> Self {
        let path = directory.join(FILE);
        let entries = fs::read(&path).ok().and_then(|text| match serde_json::from_slice(&text) {
            Ok(entries) => Some(entries),
            Err(error) => {
                tracing::warn!(file = %path.display(), %error, "damaged, going on without it");
                None
            }
        });
        Self { path, entries: entries.unwrap_or_default() }
    }

    /// Forgets the entries of batches that are not there, and of those whose count was taken over by one that is.
    ///
    /// `was_appended`: whether there ever was a batch of this number; `is_there`: whether it is in the spool or confirmed.
    pub fn retain(&mut self, was_appended: impl Fn(u64) -> bool, is_there: impl Fn(u64) -> bool) {
        self.entries.retain(|entry| was_appended(entry.batch));
        let holes: Vec<Hole> = self.settled(is_there).flat_map(|entry| entry.holes.clone()).collect();
        self.entries.retain(|entry| !holes.iter().any(|hole| hole.has_batch(entry.batch)));
    }

    /// Entries of batches that are there.
    pub fn settled(&self, is_there: impl Fn(u64) -> bool) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(move |entry| is_there(entry.batch))
    }

    /// The gaps in batches of `hole`.
    pub fn gaps_in(&self, hole: &Hole) -> Vec<ToldGap> {
        let inside = self.entries.iter().filter(|entry| hole.has_batch(entry.batch));
        inside.flat_map(|entry| entry.gaps.clone()).collect()
    }

    /// Enters a batch that is about to be appended. What lies before `oldest`, the oldest number of any record in the
    /// spool, is forgotten: it will never be missed.
    pub fn enter(&mut self, entry: Entry, oldest: u64) -> Result<(), SpoolError> {
        let mut entries = self.entries.clone();
        let is_past =
            |entry: &Entry| entry.batch < oldest && entry.holes.iter().all(|hole| hole.batches.1 <= oldest);
        entries.retain(|known| known.batch != entry.batch && !is_past(known));
        entries.push(entry);
        let partial = self.path.with_extension("partial");
        // Not synced: were it lost with the power, a loss would be told once more.
        serde_json::to_vec(&entries)
            .map_err(std::io::Error::other)
            .and_then(|text| fs::write(&partial, text))
            .and_then(|()| fs::rename(&partial, &self.path))
            .map_err(file_error(&self.path))?;
        self.entries = entries;
        Ok(())
    }
}
