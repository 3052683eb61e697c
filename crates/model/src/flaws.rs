//! What was seen of a server and is not whole, as the `detail` of a coverage span tells it: words `name=value` with spaces
//! between them, those that are not 0.
//!
//! ```text
//! fields_unreadable=3 texts_cut=1
//! ```

use std::fmt;
use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

/// Counts of what is not whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Flaws {
    /// Fields that could not be read in the server's memory; their events are stored without them.
    pub fields_unreadable: u64,
    /// Long SQL texts that were cut further than the limit says, for want of room; their events are stored with the mark.
    pub texts_cut: u64,
    /// Commands that were under way when the watch began; they are not stored. By static probes only: the kernel does not
    /// see a function return that was entered before.
    pub ends_unmatched: u64,
}

impl Flaws {
    /// What this text says. None when it says something else, too.
    pub fn parse(text: &str) -> Option<Self> {
        let mut flaws = Self::default();
        for word in text.split(' ') {
            let (name, count) = word.split_once('=')?;
            let (_, field) = flaws.fields_mut().into_iter().find(|(known, _)| *known == name)?;
            *field = count.parse().ok()?;
        }
        Some(flaws)
    }

    /// How many there are more than `before`.
    #[must_use]
    pub fn since(mut self, mut before: Self) -> Self {
        for ((_, count), (_, before)) in self.fields_mut().into_iter().zip(before.fields_mut()) {
            *count = count.saturating_sub(*before);
        }
        self
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn fields_mut(&mut self) -> [(&'static str, &mut u64); 3] {
        [
            ("fields_unreadable", &mut self.fields_unreadable),
            ("texts_cut", &mut self.texts_cut),
            ("ends_unmatched", &mut self.ends_unmatched),
        ]
    }
}

impl AddAssign for Flaws {
    fn add_assign(&mut self, mut more: Self) {
        for ((_, sum), (_, count)) in self.fields_mut().into_iter().zip(more.fields_mut()) {
            *sum = sum.saturating_add(*count);
        }
    }
}

impl fmt::Display for Flaws {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut flaws = *self;
        let counted = flaws.fields_mut().into_iter().filter(|(_, count)| **count > 0);
        for (place, (name, count)) in counted.enumerate() {
            let space = if place > 0 { " " } else { "" };
            write!(f, "{space}{name}={count}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flaws_are_read_as_they_were_written_and_add_up() {
        let mut flaws = Flaws { fields_unreadable: 3, texts_cut: 0, ends_unmatched: 1 };
        assert_eq!(flaws.to_string(), "fields_unreadable=3 ends_unmatched=1");
        assert_eq!(Flaws::parse(&flaws.to_string()), Some(flaws));
        flaws += Flaws { texts_cut: 2, fields_unreadable: u64::MAX, ..Flaws::default() };
        assert_eq!(flaws, Flaws { fields_unreadable: u64::MAX, texts_cut: 2, ends_unmatched: 1 });
        for other in ["", "the kernel has no probes", "texts_cut=x", "texts_cut=1 moons=2"] {
            assert_eq!(Flaws::parse(other), None, "{other}");
        }
    }
}
