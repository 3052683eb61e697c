//! Rows of batches that were lost on the way: ingest wrote a part of one, and before it could write the batch's own row
//! its collector lost the batch. Rows without a batch come in, the number of the lost batch goes out.

use std::collections::HashMap;
use std::ops::RangeInclusive;

use uuid::Uuid;
use whence_model::{BatchId, CollectorId, Sequence};

use super::link::Hole;

/// Of so many lost batches of a collector the ids are looked at: whoever signs may claim a loss of any size.
const NUMBERS: usize = 1 << 20;

/// The batches that collectors signed to have lost.
#[derive(Debug, Default)]
pub struct Lost {
    holes: HashMap<CollectorId, Vec<Hole>>,
    /// The collector asked for last.
    current: Option<Current>,
}

#[derive(Debug)]
struct Current {
    collector: CollectorId,
    /// Numbers of its lost batches by their ids.
    numbers: HashMap<Uuid, u64>,
    /// Number and last sequence of the newest lost batch that events were found of.
    end: (u64, Sequence),
}

impl Lost {
    /// Takes what `collector` lost, all of it before the first question.
    pub fn add(&mut self, collector: CollectorId, holes: impl IntoIterator<Item = Hole>) {
        self.holes.entry(collector).or_default().extend(holes);
    }

    /// The numbers of the lost batches of `collector`, first and last.
    pub fn of_collector(&self, collector: CollectorId) -> impl Iterator<Item = RangeInclusive<u64>> {
        self.holes.get(&collector).into_iter().flatten().map(Hole::batches)
    }

    /// The lost batch that events of this id and these sequences can have come with. To be asked in the order of
    /// collectors and sequences: nothing is there twice, and later batches have later sequences.
    pub fn of_events(
        &mut self,
        collector: CollectorId,
        batch: Uuid,
        sequences: &RangeInclusive<Sequence>,
    ) -> Option<u64> {
        let number = self.of_spans(collector, batch)?;
        let hole = self.holes.get(&collector)?.iter().find(|hole| hole.batches().contains(&number))?;
        let end = &mut self.current.as_mut()?.end;
        let is_next = number > end.0 && *sequences.start() > end.1;
        if !is_next
            || !hole.sequences().contains(sequences.start())
            || !hole.sequences().contains(sequences.end())
        {
            return None;
        }
        *end = (number, *sequences.end());
        Some(number)
    }

    /// The lost batch that has this id.
    pub fn of_spans(&mut self, collector: CollectorId, batch: Uuid) -> Option<u64> {
        let holes = self.holes.get(&collector)?;
        let current = self.current.take().filter(|current| current.collector == collector);
        let current = self.current.insert(current.unwrap_or_else(|| {
            let numbers = holes.iter().flat_map(Hole::batches).take(NUMBERS);
            let numbers = numbers.map(|number| (BatchId::derive(collector, number).0, number)).collect();
            Current { collector, numbers, end: (0, 0) }
        }));
        current.numbers.get(&batch).copied()
    }
}
