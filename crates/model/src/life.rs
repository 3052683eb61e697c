//! The life of a collector, as the spans tell that it writes of itself: how it began and ended, how good its clock was, and
//! which batches it lost.
//!
//! Such a span is one of coverage whose provider is [`crate::Provider::Collector`] and whose server is the collector
//! itself. It counts no events; its `detail` is a [`Life`] as text, words `name=value` with spaces between them:
//!
//! ```text
//! began=crash clock=synchronised clock_error_us=1520 clock_offset_us=-3
//! clock=unknown lost_batches=5-7,9
//! ```

use std::fmt;
use std::ops::RangeInclusive;

use crate::event::text_enum;

text_enum! {
    /// How a collector came to run.
    Began {
        /// There was none before with this spool.
        First = "first",
        /// The one before was stopped.
        Start = "start",
        /// The one before did not end by itself: it was killed, it failed, or its host did.
        Crash = "crash",
    }
}

/// The host's clock, as its kernel judges it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClockQuality {
    /// The kernel could not be asked.
    #[default]
    Unknown,
    /// Nothing keeps it right.
    Unsynchronised,
    /// A time service keeps it right.
    Synchronised {
        /// Most that it can be off, in microseconds.
        error_us: u64,
        /// What is being corrected at the moment.
        offset_us: i64,
    },
}

/// What a span says of its collector.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Life {
    /// Set in the first span of a collector's process.
    pub began: Option<Began>,
    /// Set in the last one, when it was told to stop.
    pub ended: bool,
    pub clock: ClockQuality,
    /// Numbers of batches of which the batch with this span tells that they will not come. What they held is counted in
    /// gaps; one that held coverage spans alone is told here only.
    pub lost_batches: Vec<RangeInclusive<u64>>,
}

impl Life {
    /// What this text says; words that are not known are passed over.
    pub fn parse(text: &str) -> Self {
        let value = |name: &str| {
            let mut words = text.split(' ').filter_map(|word| word.split_once('='));
            words.find(|(known, _)| *known == name).map(|(_, value)| value)
        };
        let clock = match value("clock") {
            Some("unsynchronised") => ClockQuality::Unsynchronised,
            Some("synchronised") => ClockQuality::Synchronised {
                error_us: value("clock_error_us").and_then(|us| us.parse().ok()).unwrap_or(u64::MAX),
                offset_us: value("clock_offset_us").and_then(|us| us.parse().ok()).unwrap_or(0),
            },
            _ => ClockQuality::Unknown,
        };
        let lost_batches = value("lost_batches").unwrap_or_default();
        Self {
            began: value("began").and_then(Began::parse),
            ended: value("ended").is_some(),
            clock,
            lost_batches: lost_batches.split(',').filter_map(numbers).collect(),
        }
    }
}

/// `5-7`, or `9`.
fn numbers(text: &str) -> Option<RangeInclusive<u64>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    Some(first.parse().ok()?..=last.parse().ok()?)
}

impl fmt::Display for Life {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(began) = self.began {
            write!(f, "began={} ", began.as_str())?;
        }
        if self.ended {
            write!(f, "ended=stop ")?;
        }
        match self.clock {
            ClockQuality::Unknown => write!(f, "clock=unknown")?,
            ClockQuality::Unsynchronised => write!(f, "clock=unsynchronised")?,
            ClockQuality::Synchronised { error_us, offset_us } => {
                write!(f, "clock=synchronised clock_error_us={error_us} clock_offset_us={offset_us}")?;
            }
        }
        for (position, numbers) in self.lost_batches.iter().enumerate() {
            let before = if position == 0 { " lost_batches=" } else { "," };
            match (numbers.start(), numbers.end()) {
                (first, last) if first == last => write!(f, "{before}{first}")?,
                (first, last) => write!(f, "{before}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_life_is_read_as_it_was_written() {
        let clocks = [
            ClockQuality::Unknown,
            ClockQuality::Unsynchronised,
            ClockQuality::Synchronised { error_us: 1520, offset_us: -3 },
        ];
        for clock in clocks {
            for began in Began::ALL.iter().copied().map(Some).chain([None]) {
                for ended in [false, true] {
                    for lost_batches in [vec![], vec![9..=9], vec![5..=7, 9..=9, 12..=u64::MAX]] {
                        let life = Life { began, ended, clock, lost_batches };
                        assert_eq!(Life::parse(&life.to_string()), life);
                    }
                }
            }
        }
        assert_eq!(Life::parse(""), Life::default());
        assert_eq!(Life::parse("began=later x clock=moon lost_batches=,x,3-"), Life::default());
    }
}
