//! The servers that are known.

use std::net::Ipv6Addr;

use clickhouse::Row;
use serde::Deserialize;
use uuid::Uuid;
use whence_model::Timestamp;

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
                FROM coverage WHERE ifNull(provider, '') != 'collector' GROUP BY instance_id
            )
            ORDER BY host, product, server_port, instance_id";
        Ok(self.ask(sql).fetch_all().await?)
    }
}
