//! From batch to batch: hash, number and sequence go on, and what is missing between two was declared lost.

use std::collections::VecDeque;
use std::ops::{Range, RangeInclusive};

use whence_chain::{Hash, NO_BATCH};
use whence_model::{CollectorId, Gap, LossReason, Sequence};

use super::expired::Expiries;
use super::manifest::Sealed;
use super::{Finding, Kind};

/// The end of what was walked so far.
#[derive(Clone, Debug)]
pub struct End {
    pub number: u64,
    pub next_sequence: u64,
    /// The hash as stored and as computed. Where they differ, that batch has its finding already.
    pub hashes: [Hash; 2],
}

/// Batches that are not there.
#[derive(Clone, Debug)]
pub struct Hole {
    first: u64,
    last: u64,
    first_sequence: Sequence,
    /// How many events they had.
    events: u64,
    /// Those of them, first and last, that nobody has signed to be lost by number.
    unnamed: Vec<(u64, u64)>,
    /// How many of their events the collector declared to have lost in its spool. A gap among them is told again and also
    /// counts as an event that was lost.
    declared: u64,
    /// Whether a batch declared that without naming any: collectors of before did.
    by_count: bool,
}

impl Hole {
    fn new(first: u64, last: u64, first_sequence: Sequence, events: u64) -> Self {
        let unnamed = vec![(first, last)];
        Self { first, last, first_sequence, events, unnamed, declared: 0, by_count: false }
    }

    /// Takes that these batches are lost.
    fn name(&mut self, lost: &[RangeInclusive<u64>]) {
        for lost in lost {
            let beside = |(first, last): (u64, u64)| {
                let before = (first, last.min(lost.start().saturating_sub(1)));
                [before, (first.max(lost.end().saturating_add(1)), last)]
            };
            let unnamed = std::mem::take(&mut self.unnamed).into_iter().flat_map(beside);
            self.unnamed = unnamed.filter(|(first, last)| first <= last).collect();
        }
    }

    /// The numbers of the batches.
    pub fn batches(&self) -> RangeInclusive<u64> {
        self.first..=self.last
    }

    /// Those of their events.
    pub fn sequences(&self) -> Range<Sequence> {
        self.first_sequence..self.first_sequence.saturating_add(self.events)
    }

    fn is_declared(&self) -> bool {
        let is_counted = self.by_count && self.declared > 0 && self.declared >= self.events;
        self.unnamed.is_empty() || is_counted
    }
}

/// Of batches, first and last, no more is known than that they were lost.
impl From<(u64, u64)> for Hole {
    fn from((first, last): (u64, u64)) -> Self {
        Self::new(first, last, 0, 0)
    }
}

/// Walks along the links of one collector's chain.
#[derive(Debug)]
pub struct Links {
    collector: CollectorId,
    end: Option<End>,
    /// Whether the first batch that comes is the first of all.
    from_start: bool,
    /// The last batch that retention may have removed.
    expired: Option<End>,
    /// Batches of which retention declared that they were lost, when it removed what said so.
    expired_lost: Vec<RangeInclusive<u64>>,
    holes: VecDeque<Hole>,
    /// Those of which the collector signed that it lost the batches.
    lost: Vec<Hole>,
}

impl Links {
    /// `from_start`: the chain is walked from batch 1, or from what is left behind `expired`.
    pub fn new(collector: CollectorId, from_start: bool, expiries: &Expiries) -> Self {
        let (expired, expired_lost) = (expiries.end(), expiries.lost_batches());
        let (holes, lost) = (VecDeque::new(), Vec::new());
        Self { collector, end: None, from_start, expired, expired_lost, holes, lost }
    }

    /// What the batch of this number must hang on; none when that cannot be known.
    fn before(&mut self, number: u64) -> Option<End> {
        let start = End { number: 0, next_sequence: 1, hashes: [NO_BATCH; 2] };
        let before = self.end.take().or_else(|| self.from_start.then_some(start));
        let Some(expired) = &self.expired else { return before };
        if number <= expired.number {
            // One that was to be removed, and is still there.
            return before.filter(|before| before.number.saturating_add(1) == number);
        }
        before.map(|before| if before.number < expired.number { expired.clone() } else { before })
    }

