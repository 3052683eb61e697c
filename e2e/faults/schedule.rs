//! Which faults a round has, and when: all of it follows from the seed.

use std::fmt;
use std::time::Duration;

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

/// Faults begin within this time of a round's start …
const BEGIN_WITHIN_MS: u64 = 1800;
/// … and last this long.
const LASTS_MS: std::ops::Range<u64> = 200..1600;
const FAULTS_AT_ONCE: std::ops::RangeInclusive<usize> = 3..=5;

/// What can go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    KillCollector,
    KillIngest,
    KillBothIngests,
    KillWeb,
    KillEngine,
    KillEngineAndSupervisor,
    /// Told to stop, and started again with its probes still on.
    RestartCollector,
    RestartIngest,
    PauseCollector,
    PauseIngest,
    PauseEngine,
    CutIngest,
    CutBothIngests,
    ResetIngest,
    SlowIngest,
    NarrowIngest,
    StallIngest,
    LoseIngestAnswers,
    IngestUnavailable,
    /// Every batch reaches both ingests at once.
    SendTwice,
    /// An answer that says of a batch that it can never be taken.
    RefuseBatch,
    CutStore,
    ResetStore,
    SlowStore,
    NarrowStore,
    StallStore,
    /// ClickHouse commits, and its answer is lost.
    LoseStoreAnswers,
    StoreFails,
    /// ClickHouse itself takes no rows for one of the tables.
    StoreRefuses,
    FillSpool,
    FillEngine,
    /// The spool has room for little, and gives up what is oldest.
    SmallSpool,
    /// The disk changes what is in the spool while no collector runs.
    DamageSpool,
    ClockAhead,
    ClockBehind,
    RestartDatabase,
    KillDatabase,
}

const ALL: [Kind; 37] = [
    Kind::KillCollector,
    Kind::KillIngest,
    Kind::KillBothIngests,
    Kind::KillWeb,
    Kind::KillEngine,
    Kind::KillEngineAndSupervisor,
    Kind::RestartCollector,
    Kind::RestartIngest,
    Kind::PauseCollector,
    Kind::PauseIngest,
    Kind::PauseEngine,
    Kind::CutIngest,
    Kind::CutBothIngests,
    Kind::ResetIngest,
    Kind::SlowIngest,
    Kind::NarrowIngest,
    Kind::StallIngest,
    Kind::LoseIngestAnswers,
    Kind::IngestUnavailable,
    Kind::SendTwice,
    Kind::RefuseBatch,
    Kind::CutStore,
    Kind::ResetStore,
    Kind::SlowStore,
    Kind::NarrowStore,
    Kind::StallStore,
    Kind::LoseStoreAnswers,
    Kind::StoreFails,
    Kind::StoreRefuses,
    Kind::FillSpool,
    Kind::FillEngine,
    Kind::SmallSpool,
    Kind::DamageSpool,
    Kind::ClockAhead,
    Kind::ClockBehind,
    Kind::RestartDatabase,
    Kind::KillDatabase,
];

/// One fault of a round.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    pub kind: Kind,
    /// Which of two ingests it is about.
    pub side: usize,
    pub begins: Duration,
    pub ends: Duration,
    /// Decides what else there is to decide.
    pub dice: u64,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, side, begins, ends, .. } = self;
        write!(f, "{kind:?}/{side} {}-{} ms", begins.as_millis(), ends.as_millis())
    }
}

/// Deals the faults: every kind comes once before any comes again.
pub struct Schedule {
    random: StdRng,
    deck: Vec<Kind>,
    decks: u64,
}

impl Schedule {
    pub fn new(random: StdRng) -> Self {
        Self { random, deck: Vec::new(), decks: 0 }
    }

    /// The faults of the next round, by their begin.
    pub fn next_round(&mut self) -> Vec<Fault> {
        let count = self.random.gen_range(FAULTS_AT_ONCE);
        let mut faults: Vec<Fault> = (0..count).map(|_| self.next_fault()).collect();
        faults.sort_by_key(|fault| fault.begins);
        faults
    }

    /// Whether the collector is told to stop after the round, so that all of its coverage spans are closed.
    pub fn closes_spans(&mut self) -> bool {
        self.random.gen_bool(0.5)
    }

    /// Whether every kind has come.
    pub fn is_through(&self) -> bool {
        self.decks > 1 || (self.decks == 1 && self.deck.is_empty())
    }

    fn next_fault(&mut self) -> Fault {
        if self.deck.is_empty() {
            self.deck = ALL.to_vec();
            self.deck.shuffle(&mut self.random);
            self.decks += 1;
        }
        let kind = self.deck.pop().unwrap_or(Kind::KillCollector);
        let begins = Duration::from_millis(self.random.gen_range(0..BEGIN_WITHIN_MS));
        let lasts = Duration::from_millis(self.random.gen_range(LASTS_MS));
        let side = self.random.gen_range(0..2);
        Fault { kind, side, begins, ends: begins + lasts, dice: self.random.r#gen() }
    }
}
