//! Gathers events and coverage spans into batches: numbered, hashed, linked to the batch before, signed, encoded.
//!
//! A sealed batch is final: the same bytes go to the spool and, however often it takes, to ingest. When one is due is in
//! `pace.rs`.

use std::time::{Duration, Instant};

use whence_chain::{Hash, Manifest, SigningKey, content_hash, coverage_hash, event_hash};
use whence_model::{CollectorId, Coverage, Event, Sequence, Timestamp};
use whence_wire::Batch;

use crate::pace::Pace;
use crate::spool::ToldGap;

/// What comes so soon after a batch's first event is in it too.
const GATHER: Duration = Duration::from_millis(20);
/// With so much text a batch is full, however few events it has.
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
    /// What `whence_wire::encode` made.
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
    events: Vec<Event>,
    coverage: Vec<Coverage>,
    text_bytes: usize,
    waiting_since: Option<Instant>,
    sealed_at: Option<Instant>,
    pace: Pace,
}

impl Sealer {
    /// Goes on at `link`.
    pub fn new(collector: CollectorId, key: SigningKey, link: Link) -> Self {
        Self {
            collector,
            key,
            link,
            events: Vec::new(),
            coverage: Vec::new(),
            text_bytes: 0,
            waiting_since: None,
            sealed_at: None,
            pace: Pace::default(),
        }
    }

    /// Sequence number that the next event must have.
    pub fn next_sequence(&self) -> Sequence {
        self.link.sequence + self.events.len() as u64
    }

    /// Adds an event, which gets the next sequence number and this collector's id.
    pub fn event(&mut self, mut event: Event) {
        event.collector = self.collector;
        event.sequence = self.next_sequence();
        let sql = event.statement.as_ref().and_then(|statement| statement.sql.as_ref());
        self.text_bytes += 200 + sql.map_or(0, |sql| sql.text.len());
        self.events.push(event);
        self.waiting_since.get_or_insert_with(Instant::now);
    }

    /// Adds a coverage span.
    pub fn coverage(&mut self, span: Coverage) {
        self.text_bytes += 200;
        self.coverage.push(span);
        self.waiting_since.get_or_insert_with(Instant::now);
    }

    /// Takes in how many batches are not confirmed, and how long ingest took for the last one.
    pub fn adapt(&mut self, unconfirmed: usize, answer: Duration) {
        self.pace.adapt(unconfirmed, answer);
    }

    pub fn is_empty(&self) -> bool {
        self.events.is_empty() && self.coverage.is_empty()
    }

    /// Whether the batch should be sealed at `now`.
    pub fn is_due(&self, now: Instant) -> bool {
        let Some(waiting_since) = self.waiting_since else { return false };
        let most = self.events.len().max(self.coverage.len());
        let is_full = most >= self.pace.most_events || self.text_bytes >= MOST_BYTES;
        let since = |at: Instant| now.saturating_duration_since(at);
        let has_paused = self.sealed_at.is_none_or(|at| since(at) >= self.pace.pause);
        is_full || has_paused && since(waiting_since) >= GATHER
    }

    /// Seals what there is; None when there is nothing.
    pub fn seal(&mut self) -> std::io::Result<Option<SealedBatch>> {
        if self.is_empty() {
            return Ok(None);
        }
        let event_hashes: Vec<Hash> = self.events.iter().map(event_hash).collect();
        let coverage_hashes: Vec<Hash> = self.coverage.iter().map(coverage_hash).collect();
        let event_count = u32::try_from(self.events.len()).unwrap_or(u32::MAX);
        let manifest = Manifest {
            collector: self.collector,
            number: self.link.number,
            first_sequence: self.link.sequence,
            event_count,
            coverage_count: u32::try_from(self.coverage.len()).unwrap_or(u32::MAX),
            sealed_at: Timestamp::now(),
            content_hash: content_hash(&event_hashes, &coverage_hashes),
            previous_hash: self.link.previous_hash,
        };
        let batch_hash = manifest.hash();
        let signature = self.key.sign(&batch_hash);
        let batch = Batch {
            manifest,
            batch_hash,
            signature,
            events: std::mem::take(&mut self.events),
            coverage: std::mem::take(&mut self.coverage),
        };
        let bytes = match whence_wire::encode(&batch) {
            Ok(bytes) => bytes,
            Err(error) => {
                // Nothing is lost: it is sealed the next time.
                self.events = batch.events;
                self.coverage = batch.coverage;
                return Err(error);
            }
        };
        let gaps = batch.events.iter().filter_map(ToldGap::of).collect();
        let Link { number, sequence: first_sequence, .. } = self.link;
        let sequence = first_sequence + u64::from(event_count);
        self.link = Link { number: number + 1, sequence, previous_hash: batch_hash };
        self.text_bytes = 0;
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
        let mut sealer = Sealer::new(CollectorId(uuid::Uuid::nil()), SigningKey::generate(), Link::FIRST);
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
