//! A declaration that retention removed a part of the record: what makes it differ from tampering.
//!
//! It names the beginning of one collector's chain, up to a batch, and holds what the rest of the chain hangs on. It is
//! signed by a key of Whence's services, so that what is missing without one, or beyond one, is a finding.

use whence_model::{CollectorId, Sequence, Timestamp};

use crate::Hash;
use crate::canonical::Encoder;

/// What was removed of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Expired {
    /// Its events and coverage spans. What the collector signed stays, and is verified.
    Contents,
    /// The batch's own row too.
    Batches,
}

impl Expired {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Contents => "contents",
            Self::Batches => "batches",
        }
    }

    /// What is spelled `text`, if there is such.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Contents, Self::Batches].into_iter().find(|what| what.as_str() == text)
    }
}

/// Batches `first_batch` to `last_batch` of a collector lost `what` to retention.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expiry {
    pub collector: CollectorId,
    pub what: Expired,
    pub first_batch: u64,
    pub last_batch: u64,
    /// How many events the batches had.
    pub events: u64,
    /// Sequence number of the last of them, or of the last before them.
    pub last_sequence: Sequence,
    /// `batch_hash` of `last_batch`: the batch after it must hang on this.
    pub head: Hash,
    /// Everything in them was sealed before this.
    pub before: Timestamp,
    pub reason: String,
    pub declared_at: Timestamp,
    /// Of these numbers, first and last, the collector had signed that it lost the batches on the way; what said so may be
    /// among what was removed.
    pub lost_batches: Vec<(u64, u64)>,
}

impl Expiry {
    /// What is signed.
    pub fn hash(&self) -> Hash {
        let mut encoder = Encoder::new("whence 2026-11-25 expiry v1");
        encoder.uuid(self.collector.0);
        encoder.str(self.what.as_str());
        encoder.u64(self.first_batch);
        encoder.u64(self.last_batch);
        encoder.u64(self.events);
        encoder.u64(self.last_sequence);
        encoder.hash(&self.head);
        encoder.timestamp(self.before);
        encoder.str(&self.reason);
        encoder.timestamp(self.declared_at);
        // An addition, as in the canonical encoding.
        if !self.lost_batches.is_empty() {
            encoder.str("lost_batches");
            encoder.length(self.lost_batches.len());
            for (first, last) in &self.lost_batches {
                encoder.u64(*first);
                encoder.u64(*last);
            }
        }
        encoder.finish()
    }
}
