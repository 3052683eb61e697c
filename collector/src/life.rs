//! The collector's own spans: that it ran, how it began and ended, how good its clock was, and which batches it lost. The
//! kernel's word on the clock goes in, coverage spans come out ([`Life`] says what is in them).

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use whence_model::{Began, ClockQuality, Coverage, CoverageState, Life, Provider, Server, Timestamp};

/// The life of this process as far as it is told.
pub struct OwnLife {
    /// How it began, until that is told.
    began: Option<Began>,
    /// Lost, and not told yet.
    lost_batches: Vec<RangeInclusive<u64>>,
    /// Start of the span that is open.
    since: Timestamp,
}

impl OwnLife {
    /// A life that begins now.
    pub fn begin(began: Began) -> Self {
        Self { began: Some(began), lost_batches: Vec::new(), since: Timestamp::now() }
    }

    /// The next span tells that these batches are lost.
    pub fn lose(&mut self, batches: Vec<RangeInclusive<u64>>) {
        self.lost_batches.extend(batches);
    }

    /// Ends the open span and begins the next. `ended`: the collector stops, as it was told.
    pub fn span(&mut self, server: Server, ended: bool, now: Timestamp) -> Coverage {
        let lost_batches = std::mem::take(&mut self.lost_batches);
        let life = Life { began: self.began.take(), ended, clock: clock_quality(), lost_batches };
        let from = self.since;
        // The clock may have been set back.
        self.since = now.max(from);
        Coverage {
            server,
            state: CoverageState::Watched,
            provider: Some(Provider::Collector),
            from,
            to: self.since,
            seen: 0,
            stored: 0,
            filtered: 0,
            filtered_by: BTreeMap::new(),
            lost: BTreeMap::new(),
            detail: Some(life.to_string()),
        }
    }

    /// The clock was set, from `before` to `after`: ends the open span as if it had not been, and begins the next.
    pub fn clock_was_set(&mut self, server: Server, before: Timestamp, after: Timestamp) -> Coverage {
        let span = self.span(server, false, before);
        self.since = after;
        span
    }
}

/// How good the kernel says that its clock is (`adjtimex(2)`).
fn clock_quality() -> ClockQuality {
    // SAFETY: integers and arrays of them, for which zero is a value.
    let mut state: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: with `modes` 0 it only fills in what it is given.
    let returned = unsafe { libc::adjtimex(&raw mut state) };
    if returned < 0 {
        return ClockQuality::Unknown;
    }
    if returned == libc::TIME_ERROR || state.status & libc::STA_UNSYNC != 0 {
        return ClockQuality::Unsynchronised;
    }
    let unit = if state.status & libc::STA_NANO == 0 { 1 } else { 1000 };
    ClockQuality::Synchronised {
        error_us: u64::try_from(state.maxerror).unwrap_or(u64::MAX),
        offset_us: state.offset / unit,
    }
}

#[cfg(test)]
mod tests {
    use whence_testkit::sample;

    use super::*;

    #[test]
    fn a_life_is_told_without_a_hole_and_begins_once() {
        let mut own = OwnLife::begin(Began::Crash);
        let at = |seconds: i64| Timestamp::now().plus_ns(seconds * 1_000_000_000);
        let spans = [(false, at(10)), (false, at(5)), (true, at(20))]
            .map(|(ended, now)| own.span(sample::server(), ended, now));
        let life = |span: &Coverage| Life::parse(span.detail.as_deref().unwrap());
        assert_eq!(spans.each_ref().map(|span| life(span).began), [Some(Began::Crash), None, None]);
        assert_eq!(spans.each_ref().map(|span| life(span).ended), [false, false, true]);
        assert!(spans.windows(2).all(|pair| pair[0].to == pair[1].from));
        assert!(spans.iter().all(|span| span.from <= span.to && span.adds_up()));
        // The kernel tells everyone.
        assert_ne!(life(&spans[0]).clock, ClockQuality::Unknown);
    }
}
