//! Identifiers. Every one is a newtype, so that a batch id cannot stand where an event id is meant.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha1::{Digest as _, Sha1};
use uuid::Uuid;

/// The text was not the identifier it should be.
#[derive(Debug, thiserror::Error)]
#[error("{text:?} is not a {what}; it is a UUID such as 0198c0de-0000-7000-8000-000000000000")]
pub struct InvalidId {
    what: &'static str,
    text: String,
}

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                let id = Uuid::parse_str(text);
                id.map(Self).map_err(|_| InvalidId { what: $what, text: text.chars().take(64).collect() })
            }
        }
    };
}

uuid_id!(
    /// One collector: made at its first start and kept with its spool.
    CollectorId,
    "collector id"
);
uuid_id!(
    /// One sealed batch, derived from its collector and first sequence number.
    BatchId,
    "batch id"
);
uuid_id!(
    /// One audit event, derived from its collector and sequence number.
    EventId,
    "event id"
);
uuid_id!(
    /// One database server across its restarts, derived from host, address, port and data directory.
    InstanceId,
    "instance id"
);

/// Number of an event within its collector. Starts at 1, grows by 1, is never reused.
pub type Sequence = u64;

impl EventId {
    /// The id of event `sequence` of `collector`: a version 5 UUID (RFC 9562) in the collector's namespace.
    pub fn derive(collector: CollectorId, sequence: Sequence) -> Self {
        Self(derive(collector.0, b"event", &sequence.to_be_bytes()))
    }
}

impl BatchId {
    /// The id of the batch of `collector` that begins with `first_sequence` as the `number`-th batch.
    pub fn derive(collector: CollectorId, number: u64) -> Self {
        Self(derive(collector.0, b"batch", &number.to_be_bytes()))
    }
}

impl InstanceId {
    /// The id of the server on host `host` that serves `address` from `data_directory`.
    ///
    /// `address` is `ip:port`, or the socket's path where the server does not listen on TCP.
    pub fn derive(host: &str, address: &str, data_directory: &str) -> Self {
        let name = format!("{host}\0{address}\0{data_directory}");
        Self(derive(Uuid::NAMESPACE_URL, b"whence-instance", name.as_bytes()))
    }

    /// What the life of the collector on `host` is filed under, and gaps that belong to no server.
    pub fn of_collector(host: &str) -> Self {
        Self::derive(host, "", "collector")
    }
}

/// A version 5 UUID; the crate `uuid` makes it without the processor's instructions for SHA-1.
fn derive(namespace: Uuid, what: &[u8], name: &[u8]) -> Uuid {
    let hash = Sha1::digest([namespace.as_bytes(), what, b"\0", name].concat());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash[..16]);
    uuid::Builder::from_sha1_bytes(bytes).into_uuid()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_uuids_of_version_5() {
        let collector = CollectorId(Uuid::from_u128(0x0198_c0de));
        let expected = Uuid::new_v5(&collector.0, b"event\0\0\0\0\0\0\0\0\x07");
        assert_eq!(EventId::derive(collector, 7).0, expected);
        let expected = Uuid::new_v5(&Uuid::NAMESPACE_URL, b"whence-instance\0db1\x00127.0.0.1:3306\0/data");
        assert_eq!(InstanceId::derive("db1", "127.0.0.1:3306", "/data").0, expected);
    }
}
