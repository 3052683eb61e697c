//! A batch's row: whether it is what the collector signed.

use whence_chain::{Hash, Manifest, PublicKey};
use whence_model::{BatchId, CollectorId, Timestamp};

use super::{Finding, Kind};
use crate::row::BatchRow;

/// A batch by its number, before its contents are looked at.
#[derive(Clone, Debug)]
pub struct Sealed {
    pub row: BatchRow,
    /// The hash that follows from the row.
    pub hash: Hash,
    /// When its row was written; more than once when two ingest servers had the batch at the same time.
    pub received_at: Vec<Timestamp>,
    /// What is wrong with it, when something is.
    pub finding: Option<Finding>,
}

impl Sealed {
    /// The batch that `rows`, which are all rows of one number, hold.
    pub fn new(rows: &[BatchRow], key: Option<&PublicKey>) -> Option<Self> {
        let proven = rows.iter().find(|row| check(row, key).is_none());
        let row = proven.or(rows.first())?.clone();
        let mut finding = check(&row, key);
        let other =
            rows.iter().find(|other| BatchRow { received_at: row.received_at, ..(*other).clone() } != row);
        if let Some(other) = other {
            let (expected, found) = ("one batch of this number".into(), differences(&row, other));
            finding = Some(finding_of(&row, Kind::ManifestConflict, expected, found));
        }
        let received_at = rows.iter().map(|row| row.received_at).collect();
        Some(Self { hash: manifest(&row).hash(), row, received_at, finding })
    }

    /// Notes a finding, unless there is one.
    pub fn find(&mut self, kind: Kind, sequence: Option<u64>, expected: String, found: String) {
        if self.finding.is_none() {
            self.finding = Some(Finding { sequence, ..finding_of(&self.row, kind, expected, found) });
        }
    }
}

fn finding_of(row: &BatchRow, kind: Kind, expected: String, found: String) -> Finding {
    let collector = CollectorId(row.collector_id);
    Finding { kind, collector, batch: Some(row.number), sequence: None, expected, found }
}

fn manifest(row: &BatchRow) -> Manifest {
    Manifest {
        collector: CollectorId(row.collector_id),
        number: row.number,
        first_sequence: row.first_sequence,
        event_count: row.event_count,
        coverage_count: row.coverage_count,
        sealed_at: row.sealed_at,
        content_hash: row.content_hash,
        previous_hash: row.previous_hash,
    }
}

fn check(row: &BatchRow, key: Option<&PublicKey>) -> Option<Finding> {
    let hash = manifest(row).hash();
    if hash != row.batch_hash {
        let (expected, found) = (hex::encode(row.batch_hash), hex::encode(hash));
        let (expected, found) =
            (format!("a row that makes batch_hash {expected}"), format!("one that makes {found}"));
        return Some(finding_of(row, Kind::ManifestChanged, expected, found));
    }
    let id = BatchId::derive(CollectorId(row.collector_id), row.number).0;
    if row.batch_id != id {
        let (expected, found) = (format!("batch_id {id}"), row.batch_id.to_string());
        return Some(finding_of(row, Kind::ManifestChanged, expected, found));
    }
    let Some(key) = key else {
        let expected = "a collector that enrolled".into();
        return Some(finding_of(row, Kind::UnknownKey, expected, "no usable key of it".into()));
    };
    if !key.verify(&row.batch_hash, &row.signature) {
        let expected = format!("a signature by the enrolled key {}", hex::encode(key.to_bytes()));
        return Some(finding_of(row, Kind::WrongSignature, expected, hex::encode(row.signature)));
    }
    None
}

/// Names the columns in which two rows of one number differ.
fn differences(one: &BatchRow, other: &BatchRow) -> String {
    let columns = [
        ("batch_id", one.batch_id != other.batch_id),
        ("first_sequence", one.first_sequence != other.first_sequence),
        ("event_count", one.event_count != other.event_count),
        ("coverage_count", one.coverage_count != other.coverage_count),
        ("first_started_at", one.first_started_at != other.first_started_at),
        ("last_started_at", one.last_started_at != other.last_started_at),
        ("sealed_at", one.sealed_at != other.sealed_at),
        ("content_hash", one.content_hash != other.content_hash),
        ("previous_hash", one.previous_hash != other.previous_hash),
        ("batch_hash", one.batch_hash != other.batch_hash),
        ("signature", one.signature != other.signature),
    ];
    let names: Vec<&str> = columns.iter().filter(|(_, differs)| *differs).map(|(name, _)| *name).collect();
    format!("two that differ in {}", names.join(", "))
}
