//! Gathers events and coverage spans into batches: numbered, hashed, linked to the batch before, signed, encoded.
//!
//! A sealed batch is final: the same bytes go to the spool and, however often it takes, to ingest. When one is due is in
//! `pace.rs`.

use std::time::{Duration, Instant};

use whence_chain::{Hash, Manifest, SigningKey, content_hash, coverage_hash, event_hash};
use whence_model::{CollectorId, Coverage, Event, Sequence, Timestamp};
use whence_wire::Encoder;

use crate::pace::Pace;
use crate::spool::ToldGap;

/// What comes so soon after a batch's first event is in it too.
const GATHER: Duration = Duration::from_millis(20);
/// With so many bytes, before they are compressed, a batch is full, however few events it has.
const MOST_BYTES: usize = 4 << 20;

/// A batch as it is kept and sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedBatch {
    pub number: u64,
    pub first_sequence: Sequence,
    pub event_count: u32,
    pub batch_hash: Hash,
    /// The gaps among its events.
    pub gaps: Vec<ToldGap>,
    /// What [`Encoder::finish`] made.
    pub bytes: Vec<u8>,
}

/// Where a chain goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Number of the next batch.
    pub number: u64,
    /// Sequence number of the next event.
    pub sequence: Sequence,
    /// Hash of the batch before.
    pub previous_hash: Hash,
}

impl Link {
    /// The start of a chain.
    pub const FIRST: Self = Self { number: 1, sequence: 1, previous_hash: whence_chain::NO_BATCH };
}

/// Makes batches.
pub struct Sealer {
    collector: CollectorId,
    key: SigningKey,
    link: Link,
    encoder: Encoder,
    event_hashes: Vec<Hash>,
    coverage_hashes: Vec<Hash>,
    gaps: Vec<ToldGap>,
    waiting_since: Option<Instant>,
    sealed_at: Option<Instant>,
    pace: Pace,
}

impl Sealer {
    /// Goes on at `link`. Fails when there is no memory for it.
    pub fn new(collector: CollectorId, key: SigningKey, link: Link) -> std::io::Result<Self> {
        Ok(Self {
            collector,
            key,
            link,
            encoder: Encoder::new()?,
            event_hashes: Vec::new(),
            coverage_hashes: Vec::new(),
            gaps: Vec::new(),
            waiting_since: None,
            sealed_at: None,
            pace: Pace::default(),
        })
    }

    /// Sequence number that the next event must have.
    pub fn next_sequence(&self) -> Sequence {
        self.link.sequence + self.event_hashes.len() as u64
    }

    /// Adds an event, which gets the next sequence number and this collector's id.
    pub fn event(&mut self, mut event: Event) {
        event.collector = self.collector;
        event.sequence = self.next_sequence();
        self.event_hashes.push(event_hash(&event));
        self.gaps.extend(ToldGap::of(&event));
        self.encoder.event(event);
        self.waiting_since.get_or_insert_with(Instant::now);
    }

    /// Adds a coverage span.
    pub fn coverage(&mut self, span: Coverage) {
        self.coverage_hashes.push(coverage_hash(&span));
        self.encoder.coverage(span);
        self.waiting_since.get_or_insert_with(Instant::now);
    }

    /// Takes in how many batches are not confirmed, and how long ingest took for the last one.
    pub fn adapt(&mut self, unconfirmed: usize, answer: Duration) {
        self.pace.adapt(unconfirmed, answer);
    }

    pub fn is_empty(&self) -> bool {
        self.event_hashes.is_empty() && self.coverage_hashes.is_empty()
    }

    /// Whether the batch should be sealed at `now`.
    pub fn is_due(&self, now: Instant) -> bool {
        let Some(waiting_since) = self.waiting_since else { return false };
        let most = self.event_hashes.len().max(self.coverage_hashes.len());
        let is_full = most >= self.pace.most_events || self.encoder.bytes() >= MOST_BYTES;
        let since = |at: Instant| now.saturating_duration_since(at);
        let has_paused = self.sealed_at.is_none_or(|at| since(at) >= self.pace.pause);
        is_full || has_paused && since(waiting_since) >= GATHER
    }

    /// Seals what there is; None when there is nothing. When it fails, what there is is sealed the next time.
    pub fn seal(&mut self) -> std::io::Result<Option<SealedBatch>> {
        if self.is_empty() {
            return Ok(None);
        }
        let Link { number, sequence: first_sequence, previous_hash } = self.link;
        let event_count = u32::try_from(self.event_hashes.len()).unwrap_or(u32::MAX);
        let manifest = Manifest {
            collector: self.collector,
            number,
            first_sequence,
            event_count,
            coverage_count: u32::try_from(self.coverage_hashes.len()).unwrap_or(u32::MAX),
            sealed_at: Timestamp::now(),
            content_hash: content_hash(&self.event_hashes, &self.coverage_hashes),
            previous_hash,
        };
        let batch_hash = manifest.hash();
        let bytes = self.encoder.finish(&manifest, &batch_hash, &self.key.sign(&batch_hash))?;
        let gaps = std::mem::take(&mut self.gaps);
        self.link = Link { number: number + 1, sequence: self.next_sequence(), previous_hash: batch_hash };
        self.event_hashes.clear();
        self.coverage_hashes.clear();
        self.waiting_since = None;
        self.sealed_at = Some(Instant::now());
        Ok(Some(SealedBatch { number, first_sequence, event_count, batch_hash, gaps, bytes }))
    }
}

#[cfg(test)]
mod tests {
    use whence_testkit::sample::span;

    use super::*;

    #[test]
    fn what_comes_first_after_a_quiet_time_is_sealed_almost_at_once_and_the_next_after_a_pause() {
        let mut sealer =
            Sealer::new(CollectorId(uuid::Uuid::nil()), SigningKey::generate(), Link::FIRST).unwrap();
        let ms = Duration::from_millis;
        assert!(!sealer.is_due(Instant::now() + ms(60_000)), "there is nothing");
        sealer.coverage(span());
        let began = Instant::now();
        assert!(!sealer.is_due(began) && sealer.is_due(began + ms(20)));
        sealer.seal().unwrap().unwrap();
        sealer.coverage(span());
        let sealed = sealer.sealed_at.unwrap();
        assert!(!sealer.is_due(sealed + ms(249)) && sealer.is_due(sealed + ms(270)));
        for _ in 1..8192 {
            sealer.coverage(span());
        }
        assert!(sealer.is_due(sealed), "a full one does not wait");
        sealer.adapt(3, Duration::ZERO);
        assert!(
            !sealer.is_due(sealed + ms(499)) && sealer.is_due(sealed + ms(500)),
            "a backlog is waited for"
        );
    }
}
