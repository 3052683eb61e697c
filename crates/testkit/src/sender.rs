//! A collector whose signed batches go straight into the store, as ingest would write them.

use uuid::Uuid;
use whence_chain::{Hash, Manifest, NO_BATCH, SigningKey, content_hash, coverage_hash, event_hash};
use whence_model::{BatchId, CollectorId, Coverage, Event, Timestamp};
use whence_store::Store;
use whence_store::row::{BatchRow, CoverageRow, EventRow};

/// The rows of one signed batch.
#[derive(Clone, Debug)]
pub struct SignedBatch {
    pub batch: BatchRow,
    pub events: Vec<EventRow>,
    pub coverage: Vec<CoverageRow>,
}

/// Numbers, hashes, links and signs batches.
pub struct Sender {
    pub id: CollectorId,
    pub key: SigningKey,
    /// Number of the next batch.
    pub number: u64,
    /// Sequence number of the next event.
    pub sequence: u64,
    pub previous_hash: Hash,
}

impl Default for Sender {
    fn default() -> Self {
        Self::new(CollectorId(Uuid::now_v7()))
    }
}

impl Sender {
    /// A collector at the start of its chain, with a key of its own.
    pub fn new(id: CollectorId) -> Self {
        Self { id, key: SigningKey::generate(), number: 1, sequence: 1, previous_hash: NO_BATCH }
    }

    /// Makes its key known.
    ///
    /// # Panics
    ///
    /// When the store refuses it.
    pub async fn enroll(&self, store: &Store) {
        if let Err(error) = store.enroll_collector(self.id, "db1", self.key.public().to_bytes()).await {
            panic!("{}: {error}", self.id);
        }
    }

    /// The next batch. The events get its collector's id and the next sequence numbers.
    pub fn seal(&mut self, events: Vec<Event>, coverage: &[Coverage], sealed_at: Timestamp) -> SignedBatch {
        let number = |event: (Event, u64)| Event { collector: self.id, sequence: event.1, ..event.0 };
        let events: Vec<Event> = events.into_iter().zip(self.sequence..).map(number).collect();
        let hashes: Vec<Hash> = events.iter().map(event_hash).collect();
        let coverage_hashes: Vec<Hash> = coverage.iter().map(coverage_hash).collect();
        let manifest = Manifest {
            collector: self.id,
            number: self.number,
            first_sequence: self.sequence,
            event_count: u32::try_from(events.len()).unwrap_or(u32::MAX),
            coverage_count: u32::try_from(coverage.len()).unwrap_or(u32::MAX),
            sealed_at,
            content_hash: content_hash(&hashes, &coverage_hashes),
            previous_hash: self.previous_hash,
        };
        let batch_hash = manifest.hash();
        let id = BatchId::derive(self.id, self.number);
        let received_at = sealed_at.plus_ns(20_000_000);
        let times = || events.iter().map(|event| event.started_at);
        let batch = BatchRow {
            batch_id: id.0,
            collector_id: self.id.0,
            number: self.number,
            first_sequence: self.sequence,
            event_count: manifest.event_count,
            coverage_count: manifest.coverage_count,
            first_started_at: times().min(),
            last_started_at: times().max(),
            sealed_at,
            received_at,
            content_hash: manifest.content_hash,
            previous_hash: manifest.previous_hash,
            batch_hash,
            signature: self.key.sign(&batch_hash),
        };
        self.number += 1;
        self.sequence += events.len() as u64;
        self.previous_hash = batch_hash;
        let rows = events.iter().zip(&hashes);
        let spans = coverage.iter().zip(0..);
        SignedBatch {
            batch,
            events: rows.map(|(event, hash)| EventRow::new(event, id, received_at, *hash)).collect(),
            coverage: spans
                .map(|(span, position)| CoverageRow::new(span, self.id, id, position, received_at))
                .collect(),
        }
    }

    /// What a forger does: makes the hashes of `batch` fit these rows, and signs it with this sender's key if wanted.
    ///
    /// # Panics
    ///
    /// When a span is none that Whence writes.
    pub fn reseal(&self, batch: &mut BatchRow, events: &[EventRow], coverage: &[CoverageRow], sign: bool) {
        let hashes: Vec<Hash> = events.iter().map(|row| row.event_hash).collect();
        let hash = |row: &CoverageRow| match row.to_coverage() {
            Ok(span) => coverage_hash(&span),
            Err(error) => panic!("{error}"),
        };
        let coverage_hashes: Vec<Hash> = coverage.iter().map(hash).collect();
        batch.content_hash = content_hash(&hashes, &coverage_hashes);
        let manifest = Manifest {
            collector: CollectorId(batch.collector_id),
            number: batch.number,
            first_sequence: batch.first_sequence,
            event_count: batch.event_count,
            coverage_count: batch.coverage_count,
            sealed_at: batch.sealed_at,
            content_hash: batch.content_hash,
            previous_hash: batch.previous_hash,
        };
        batch.batch_hash = manifest.hash();
        if sign {
            batch.signature = self.key.sign(&batch.batch_hash);
        }
    }
}

impl SignedBatch {
    /// Stores it.
    ///
    /// # Panics
    ///
    /// When the store refuses it.
    pub async fn write(&self, store: &Store) {
        if let Err(error) = store.write_batch(&self.batch, &self.events, &self.coverage).await {
            panic!("batch {}: {error}", self.batch.number);
        }
    }
}
