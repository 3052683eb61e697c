//! Whether the stored audit is what the collectors signed. Rows come in from ClickHouse, findings go out.
//!
//! Collector by collector, the batches are read in the order of their numbers, and the events of some batches at a
//! time in the order of their sequence numbers. Of a batch only the hashes of its events are held, so the memory
//! needed does not grow with the table. What follows from what:
//!
//! | checked | against |
//! | --- | --- |
//! | all columns of an event | `event_hash`, and the row that would be written for that event now |
//! | events in their order, spans in theirs | `content_hash` |
//! | the columns of a batch | `batch_hash`, the first and last event |
//! | `batch_hash` | the signature, by the first key that the collector enrolled |
//! | number, first sequence number, `previous_hash` | the batch before |
//! | what is missing at the beginning of a chain | a declaration of retention, signed by a service |
//! | heads that were kept outside | the batches of those numbers |
//! | all rows of `events` and `coverage` | the batch that each names: one of no batch, and of none declared lost, was inserted |
//!
//! A batch has one finding at most: the first.

mod chain;
mod columns;
mod contents;
mod event;
mod expired;
mod finding;
mod link;
mod manifest;
mod outside;
mod row_binary;
mod rows;
mod strays;
mod unproven;
mod unwatched;

pub use finding::{Finding, Kind};
pub use outside::{KnownHead, Outside};

use whence_chain::{Hash, PublicKey};
use whence_model::{CollectorId, InstanceId, Timestamp};

pub(crate) use self::link::Hole;
pub(crate) use self::unproven::Lost;
use crate::read::Window;
use crate::{Store, StoreError};

/// What is to be verified: everything, but for what is set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// The batches with events or spans in it, those between them, and the links at both ends.
    pub window: Option<Window>,
    /// The collectors that watched this server.
    pub instance: Option<InstanceId>,
    pub collector: Option<CollectorId>,
}

/// What verification tells while it goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// So many events are to be verified, as far as is known.
    Planned {
        events: u64,
    },
    /// So many more events have been looked at.
    Events(u64),
    Finding(Finding),
    /// A collector's chain has been walked.
    Chain(Chain),
}

/// The part of a chain that was verified. Kept outside, it proves that nothing was cut off later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    pub collector: CollectorId,
    /// Ed25519.
    pub public_key: Option<[u8; 32]>,
    pub first_batch: u64,
    pub last_batch: u64,
    /// `batch_hash` of the last batch.
    pub head: Hash,
}

/// What was verified, and how much of it was not as it should be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    pub events: u64,
    pub batches: u64,
    /// Batches of these whose contents were removed by retention: their links and signatures were verified.
    pub expired: u64,
    pub collectors: u64,
    /// Findings that say that the record is not what was signed.
    pub findings: u64,
    /// Findings that say what was never recorded.
    pub notices: u64,
    /// Events in scope of senders that sign nothing. They are marked as such wherever they are shown, and nothing is
    /// said of them here.
    pub unsigned: u64,
}

/// Hands on what is found, and counts it.
struct Report<F> {
    sink: F,
    summary: Summary,
}

impl<F: FnMut(Step)> Report<F> {
    fn find(&mut self, finding: Finding) {
        if finding.kind.is_tampering() {
            self.summary.findings += 1;
        } else {
            self.summary.notices += 1;
        }
        (self.sink)(Step::Finding(finding));
    }

    fn events(&mut self, events: u64) {
        self.summary.events += events;
        (self.sink)(Step::Events(events));
    }
}

impl Store {
    /// Verifies what `scope` names, as it is when this is called, and tells `sink` of every step.
    ///
    /// # Errors
    ///
    /// When ClickHouse cannot be asked. What is wrong with the record is no error but a finding.
    pub async fn verify(&self, scope: &Scope, sink: impl FnMut(Step)) -> Result<Summary, StoreError> {
        self.verify_against(scope, &Outside::default(), sink).await
    }

    /// The same, with what is known outside of ClickHouse.
    pub async fn verify_against(
        &self,
        scope: &Scope,
        outside: &Outside,
        sink: impl FnMut(Step),
    ) -> Result<Summary, StoreError> {
        Ok(self.verify_and_know_lost(scope, outside, sink).await?.0)
    }

    /// The same, and which batches were lost on the way.
    pub(crate) async fn verify_and_know_lost(
        &self,
        scope: &Scope,
        outside: &Outside,
        sink: impl FnMut(Step),
    ) -> Result<(Summary, Lost), StoreError> {
        let now = Timestamp::now();
        let mut report = Report { sink, summary: Summary::default() };
        let keys = self.service_keys_known(outside).await?;
        let plans = chain::plan(self, scope).await?;
        (report.sink)(Step::Planned { events: plans.iter().map(|plan| plan.events).sum() });
        let mut lost = Lost::default();
        for plan in &plans {
            lost.add(plan.collector, chain::walk(self, plan, &keys, &mut report).await?);
        }
        let collectors: Vec<CollectorId> = plans.iter().map(|plan| plan.collector).collect();
        let is_whole = scope.collector.is_none() && scope.instance.is_none();
        let is_meant = |id| is_whole || scope.collector == Some(id) || collectors.contains(&id);
        outside::heads(self, outside, &keys, is_meant, &mut report).await?;
        if *scope == Scope::default() {
            expired::Expiries::orphans(self, &collectors, &mut report).await?;
        }
        strays::events(self, scope, &collectors, now, &mut lost, &mut report).await?;
        strays::coverage(self, scope, &collectors, now, &mut lost, &mut report).await?;
        report.summary.unsigned = strays::unsigned(self, scope, &collectors).await?;
        unwatched::spans(self, scope, now, &mut report).await?;
        Ok((report.summary, lost))
    }

    /// Looks only whether the heads that are known outside of ClickHouse are in the chains.
    pub async fn verify_heads(
        &self,
        outside: &Outside,
        sink: impl FnMut(Step),
    ) -> Result<Summary, StoreError> {
        let mut report = Report { sink, summary: Summary::default() };
        let keys = self.service_keys_known(outside).await?;
        outside::heads(self, outside, &keys, |_| true, &mut report).await?;
        Ok(report.summary)
    }

    async fn service_keys_known(&self, outside: &Outside) -> Result<Vec<PublicKey>, StoreError> {
        if !outside.service_keys.is_empty() {
            return Ok(outside.service_keys.clone());
        }
        let rows = self.service_keys().await?;
        Ok(rows.iter().filter_map(|row| PublicKey::from_bytes(&row.public_key)).collect())
    }
}
