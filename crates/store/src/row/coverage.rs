//! A row of `coverage` from and to a coverage span.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;

use clickhouse::Row;
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use whence_model::{
    BatchId, CollectorId, Coverage, CoverageState, InstanceId, LossReason, Provider, Server, Timestamp,
};

use super::{from_ipv6, parse, to_ipv6};
use crate::{StoreError, codec};

/// One stored coverage span. Fields are the columns of the table, in their order.
#[derive(Clone, Debug, PartialEq, Eq, Row, Serialize, Deserialize)]
pub struct CoverageRow {
    #[serde(with = "clickhouse::serde::uuid")]
    pub collector_id: Uuid,
    #[serde(with = "clickhouse::serde::uuid")]
    pub batch_id: Uuid,
    /// Place in its batch, from 0.
    pub position: u32,
    #[serde(with = "clickhouse::serde::uuid")]
    pub instance_id: Uuid,
    pub host: String,
    pub product: String,
    pub version: Option<String>,
    pub server_ip: Option<Ipv6Addr>,
    pub server_port: Option<u16>,
    pub server_process_id: u32,
    #[serde(with = "codec::timestamp")]
    pub server_started_at: Timestamp,
    pub container_id: Option<String>,
    pub state: String,
    pub provider: Option<String>,
    #[serde(with = "codec::timestamp")]
    pub span_from: Timestamp,
    #[serde(with = "codec::timestamp")]
    pub span_to: Timestamp,
    pub seen: u64,
    pub stored: u64,
    pub filtered: u64,
    pub filtered_by: BTreeMap<String, u64>,
    pub lost: BTreeMap<String, u64>,
    pub detail: Option<String>,
    #[serde(with = "codec::timestamp")]
    pub received_at: Timestamp,
}

impl CoverageRow {
    /// The row of `coverage`, which `collector` sent as the `position`-th span of `batch`.
    pub fn new(
        coverage: &Coverage,
        collector: CollectorId,
        batch: BatchId,
        position: u32,
        received_at: Timestamp,
    ) -> Self {
        let server = &coverage.server;
        let lost = coverage.lost.iter().map(|(reason, events)| (reason.as_str().to_owned(), *events));
        Self {
            collector_id: collector.0,
            batch_id: batch.0,
            position,
            instance_id: server.instance.0,
            host: server.host.clone(),
            product: server.product.clone(),
            version: server.version.clone(),
            server_ip: server.address.map(to_ipv6),
            server_port: server.port,
            server_process_id: server.process_id,
            server_started_at: server.process_started_at,
            container_id: server.container_id.clone(),
            state: coverage.state.as_str().into(),
            provider: coverage.provider.map(|provider| provider.as_str().into()),
            span_from: coverage.from,
            span_to: coverage.to,
            seen: coverage.seen,
            stored: coverage.stored,
            filtered: coverage.filtered,
            filtered_by: coverage.filtered_by.clone(),
            lost: lost.collect(),
            detail: coverage.detail.clone(),
            received_at,
        }
    }

    /// The span as it was received; what its hash is computed from.
    pub fn to_coverage(&self) -> Result<Coverage, StoreError> {
        let lost = self.lost.iter().map(|(reason, events)| {
            let reason = parse("lost", reason, LossReason::parse)?;
            Ok((reason, *events))
        });
        let provider = self.provider.as_deref();
        Ok(Coverage {
            server: Server {
                host: self.host.clone(),
                instance: InstanceId(self.instance_id),
                product: self.product.clone(),
                version: self.version.clone(),
                address: self.server_ip.map(from_ipv6),
                port: self.server_port,
                process_id: self.server_process_id,
                process_started_at: self.server_started_at,
                container_id: self.container_id.clone(),
            },
            state: parse("state", &self.state, CoverageState::parse)?,
            provider: provider.map(|text| parse("provider", text, Provider::parse)).transpose()?,
            from: self.span_from,
            to: self.span_to,
            seen: self.seen,
            stored: self.stored,
            filtered: self.filtered,
            filtered_by: self.filtered_by.clone(),
            lost: lost.collect::<Result<_, StoreError>>()?,
            detail: self.detail.clone(),
        })
    }
}
