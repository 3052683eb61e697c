//! The account of one server: counts of events and the kernel's counters go in, the span that is open comes out.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use whence_abi::record::Counters;
use whence_model::{Coverage, CoverageState, Flaws, LossReason, Provider, Server, Timestamp};

use crate::discover::ProcessId;

/// What of the kernel's counters is in the account already.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    ring_full: u64,
    table_full: u64,
    #[serde(default)]
    flaws: Flaws,
    /// By the name of the rule.
    #[serde(default)]
    filtered: BTreeMap<String, u64>,
}

/// One server, whatever process it is at the moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    pub server: Server,
    pub state: CoverageState,
    pub provider: Option<Provider>,
    pub detail: Option<String>,
    /// Clock ticks from boot to the start of the process.
    pub start_ticks: u64,
    /// Start of the span that is open.
    pub since: Timestamp,
    /// In the open span.
    pub stored: u64,
    /// By the name of the rule.
    #[serde(default)]
    filtered: BTreeMap<String, u64>,
    pub lost: BTreeMap<LossReason, u64>,
    #[serde(default)]
    flaws: Flaws,
    counted: Counted,
}

impl Account {
    pub fn new(server: &Server, state: CoverageState, start_ticks: u64, since: Timestamp) -> Self {
        Self {
            server: server.clone(),
            state,
            provider: None,
            detail: None,
            start_ticks,
            since,
            stored: 0,
            filtered: BTreeMap::new(),
            lost: BTreeMap::new(),
            flaws: Flaws::default(),
            counted: Counted::default(),
        }
    }

    pub fn process(&self) -> ProcessId {
        ProcessId { tgid: self.server.process_id, start_ticks: self.start_ticks }
    }

    /// The open span, as if it ended at `to`. None when it would be empty.
    pub fn span(&self, to: Timestamp) -> Option<Coverage> {
        let lost: u64 = self.lost.values().sum();
        let filtered: u64 = self.filtered.values().sum();
        let seen = self.stored + filtered + lost;
        if self.since >= to && seen == 0 && self.flaws.is_empty() {
            return None;
        }
        Some(Coverage {
            server: self.server.clone(),
            state: self.state,
            provider: self.provider,
            from: self.since,
            to: to.max(self.since),
            seen,
            stored: self.stored,
            filtered,
            filtered_by: self.filtered.clone(),
            lost: self.lost.clone(),
            detail: self.detail.clone().or_else(|| (!self.flaws.is_empty()).then(|| self.flaws.to_string())),
        })
    }

    /// Ends the open span at `now` and begins the next.
    pub fn checkpoint(&mut self, now: Timestamp) -> Option<Coverage> {
        let span = self.span(now);
        self.since = self.since.max(now);
        self.stored = 0;
        self.filtered.clear();
        self.lost.clear();
        self.flaws = Flaws::default();
        span
    }

    /// The clock was set, from `before` to `after`: ends the open span as if it had not been, and begins the next.
    pub fn clock_was_set(&mut self, before: Timestamp, after: Timestamp) -> Option<Coverage> {
        let span = self.checkpoint(before);
        self.since = after;
        span
    }

    /// One more event was left out by `rule`.
    pub fn count_filtered(&mut self, rule: &str) {
        match self.filtered.get_mut(rule) {
            Some(events) => *events += 1,
            None => _ = self.filtered.insert(rule.to_owned(), 1),
        }
    }

    /// Takes in how many events the kernel has left out so far, by rule.
    pub fn count_filtered_in_kernel(&mut self, counts: BTreeMap<String, u64>) {
        for (rule, events) in &counts {
            let before = self.counted.filtered.get(rule).copied().unwrap_or(0);
            let new = events.saturating_sub(before);
            if new > 0 {
                *self.filtered.entry(rule.clone()).or_default() += new;
            }
        }
        self.counted.filtered = counts;
    }

    /// Takes in the kernel's counters; the answer is what was lost since they were taken in last, and what was not whole.
    pub fn count(&mut self, counters: &Counters) -> (Vec<(LossReason, u64)>, Flaws) {
        let (losses, flaws) = self.counted.count(counters);
        for &(reason, events) in &losses {
            *self.lost.entry(reason).or_default() += events;
        }
        self.flaws += flaws;
        (losses, flaws)
    }
}

impl Counted {
    /// Takes in the kernel's counters, as [`Account::count`] does.
    pub fn count(&mut self, counters: &Counters) -> (Vec<(LossReason, u64)>, Flaws) {
        let lost = [
            (LossReason::RingFull, counters.ring_full.saturating_sub(self.ring_full)),
            (LossReason::TableFull, counters.table_full.saturating_sub(self.table_full)),
        ];
        let flaws = Flaws {
            fields_unreadable: counters.fields_unreadable,
            texts_cut: counters.sql_cut,
            ends_unmatched: counters.unmatched,
        };
        let before = std::mem::replace(&mut self.flaws, flaws);
        self.ring_full = counters.ring_full;
        self.table_full = counters.table_full;
        (lost.into_iter().filter(|&(_, events)| events > 0).collect(), flaws.since(before))
    }
}
