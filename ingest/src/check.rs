//! Whether a batch is what its collector sealed, and whether it fits what is stored.

use std::collections::HashSet;

use chrono::Datelike;
use whence_chain::{Hash, NO_BATCH, PublicKey, content_hash, coverage_hash, event_hash};
use whence_model::{Event, Timestamp};
use whence_store::row::BatchRow;
use whence_wire::Batch;

use crate::refusal::Refusal;

/// How far ahead of ours a collector's clock may be before it is worth a word.
const AHEAD_NS: i64 = 5 * 60 * 1_000_000_000;
/// ClickHouse takes at most this many partitions in one insert (`max_partitions_per_insert_block`).
pub const MONTHS: usize = 100;

/// A year and a month: a partition of the table of events.
pub type Month = (i32, u32);

/// Recomputes the hashes and verifies the signature. The answer is the hashes of the events, in their order, and their months.
pub fn contents(batch: &Batch, key: &PublicKey) -> Result<(Vec<Hash>, HashSet<Month>), Refusal> {
    let manifest = &batch.manifest;
    let changed = |what| Refusal::ContentsChanged { what, number: manifest.number };
    let event_hashes: Vec<Hash> = batch.events.iter().map(event_hash).collect();
    let coverage_hashes: Vec<Hash> = batch.coverage.iter().map(coverage_hash).collect();
    if content_hash(&event_hashes, &coverage_hashes) != manifest.content_hash {
        return Err(changed("content_hash"));
    }
    if manifest.hash() != batch.batch_hash {
        return Err(changed("batch_hash"));
    }
    if !key.verify(&batch.batch_hash, &batch.signature) {
        return Err(Refusal::WrongSignature);
    }
    let number = manifest.number;
    let months =
        months(&batch.events).map_err(|(found, limit)| Refusal::TooManyMonths { number, found, limit })?;
    Ok((event_hashes, months))
}

/// The months of these events. When ClickHouse can't take so many in one insert: how many there are, and how many may be.
pub fn months(events: &[Event]) -> Result<HashSet<Month>, (usize, usize)> {
    let months: HashSet<_> = events.iter().map(|event| month(event.started_at)).collect();
    if months.len() > MONTHS { Err((months.len(), MONTHS)) } else { Ok(months) }
}

fn month(at: Timestamp) -> Month {
    let at = at.to_utc();
    (at.year(), at.month())
}

/// Whether `batch` is the next after `before`, which is None when it is the first.
///
/// `missing`: the batches between the two will never come, so that hash and sequence leap.
pub fn follows(batch: &BatchRow, before: Option<&BatchRow>, missing: bool) -> Result<(), Refusal> {
    let number = batch.number;
    let next_sequence = next_sequence(before);
    let previous_hash = before.map_or(NO_BATCH, |before| before.batch_hash);
    if !missing && batch.previous_hash != previous_hash {
        let what = "the hash of the batch before it";
        let (found, expected) = (hex::encode(batch.previous_hash), hex::encode(previous_hash));
        return Err(Refusal::BrokenChain { number, what, found, expected });
    }
    let first = batch.first_sequence;
    let is_right = if missing { first >= next_sequence } else { first == next_sequence };
    if !is_right {
        let expected = if missing { format!("{next_sequence} or more") } else { next_sequence.to_string() };
        let found = first.to_string();
        return Err(Refusal::BrokenChain { number, what: "its first sequence number", found, expected });
    }
    Ok(())
}

/// Whether `batch`, which comes late, is the one that `after` was linked to.
pub fn precedes(batch: &BatchRow, after: &BatchRow) -> Result<(), Refusal> {
    let number = batch.number;
    if after.previous_hash != batch.batch_hash {
        let (found, expected) = (hex::encode(batch.batch_hash), hex::encode(after.previous_hash));
        return Err(Refusal::BrokenChain { number, what: "its own hash", found, expected });
    }
    Ok(())
}

/// The sequence number that is due behind this batch; None: at the beginning.
pub fn next_sequence(newest: Option<&BatchRow>) -> u64 {
    newest.map_or(1, BatchRow::next_sequence)
}

/// Whether the batch tells of times that have not come. Its collector's clock is wrong, or ours.
pub fn is_ahead(batch: &BatchRow, now: Timestamp) -> bool {
    let newest = batch.last_started_at.max(Some(batch.sealed_at));
    newest.is_some_and(|newest| newest.since_ns(now) > AHEAD_NS)
}
