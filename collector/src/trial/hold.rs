//! The records that are kept back while the first ones of a server are on trial.

use std::collections::{HashMap, HashSet, VecDeque};

use whence_abi::record::{Plain as _, Record, kind};

use super::{Trial, Verdict};
use crate::offsets::ByTable;

/// So much is kept back, and no more: the kernel's ring holds the rest.
const MOST_HELD_BYTES: usize = 1 << 20;

/// A process whose records were not believed.
#[derive(Debug)]
pub struct Refusal {
    pub tgid: u32,
    pub reason: String,
}

/// What is to be done with a record.
#[derive(Debug)]
pub enum Look {
    /// To be decoded.
    Passes,
    KeptBack,
    /// Kept back, and its process is to be refused.
    Refuses(Refusal),
}

/// All trials, and what waits for them: the records of every process, so that their order stays.
#[derive(Default)]
pub struct Trials {
    open: HashMap<u32, Trial>,
    held: VecDeque<(Vec<u8>, u64)>,
    held_bytes: usize,
    refused: HashSet<u32>,
}

impl Trials {
    /// Puts process `tgid` on trial.
    pub fn begin(&mut self, tgid: u32, by_table: ByTable) {
        self.refused.remove(&tgid);
        self.open.insert(tgid, Trial::new(tgid, by_table));
    }

    /// Looks at the next record of the ring, which ends at `end`.
    pub fn look(&mut self, bytes: &[u8], end: u64) -> Look {
        let refusal = self.examine(bytes);
        if refusal.is_none() && !self.is_holding() && self.held.is_empty() {
            return Look::Passes;
        }
        self.hold(bytes, end);
        refusal.map_or(Look::KeptBack, Look::Refuses)
    }

    /// The same for one that is kept back in any case.
    pub fn keep(&mut self, bytes: &[u8], end: u64) -> Option<Refusal> {
        self.hold(bytes, end);
        self.examine(bytes)
    }

    /// The same for one that was given out already and comes again before all others.
    pub fn put_back(&mut self, bytes: Vec<u8>, end: u64) -> Option<Refusal> {
        let refusal = self.examine(&bytes);
        self.held_bytes += bytes.len();
        self.held.push_front((bytes, end));
        refusal
    }

    fn examine(&mut self, bytes: &[u8]) -> Option<Refusal> {
        if self.open.is_empty() {
            return None;
        }
        let (record, tail) = Record::split_from(bytes).filter(|(record, _)| record.kind != kind::OVERFLOW)?;
        let verdict = self.open.get_mut(&record.tgid)?.record(&record, tail);
        self.settle(record.tgid, verdict)
    }

    fn settle(&mut self, tgid: u32, verdict: Verdict) -> Option<Refusal> {
        match verdict {
            Verdict::Open | Verdict::Unsettled => None,
            Verdict::Holds => {
                self.open.remove(&tgid);
                None
            }
            Verdict::Fails(reason) => {
                self.open.remove(&tgid);
                Some(Refusal { tgid, reason })
            }
        }
    }

    fn hold(&mut self, bytes: &[u8], end: u64) {
        self.held_bytes += bytes.len();
        self.held.push_back((bytes.to_vec(), end));
    }

    /// The next record that was kept back and need not be any longer, with its end.
    pub fn release(&mut self) -> Option<(Vec<u8>, u64)> {
        if self.is_holding() {
            return None;
        }
        let (bytes, end) = self.held.pop_front()?;
        self.held_bytes -= bytes.len();
        Some((bytes, end))
    }

    /// Whether a trial waits for more records.
    pub fn is_holding(&self) -> bool {
        self.open.values().any(Trial::has_begun)
    }

    /// Whether nothing is kept back.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Ends the trials that have gone on for long enough; the answer is the processes to be refused.
    pub fn on_time(&mut self) -> Vec<Refusal> {
        let is_full = self.held_bytes >= MOST_HELD_BYTES;
        self.end_where(|trial| is_full || trial.is_over())
    }

    /// Ends those that have begun.
    pub fn end(&mut self) -> Vec<Refusal> {
        self.end_where(|_| true)
    }

    fn end_where(&mut self, is_over: impl Fn(&Trial) -> bool) -> Vec<Refusal> {
        let over = self.open.iter_mut().filter(|(_, trial)| trial.has_begun() && is_over(trial));
        let verdicts: Vec<_> = over.map(|(tgid, trial)| (*tgid, trial.end())).collect();
        verdicts.into_iter().filter_map(|(tgid, verdict)| self.settle(tgid, verdict)).collect()
    }

    /// Believes nothing of process `tgid` any more; the answer is how many events of it are kept back.
    pub fn refuse(&mut self, tgid: u32) -> u64 {
        self.open.remove(&tgid);
        self.refused.insert(tgid);
        let heads = self.held.iter().filter_map(|(bytes, _)| Record::split_from(bytes));
        heads.filter(|(record, _)| record.tgid == tgid && record.kind != kind::OVERFLOW).count() as u64
    }

    /// Whether process `tgid` was refused.
    pub fn is_refused(&self, tgid: u32) -> bool {
        self.refused.contains(&tgid)
    }

    /// Whether process `tgid` is on trial.
    pub fn is_open(&self, tgid: u32) -> bool {
        self.open.contains_key(&tgid)
    }

    /// Forgets process `tgid`, which has ended.
    pub fn forget(&mut self, tgid: u32) {
        self.open.remove(&tgid);
        self.refused.remove(&tgid);
    }
}
