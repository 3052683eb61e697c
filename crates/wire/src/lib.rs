//! Batches as they travel from a collector to ingest, and as they lie in the spool: protobuf, compressed with zstd.
//!
//! The body of a request is one batch, or several that follow each other, as they are: each is a frame of zstd.
//!
//! Fields are only ever added, with new numbers: a reader ignores those it does not know, so that a newer collector
//! works with an older ingest. Values that a reader must understand (the kind of an event, say) are refused when it
//! does not. The exception is a field that
//! events are hashed with (see `whence_chain::canonical`): ingest must know it first.

mod census;
mod decode;
mod encode;
pub mod message;

pub use decode::{Limits, WireError, decode, decode_run};
pub use encode::{Encoder, encode};

use whence_chain::{Hash, Manifest, Signature};
use whence_model::{Coverage, Event};

/// `Content-Type` of a batch.
pub const CONTENT_TYPE: &str = "application/x-protobuf";
/// `Content-Encoding` of a batch.
pub const CONTENT_ENCODING: &str = "zstd";

/// A batch with its proof.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    pub manifest: Manifest,
    /// What the collector says [`Manifest::hash`] is.
    pub batch_hash: Hash,
    /// Over `batch_hash`.
    pub signature: Signature,
    pub events: Vec<Event>,
    pub coverage: Vec<Coverage>,
}
