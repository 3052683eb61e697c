//! From a batch to its rows, which go into ClickHouse for good.

use whence_chain::Hash;
use whence_model::{BatchId, Timestamp};
use whence_store::GroupedBatch;
use whence_store::row::{BatchRow, CoverageRow, EventRow};
use whence_wire::Batch;

/// The rows of `batch`, whose events have these hashes. They are not received yet: see [`receive`].
pub fn rows(batch: Batch, event_hashes: Vec<Hash>) -> GroupedBatch {
    let manifest = batch.manifest;
    let id = BatchId::derive(manifest.collector, manifest.number);
    let received_at = Timestamp(0);
    let times = || batch.events.iter().map(|event| event.started_at);
    let (first_started_at, last_started_at) = (times().min(), times().max());
    let events = batch.events.into_iter().zip(event_hashes);
    let coverage = batch.coverage.iter().zip(0_u32..);
    GroupedBatch {
        batch: BatchRow {
            batch_id: id.0,
            collector_id: manifest.collector.0,
            number: manifest.number,
            first_sequence: manifest.first_sequence,
            event_count: manifest.event_count,
            coverage_count: manifest.coverage_count,
            first_started_at,
            last_started_at,
            sealed_at: manifest.sealed_at,
            received_at,
            content_hash: manifest.content_hash,
            previous_hash: manifest.previous_hash,
            batch_hash: batch.batch_hash,
            signature: batch.signature,
        },
        events: events.map(|(event, hash)| EventRow::from_event(event, id, received_at, hash)).collect(),
        coverage: coverage
            .map(|(span, position)| CoverageRow::new(span, manifest.collector, id, position, received_at))
            .collect(),
    }
}

/// Notes in all rows when they were received: when it was their turn to be stored.
pub fn receive(rows: &mut GroupedBatch, at: Timestamp) {
    rows.batch.received_at = at;
    rows.events.iter_mut().for_each(|row| row.received_at = at);
    rows.coverage.iter_mut().for_each(|row| row.received_at = at);
}
