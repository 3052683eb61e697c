//! Daily heads: where each collector's chain was at the end of a UTC day, kept where ClickHouse's owner has no reach.
//! With them, a history that was rewritten as a whole, with new keys, is found.

mod target;

pub use target::{Added, S3Options, Target, TargetError};

use chrono::NaiveDate;
use serde::{Deserialize, Serialize};
use whence_model::{CollectorId, Timestamp};

/// The heads of a day: one JSON line, or one object in a bucket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DayHeads {
    /// The UTC day at whose end the chains were so.
    pub day: NaiveDate,
    pub written_at: Timestamp,
    /// Version of Whence.
    pub version: String,
    /// Key of the services that sign exports and declare what expired, in 64 hexadecimal digits.
    pub service_key: Option<String>,
    pub collectors: Vec<Head>,
}

/// The last batch of a collector that was sealed before the end of the day, whenever that was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    pub collector_id: CollectorId,
    /// The collector's key, in 64 hexadecimal digits.
    pub public_key: Option<String>,
    /// Number of the batch.
    pub batch: u64,
    /// 64 hexadecimal digits.
    pub batch_hash: String,
    /// The collector's signature over it, 128 hexadecimal digits.
    pub signature: String,
    pub sealed_at: Timestamp,
    /// Events of the collector so far: the sequence number of the last.
    pub events: u64,
}
