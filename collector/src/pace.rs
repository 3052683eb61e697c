//! How soon and how big batches are: what is not confirmed yet and how long ingest takes go in, bounds for the next batch
//! come out.
//!
//! Two batches are sealed at least a *pause* apart, so that the first event after a quiet time is sealed almost at once, and a
//! busy server's events come together. After each batch the pause is looked at again:
//!
//! | when | the pause |
//! | --- | --- |
//! | more than two batches are not confirmed, or the last answer took longer than half of it | doubles, up to a second |
//! | at most one is not confirmed, and the last answer took less than a quarter of it | halves, down to 250 ms |
//! | else | stays |
//!
//! With the pause grows how many events a batch may have, from 8192 to 32768, so that ingest and ClickHouse, which pay for each
//! batch, catch up on a backlog. A batch that is full does not wait.

use std::time::Duration;

const SHORTEST: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(1);
const FEWEST_EVENTS: usize = 8192;

/// Bounds of the next batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Least time between two batches that are not full.
    pub pause: Duration,
    /// With so many events or spans a batch is full.
    pub most_events: usize,
}

impl Default for Pace {
    fn default() -> Self {
        Self { pause: SHORTEST, most_events: FEWEST_EVENTS }
    }
}

impl Pace {
    /// Takes in how many batches are not confirmed, the newest among them, and how long ingest took for the last one.
    pub fn adapt(&mut self, unconfirmed: usize, answer: Duration) {
        if (unconfirmed > 2 || answer > self.pause / 2) && self.pause < LONGEST {
            self.pause *= 2;
            self.most_events *= 2;
        } else if unconfirmed <= 1 && answer < self.pause / 4 && self.pause > SHORTEST {
            self.pause /= 2;
            self.most_events /= 2;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backlog_or_slow_answers_make_big_batches_and_the_end_of_both_small_ones() {
        let quick = Duration::from_millis(20);
        let mut pace = Pace::default();
        pace.adapt(1, quick);
        assert_eq!(pace, Pace::default());
        for (unconfirmed, answer, events) in [
            (3, quick, 16_384),
            (500, quick, 32_768),
            (500, quick, 32_768),
            (2, quick, 32_768),
            (1, quick, 16_384),
            (1, Duration::from_millis(200), 16_384),
            (1, Duration::from_millis(251), 32_768),
            (0, quick, 16_384),
            (0, quick, 8192),
            (0, quick, 8192),
        ] {
            pace.adapt(unconfirmed, answer);
            assert_eq!(pace.most_events, events, "{unconfirmed} {answer:?}");
            assert_eq!(
                pace.pause / 250,
                Duration::from_millis(1) * u32::try_from(pace.most_events / 8192).unwrap()
            );
        }
    }
}
