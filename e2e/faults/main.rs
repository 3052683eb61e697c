//! Fault test: the real parts under a real load, while they are killed, cut off, held up, filled and damaged.
//!
//! After each round of faults everything that the database executed must be stored exactly once or be counted in a gap,
//! the coverage must add up, and `whence verify` must be content.
//!
//! `cargo xtask faults --rounds N [--seed S] [--first F]` runs more of it. A seed makes the same series of faults again; what
//! they meet is decided by the clocks of this machine. `F` leaves the rounds before it out, to come to one of them at once.

mod audit;
mod disk;
mod fault;
mod judge;
mod link;
mod load;
mod process;
mod round;
mod schedule;
mod stack;

use rand::SeedableRng as _;
use rand::rngs::StdRng;

use crate::round::Rounds;
use crate::schedule::Schedule;

/// The seed without [`SEED_VARIABLE`].
const SEED: u64 = 20_261_125;
const ROUNDS_VARIABLE: &str = "WHENCE_FAULT_ROUNDS";
const SEED_VARIABLE: &str = "WHENCE_FAULT_SEED";
const FIRST_VARIABLE: &str = "WHENCE_FAULT_FIRST";

/// As many rounds as the variable says; without it, until every kind of fault has come once.
#[test]
fn nothing_is_lost_in_silence_and_nothing_is_there_twice() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let (wanted, seed) = (number(ROUNDS_VARIABLE), number(SEED_VARIABLE).unwrap_or(SEED));
    println!("seed {seed}");
    let mut schedule = Schedule::new(StdRng::seed_from_u64(seed));
    for _ in 1..number(FIRST_VARIABLE).unwrap_or(1) {
        schedule.next_round();
        schedule.closes_spans();
    }
    let mut rounds = Rounds::start(seed).unwrap();
    loop {
        let faults = schedule.next_round();
        let closes_spans = schedule.closes_spans();
        let is_last = wanted.map_or_else(|| schedule.is_through(), |wanted| rounds.done() + 1 >= wanted);
        rounds.run(&faults, closes_spans, is_last).unwrap();
        if is_last {
            break;
        }
    }
    let findings = rounds.findings();
    println!("rounds {} findings {findings} seed {seed}", rounds.done());
    assert_eq!(findings, 0);
}
