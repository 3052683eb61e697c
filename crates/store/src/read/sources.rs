//! The servers and the collectors that are known.

use std::net::Ipv6Addr;

use clickhouse::Row;
use serde::Deserialize;
use uuid::Uuid;
use whence_model::Timestamp;

use crate::row::CollectorRow;
use crate::{Store, StoreError, codec};

/// A database server as it was last seen.
#[derive(Clone, Debug, PartialEq, Eq, Row, Deserialize)]
pub struct InstanceRow {
    #[serde(with = "clickhouse::serde::uuid")]
    pub instance_id: Uuid,
    pub host: String,
    pub product: String,
    pub version: Option<String>,
    pub server_ip: Option<Ipv6Addr>,
    pub server_port: Option<u16>,
    pub server_process_id: u32,
    pub container_id: Option<String>,
    /// `watched`, `not_running` or `unattachable`.
    pub state: String,
    pub provider: Option<String>,
    /// Why it could not be watched.
    pub detail: Option<String>,
    #[serde(with = "codec::timestamp")]
    pub first_seen: Timestamp,
    /// End of its newest coverage span.
    #[serde(with = "codec::timestamp")]
    pub last_seen: Timestamp,
}

/// A collector that sent nothing for so long is silent: it sends a batch every few seconds.
pub const SILENT_NS: i64 = 45_000_000_000;

/// Whether a collector sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CollectorState {
    Sending,
    /// Nothing came for [`SILENT_NS`], or nothing at all yet.
    Silent,
    /// Its key was taken away: what it sends is refused.
    Revoked,
}

impl CollectorState {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sending => "sending",
            Self::Silent => "silent",
            Self::Revoked => "revoked",
        }
    }
}

/// A collector and what came from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CollectorStatus {
    pub collector: CollectorRow,
    /// When its newest batch was received; none when there is none yet.
    pub last_seen: Option<Timestamp>,
    pub batches: u64,
    pub events: u64,
}

impl CollectorStatus {
    pub fn state(&self, now: Timestamp) -> CollectorState {
        match self.last_seen {
            _ if self.collector.revoked_at.is_some() => CollectorState::Revoked,
            Some(last) if now.since_ns(last) <= SILENT_NS => CollectorState::Sending,
            _ => CollectorState::Silent,
        }
    }
}

#[derive(Row, Deserialize)]
struct SentRow {
    #[serde(with = "clickhouse::serde::uuid")]
    collector_id: Uuid,
    #[serde(with = "codec::timestamp")]
    last_seen: Timestamp,
    batches: u64,
    events: u64,
}

impl Store {
    /// Every server that a collector ever found, by host.
    pub async fn instances(&self) -> Result<Vec<InstanceRow>, StoreError> {
        // A tuple, so that a null does not make argMax skip the newest span.
        let sql = "SELECT instance_id, newest.1 AS host, newest.2 AS product, newest.3 AS version,
                newest.4 AS server_ip, newest.5 AS server_port, newest.6 AS server_process_id,
                newest.7 AS container_id, newest.8 AS state, newest.9 AS provider, newest.10 AS detail, first_seen, last_seen
            FROM (
                SELECT instance_id, min(span_from) AS first_seen, max(span_to) AS last_seen,
                    argMax(tuple(host, product, version, server_ip, server_port, server_process_id, container_id,
                        state, provider, detail), (span_to, span_from)) AS newest
                FROM coverage GROUP BY instance_id
            )
            ORDER BY host, product, server_port, instance_id";
        Ok(self.ask(sql).fetch_all().await?)
    }

    /// Every collector that enrolled, with what came from it.
    pub async fn collectors(&self) -> Result<Vec<CollectorStatus>, StoreError> {
        let sql = "SELECT collector_id, max(received_at) AS last_seen, count() AS batches,
                sum(event_count) AS events
            FROM batches FINAL GROUP BY collector_id";
        let sent: Vec<SentRow> = self.ask(sql).fetch_all().await?;
        let collectors = self.list_collectors().await?.into_iter().map(|collector| {
            let sent = sent.iter().find(|sent| sent.collector_id == collector.collector_id);
            CollectorStatus {
                last_seen: sent.map(|sent| sent.last_seen),
                batches: sent.map_or(0, |sent| sent.batches),
                events: sent.map_or(0, |sent| sent.events),
                collector,
            }
        });
        Ok(collectors.collect())
    }
}
