//! The rows of the tables of `migrations/0001_audit.sql`, and their way from and to the model.

mod coverage;
mod event;
mod view;

pub use coverage::CoverageRow;
pub use event::EventRow;
pub use view::{EventView, FIELD_NAMES};

use std::net::{IpAddr, Ipv6Addr};

use clickhouse::Row;
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use whence_model::Timestamp;

use crate::StoreError;
use crate::codec;

/// One accepted batch: what its collector signed.
#[derive(Clone, Debug, PartialEq, Eq, Row, Serialize, Deserialize)]
pub struct BatchRow {
    #[serde(with = "clickhouse::serde::uuid")]
    pub batch_id: Uuid,
    #[serde(with = "clickhouse::serde::uuid")]
    pub collector_id: Uuid,
    /// 1, 2, 3 … within the collector.
    pub number: u64,
    pub first_sequence: u64,
    pub event_count: u32,
    pub coverage_count: u32,
    #[serde(with = "codec::timestamp::option")]
    pub first_started_at: Option<Timestamp>,
    #[serde(with = "codec::timestamp::option")]
    pub last_started_at: Option<Timestamp>,
    #[serde(with = "codec::timestamp")]
    pub sealed_at: Timestamp,
    #[serde(with = "codec::timestamp")]
    pub received_at: Timestamp,
    #[serde(with = "codec::fixed")]
    pub content_hash: [u8; 32],
    #[serde(with = "codec::fixed")]
    pub previous_hash: [u8; 32],
    #[serde(with = "codec::fixed")]
    pub batch_hash: [u8; 32],
    #[serde(with = "codec::fixed")]
    pub signature: [u8; 64],
}

impl BatchRow {
    /// The sequence number behind its last event.
    pub fn next_sequence(&self) -> u64 {
        self.first_sequence.saturating_add(self.event_count.into())
    }
}

/// One collector that may send.
#[derive(Clone, Debug, PartialEq, Eq, Row, Serialize, Deserialize)]
pub struct CollectorRow {
    #[serde(with = "clickhouse::serde::uuid")]
    pub collector_id: Uuid,
    pub host: String,
    /// Ed25519.
    #[serde(with = "codec::fixed")]
    pub public_key: [u8; 32],
    #[serde(with = "codec::timestamp")]
    pub enrolled_at: Timestamp,
    #[serde(with = "codec::timestamp::option")]
    pub revoked_at: Option<Timestamp>,
    #[serde(with = "codec::timestamp")]
    pub changed_at: Timestamp,
}

/// ClickHouse keeps every address as IPv6; an IPv4 address is mapped.
pub(crate) fn to_ipv6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}

/// The address as it was: a mapped IPv4 address is an IPv4 address.
pub(crate) fn from_ipv6(address: Ipv6Addr) -> IpAddr {
    IpAddr::V6(address).to_canonical()
}

/// The named value that a column holds.
pub(crate) fn parse<T>(
    what: &'static str,
    text: &str,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<T, StoreError> {
    parse(text).ok_or_else(|| StoreError::Corrupt { what, value: text.chars().take(100).collect() })
}
