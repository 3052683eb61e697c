//! Batches that will not be sent, and of which only ingest knows whether it has them: what is damaged or refused flows in, and,
//! by ingest's next answer, what it has or what is lost flows out.

use std::collections::BTreeMap;

use super::losses::Hole;
use super::segment::Entry;

/// Batches that ingest may have.
#[derive(Clone, Copy, Debug)]
pub enum Doubtful {
    /// They cannot be read.
    Damaged(Hole),
    /// It refused this one; it may have taken it before, when its answer was lost.
    Refused(Entry),
}

impl Doubtful {
    pub fn hole(&self) -> Hole {
        match self {
            Self::Damaged(hole) => *hole,
            Self::Refused(entry) => entry.hole(),
        }
    }
}

/// All of them, by the number of the first batch of each.
#[derive(Default)]
pub struct Doubt(BTreeMap<u64, Doubtful>);

impl Doubt {
    pub fn add(&mut self, doubtful: Doubtful) {
        self.0.insert(doubtful.hole().batches.0, doubtful);
    }

    /// The first, when it lies before batch `number`.
    pub fn first_before(&self, number: u64) -> Option<Doubtful> {
        self.0.range(..number).next().map(|(_, doubtful)| *doubtful)
    }

    pub fn pop_first(&mut self) {
        self.0.pop_first();
    }

    /// Takes off those that have batches of `from` to `to`.
    pub fn take_between(&mut self, from: u64, to: u64) -> Vec<Doubtful> {
        let taken = self.0.extract_if(..=to, |_, doubtful| doubtful.hole().batches.1 > from);
        taken.map(|(_, doubtful)| doubtful).collect()
    }

    /// Whether one has batches from `first` on and before `next`.
    pub fn reaches_into(&self, first: u64, next: u64) -> bool {
        self.0.range(..next).any(|(_, doubtful)| doubtful.hole().batches.1 > first)
    }
}
