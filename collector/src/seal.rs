//! Gathers events and coverage spans into batches: numbered, hashed, linked to the batch before, signed, encoded.
//!
//! A sealed batch is final: the same bytes go to the spool and, however often it takes, to ingest.

use std::time::{Duration, Instant};

use whence_chain::{Hash, Manifest, SigningKey, content_hash, coverage_hash, event_hash};
use whence_model::{CollectorId, Coverage, Event, Sequence, Timestamp};
use whence_wire::Batch;

/// A batch is sealed when its first event has waited this long …
const LONGEST_WAIT: Duration = Duration::from_millis(250);
/// … or it has this many events or spans …
const MOST_EVENTS: usize = 8192;
/// … or this much text.
const MOST_BYTES: usize = 4 << 20;

/// A batch as it is kept and sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedBatch {
    pub number: u64,
    pub first_sequence: Sequence,
    pub event_count: u32,
    pub batch_hash: Hash,
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
}

impl Sealer {
    /// Goes on at `link`.
    pub fn new(collector: CollectorId, key: SigningKey, link: Link) -> Self {
        let (events, coverage) = (Vec::new(), Vec::new());
        Self { collector, key, link, events, coverage, text_bytes: 0, waiting_since: None }
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

    /// Whether the batch should be sealed now.
    pub fn is_due(&self) -> bool {
        let is_full =
            self.events.len().max(self.coverage.len()) >= MOST_EVENTS || self.text_bytes >= MOST_BYTES;
        is_full || self.waiting_since.is_some_and(|since| since.elapsed() >= LONGEST_WAIT)
    }

    /// Seals what there is; None when there is nothing.
    pub fn seal(&mut self) -> std::io::Result<Option<SealedBatch>> {
        if self.events.is_empty() && self.coverage.is_empty() {
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
        let Link { number, sequence: first_sequence, .. } = self.link;
        let sequence = first_sequence + u64::from(event_count);
        self.link = Link { number: number + 1, sequence, previous_hash: batch_hash };
        self.text_bytes = 0;
        self.waiting_since = None;
        Ok(Some(SealedBatch { number, first_sequence, event_count, batch_hash, bytes }))
    }
}