    /// Takes the next batch, and notes in it when it does not follow.
    pub fn follow(&mut self, batch: &mut Sealed) {
        let (number, first) = (batch.row.number, batch.row.first_sequence);
        if let Some(before) = self.before(number) {
            if before.number.saturating_add(1) < number {
                let events = first.saturating_sub(before.next_sequence);
                let (first, last) = (before.number + 1, number - 1);
                let mut hole = Hole::new(first, last, before.next_sequence, events);
                hole.name(&self.expired_lost);
                self.holes.push_back(hole);
                if batch.row.first_sequence < before.next_sequence {
                    let expected = format!("first_sequence {} or more", before.next_sequence);
                    batch.find(Kind::BrokenLink, None, expected, batch.row.first_sequence.to_string());
                }
            } else if first != before.next_sequence {
                let expected = format!("first_sequence {}", before.next_sequence);
                batch.find(Kind::BrokenLink, None, expected, first.to_string());
            } else if !before.hashes.contains(&batch.row.previous_hash) {
                let expected = format!("previous_hash {}", hex::encode(before.hashes[0]));
                batch.find(Kind::BrokenLink, None, expected, hex::encode(batch.row.previous_hash));
            }
        }
        let hashes = [batch.row.batch_hash, batch.hash];
        self.end = Some(End { number, next_sequence: batch.row.next_sequence(), hashes });
    }

    /// Takes what a batch tells of losses, as the collector signed it: its gaps, and the numbers of `lost` batches. They may
    /// account for batches that are missing before it.
    pub fn declare(&mut self, gaps: impl IntoIterator<Item = Gap>, lost: &[RangeInclusive<u64>]) {
        let from_spool = |gap: &Gap| {
            matches!(gap.reason, LossReason::SpoolFull | LossReason::SpoolCorrupt | LossReason::Refused)
        };
        let mut events: u64 =
            gaps.into_iter().filter(from_spool).map(|gap| gap.events).fold(0, u64::saturating_add);
        for hole in self.holes.iter_mut().filter(|hole| !hole.is_declared()) {
            let taken = events.min(hole.events.saturating_sub(hole.declared));
            hole.declared += taken;
            hole.by_count |= taken > 0 && lost.is_empty();
            events -= taken;
        }
        for hole in &mut self.holes {
            hole.name(lost);
        }
    }

    /// Batches that are missing and of which all that is known is known.
    pub fn accounted(&mut self) -> Option<Finding> {
        let hole = self.holes.pop_front_if(|hole| hole.is_declared())?;
        let finding = self.finding(&hole, Kind::BatchesLost);
        self.lost.push(hole);
        Some(finding)
    }

    /// Batches that are missing and not declared, when the chain has ended.
    pub fn unaccounted(&mut self) -> Option<Finding> {
        if self.holes.front()?.is_declared() {
            return self.accounted();
        }
        let hole = self.holes.pop_front()?;
        Some(self.finding(&hole, Kind::BatchesMissing))
    }

    /// The batches that were accounted for so far.
    pub fn into_lost(self) -> Vec<Hole> {
        self.lost
    }

    fn finding(&self, hole: &Hole, kind: Kind) -> Finding {
        let range = match (hole.first, hole.last) {
            (first, last) if first == last => format!("batch {first}"),
            (first, last) => format!("batches {first} to {last}"),
        };
        let events = hole.events;
        let found = match kind {
            Kind::BatchesLost => {
                format!("not there; the collector signed that it lost them ({events} events)")
            }
            _ => format!(
                "not there, with {events} events, of which {} were declared lost afterwards: removed",
                hole.declared
            ),
        };
        let batch = Some(hole.first);
        Finding { kind, collector: self.collector, batch, sequence: None, expected: range, found }
    }
}
