//! From a checked batch to rows, in ClickHouse for good.

use whence_chain::Hash;
use whence_model::{BatchId, CollectorId, Timestamp};
use whence_store::GroupedBatch;
use whence_store::row::{BatchRow, CoverageRow, EventRow};
use whence_wire::Batch;

/// The rows of one batch.
pub struct Rows {
    pub batch: BatchRow,
    pub events: Vec<EventRow>,
    pub coverage: Vec<CoverageRow>,
}

/// Id of the `number`-th batch of a collector.
pub fn batch_id(collector: CollectorId, number: u64) -> BatchId {
    BatchId::derive(collector, number)
}

impl Rows {
    /// The rows of `batch`, whose events have these hashes.
    pub fn new(batch: &Batch, event_hashes: &[Hash], received_at: Timestamp) -> Self {
        let manifest = &batch.manifest;
        let id = batch_id(manifest.collector, manifest.number);
        let times = || batch.events.iter().map(|event| event.started_at);
        let events = batch.events.iter().zip(event_hashes);
        let coverage = batch.coverage.iter().zip(0_u32..);
        Self {
            batch: BatchRow {
                batch_id: id.0,
                collector_id: manifest.collector.0,
                number: manifest.number,
                first_sequence: manifest.first_sequence,
                event_count: manifest.event_count,
                coverage_count: manifest.coverage_count,
                first_started_at: times().min(),
                last_started_at: times().max(),
                sealed_at: manifest.sealed_at,
                received_at,
                content_hash: manifest.content_hash,
                previous_hash: manifest.previous_hash,
                batch_hash: batch.batch_hash,
                signature: batch.signature,
            },
            events: events.map(|(event, hash)| EventRow::new(event, id, received_at, *hash)).collect(),
            coverage: coverage
                .map(|(span, position)| CoverageRow::new(span, manifest.collector, id, position, received_at))
                .collect(),
        }
    }

    /// What is to be written of it.
    pub fn grouped(self) -> GroupedBatch {
        GroupedBatch { batch: self.batch, events: self.events, coverage: self.coverage }
    }
}
