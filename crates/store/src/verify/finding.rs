//! What verification says: one finding, in words that a person can act on.

use std::fmt;

use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};
use whence_model::CollectorId;

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident = $text:literal, $weight:ident;)+) => {
        /// What sort of finding it is.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Kind { $($(#[$doc])* $kind,)+ }

        impl Kind {
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$kind => $text,)+ }
            }

            /// Whether the record is not what its collectors signed. The others say what was never recorded.
            pub fn is_tampering(self) -> bool {
                match self { $(Self::$kind => kinds!(@ $weight),)+ }
            }
        }
    };
    (@ tampering) => { true };
    (@ notice) => { false };
}

kinds! {
    /// An event is not what its hash was computed from.
    EventChanged = "event_changed", tampering;
    /// A column beside the hash does not say what follows from the event.
    ColumnChanged = "column_changed", tampering;
    EventMissing = "event_missing", tampering;
    /// An event that no batch brought.
    EventInserted = "event_inserted", tampering;
    EventDuplicated = "event_duplicated", tampering;
    CoverageChanged = "coverage_changed", tampering;
    CoverageMissing = "coverage_missing", tampering;
    /// A coverage span that no batch brought.
    CoverageInserted = "coverage_inserted", tampering;
    /// Events or spans fit their own hashes and do not make the hash that was signed.
    ContentChanged = "content_changed", tampering;
    /// The batch's row is not what its hash was computed from.
    ManifestChanged = "manifest_changed", tampering;
    /// Two batches have one number.
    ManifestConflict = "manifest_conflict", tampering;
    WrongSignature = "wrong_signature", tampering;
    /// The collector has no key that could have signed.
    UnknownKey = "unknown_key", tampering;
    /// A batch is not linked to the one before it.
    BrokenLink = "broken_link", tampering;
    /// Batches are missing, and nothing that was signed after them says why.
    BatchesMissing = "batches_missing", tampering;
    /// A batch that was there once is gone; its head was kept outside.
    HeadMissing = "head_missing", tampering;
    /// Another batch is in the place of one that was there once.
    HeadChanged = "head_changed", tampering;
    /// A collector has another key than it had once.
    KeyChanged = "key_changed", tampering;
    /// A declaration that something expired was signed by no known service, or does not fit what is there.
    ExpiryForged = "expiry_forged", tampering;
    /// A stored value is none that Whence writes.
    Unreadable = "unreadable", tampering;
    /// `seen = stored + filtered + lost` does not hold, or the rules' counts do not make `filtered`.
    Unaccounted = "unaccounted", tampering;
    /// Batches are missing; their collector signed afterwards that it lost them.
    BatchesLost = "batches_lost", notice;
    /// Retention removed something, and a service signed that.
    Expired = "expired", notice;
    /// Events that were seen to happen and could not be recorded.
    EventsLost = "events_lost", notice;
    /// A time in which no collector watched a server.
    Unwatched = "unwatched", notice;
    /// Rows that came a moment ago, whose batch is not complete yet.
    Unfinished = "unfinished", notice;
    /// Rows of a batch that its collector signed to have lost: they came before it was lost, and nothing proves them.
    Unproven = "unproven", notice;
    /// Parts of a batch were written at different times.
    WrittenInParts = "written_in_parts", notice;
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.as_str().replace('_', " "))
    }
}

/// One thing that is not as it should be.
///
/// `expected` and `found` may hold stored text: whoever prints them makes them harmless for a terminal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub kind: Kind,
    pub collector: CollectorId,
    /// Number of the batch.
    pub batch: Option<u64>,
    /// Sequence number of the event.
    pub sequence: Option<u64>,
    pub expected: String,
    pub found: String,
}

impl Serialize for Finding {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_struct("Finding", 7)?;
        map.serialize_field("kind", self.kind.as_str())?;
        map.serialize_field("tampering", &self.kind.is_tampering())?;
        map.serialize_field("collector_id", &self.collector)?;
        map.serialize_field("batch", &self.batch)?;
        map.serialize_field("sequence", &self.sequence)?;
        map.serialize_field("expected", &self.expected)?;
        map.serialize_field("found", &self.found)?;
        map.end()
    }
}

/// As text: `event changed: collector … batch 3 event 17: expected …, found …`.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: collector {}", self.kind, self.collector)?;
        if let Some(batch) = self.batch {
            write!(f, " batch {batch}")?;
        }
        if let Some(sequence) = self.sequence {
            write!(f, " event {sequence}")?;
        }
        match self.expected.as_str() {
            "" => write!(f, ": {}", self.found),
            expected => write!(f, ": expected {expected}, found {}", self.found),
        }
    }
}
