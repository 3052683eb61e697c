//! The kernel's clock to UTC.
//!
//! Records carry `CLOCK_BOOTTIME`, which never jumps. Their UTC is that plus the distance between the two clocks *as it
//! was then*: the distance is noted from time to time, so that a record read after somebody set the wall clock still
//! gets the time that the wall clock showed when it was made.

use std::collections::VecDeque;

use nix::time::{ClockId, clock_gettime};
use whence_model::Timestamp;

/// Notes at least this far apart are kept: a clock that is slewed moves less in the meantime than anyone can tell.
const NOTE_EVERY_NS: u64 = 100_000_000;
/// How many notes are kept where the distance did change.
const NOTES: usize = 4096;
/// A change of less than this is not noted.
const UNCHANGED_NS: i64 = 10_000;
/// More than this between two looks is a clock that was set; one that is slewed does not move so far.
const STEP_NS: i64 = 1_000_000_000;

/// From when on the wall clock was how far ahead of the boot clock.
#[derive(Clone, Copy, Debug)]
struct Note {
    boot_ns: u64,
    ahead_ns: i64,
}

/// The time by the clock of records.
pub fn boot_ns() -> u64 {
    read(ClockId::CLOCK_BOOTTIME).cast_unsigned()
}

/// Turns boot time into UTC.
#[derive(Debug)]
pub struct Clock {
    notes: VecDeque<Note>,
    looked_ns: u64,
}

impl Clock {
    /// A clock that knows the distance of now.
    pub fn new() -> Self {
        let mut clock = Self { notes: VecDeque::new(), looked_ns: 0 };
        clock.look();
        clock
    }

    /// Notes the distance of now; cheap enough to be called for each record.
    pub fn look(&mut self) {
        let boot_ns = boot_ns();
        if self.looked_ns != 0 && boot_ns.saturating_sub(self.looked_ns) < NOTE_EVERY_NS {
            return;
        }
        let (boot_ns, ahead_ns) = measure();
        self.note(boot_ns, ahead_ns);
    }

    fn note(&mut self, boot_ns: u64, ahead_ns: i64) {
        let since_ns = self.looked_ns;
        self.looked_ns = boot_ns;
        match self.notes.back() {
            Some(last) if (last.ahead_ns - ahead_ns).abs() < UNCHANGED_NS => {}
            // It changed at some time since the look before this one; the middle is the best guess.
            Some(_) => self.notes.push_back(Note { boot_ns: since_ns + (boot_ns - since_ns) / 2, ahead_ns }),
            None => self.notes.push_back(Note { boot_ns, ahead_ns }),
        }
        if self.notes.len() > NOTES {
            self.notes.pop_front();
        }
    }

    /// UTC at `boot_ns`. Before the first note its distance is taken.
    pub fn to_utc(&self, boot_ns: u64) -> Timestamp {
        let after = self.notes.partition_point(|note| note.boot_ns <= boot_ns);
        let note = self.notes.get(after.saturating_sub(1));
        Timestamp(boot_ns.cast_signed()).plus_ns(note.map_or(0, |note| note.ahead_ns))
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

/// Notices that somebody sets the wall clock.
#[derive(Debug)]
pub struct Steps {
    ahead_ns: i64,
}

impl Steps {
    /// Looks for the first time.
    pub fn begin() -> Self {
        Self { ahead_ns: measure().1 }
    }

    /// What the wall clock would show now had it not been set since the look before this one, and what it shows. None: it
    /// was not set.
    pub fn look(&mut self) -> Option<(Timestamp, Timestamp)> {
        let (boot_ns, ahead_ns) = measure();
        self.take(boot_ns, ahead_ns)
    }

    fn take(&mut self, boot_ns: u64, ahead_ns: i64) -> Option<(Timestamp, Timestamp)> {
        let before_ns = std::mem::replace(&mut self.ahead_ns, ahead_ns);
        let by = |distance_ns| Timestamp(boot_ns.cast_signed()).plus_ns(distance_ns);
        ((ahead_ns - before_ns).abs() > STEP_NS).then(|| (by(before_ns), by(ahead_ns)))
    }
}

/// Boot time and how far the wall clock is ahead of it: of several tries the one that took least, since this thread may
/// lose its CPU between two readings.
fn measure() -> (u64, i64) {
    const TRIES: usize = 5;
    let mut least_ns = i64::MAX;
    let mut best = (0, 0);
    for _ in 0..TRIES {
        let before = read(ClockId::CLOCK_BOOTTIME);
        let wall = read(ClockId::CLOCK_REALTIME);
        let took_ns = read(ClockId::CLOCK_BOOTTIME) - before;
        if took_ns < least_ns {
            let boot = before + took_ns / 2;
            least_ns = took_ns;
            best = (boot.cast_unsigned(), wall - boot);
        }
    }
    best
}

fn read(id: ClockId) -> i64 {
    // Both clocks exist on every kernel that the programs load on.
    clock_gettime(id).map_or(0, |at| at.tv_sec() * 1_000_000_000 + at.tv_nsec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_keeps_the_time_that_the_wall_clock_showed_then() {
        let mut clock = Clock { notes: VecDeque::new(), looked_ns: 0 };
        clock.note(1_000_000_000, 500);
        clock.note(2_000_000_000, 500);
        clock.note(3_000_000_000, 3_600_000_000_500);
        assert_eq!(clock.to_utc(900_000_000), Timestamp(900_000_500));
        assert_eq!(clock.to_utc(2_100_000_000), Timestamp(2_100_000_500));
        assert_eq!(clock.to_utc(2_900_000_000), Timestamp(2_900_000_000 + 3_600_000_000_500));
        assert_eq!(clock.notes.len(), 2);
    }

    #[test]
    fn a_clock_that_is_set_is_noticed_and_one_that_is_slewed_is_not() {
        let mut steps = Steps { ahead_ns: 500 };
        assert_eq!(steps.take(1_000_000_000, 500_000_500), None);
        let set = (Timestamp(2_500_000_500), Timestamp(2_000_000_500 - 3_600_000_000_000));
        assert_eq!(steps.take(2_000_000_000, 500 - 3_600_000_000_000), Some(set));
        assert_eq!(steps.take(3_000_000_000, 500 - 3_600_000_000_000), None);
    }

    #[test]
    fn the_distance_of_the_clocks_is_measured_closely() {
        let distances: Vec<i64> = (0..1000).map(|_| measure().1).collect();
        let spread_ns = distances.iter().max().unwrap() - distances.iter().min().unwrap();
        assert!(spread_ns < 1_000_000, "{spread_ns} ns");
    }

    #[test]
    fn now_is_now() {
        let clock = Clock::new();
        let boot_ns = read(ClockId::CLOCK_BOOTTIME).cast_unsigned();
        let away_ns = Timestamp::now().since_ns(clock.to_utc(boot_ns)).abs();
        assert!(away_ns < 50_000_000, "{away_ns} ns");
    }
}
