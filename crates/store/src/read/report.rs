//! The access report: who came from where, when, how often, and what for.

use std::net::Ipv6Addr;

use clickhouse::Row;
use serde::Deserialize;
use uuid::Uuid;
use whence_model::Timestamp;

use super::{EventFilter, InstanceCoverage};
use crate::{Store, StoreError, codec};

/// The most rows that one part of a report may have; the report says when there were more.
pub const MAX_REPORT_ROWS: usize = 10_000;

/// One account from one client host on one server.
#[derive(Clone, Debug, PartialEq, Eq, Row, Deserialize)]
pub struct AccessRow {
    pub user: Option<String>,
    pub client_host: Option<String>,
    pub client_ip: Option<Ipv6Addr>,
    #[serde(with = "clickhouse::serde::uuid")]
    pub instance_id: Uuid,
    pub host: String,
    #[serde(with = "codec::timestamp")]
    pub first: Timestamp,
    #[serde(with = "codec::timestamp")]
    pub last: Timestamp,
    pub events: u64,
    /// Events that ended in an error, failed logins among them.
    pub failures: u64,
    pub connects: u64,
    pub commands: u64,
    /// Statements by class.
    pub reads: u64,
    pub writes: u64,
    pub ddl: u64,
    pub privileges: u64,
    pub transactions: u64,
    pub admin: u64,
    pub others: u64,
    pub unknown: u64,
}

/// Failed logins of one account from one client host to one server.
#[derive(Clone, Debug, PartialEq, Eq, Row, Deserialize)]
pub struct FailedLoginRow {
    /// The name given at login, or else the account.
    pub user: Option<String>,
    pub client_host: Option<String>,
    pub client_ip: Option<Ipv6Addr>,
    #[serde(with = "clickhouse::serde::uuid")]
    pub instance_id: Uuid,
    pub host: String,
    pub error_code: Option<u32>,
    #[serde(with = "codec::timestamp")]
    pub first: Timestamp,
    #[serde(with = "codec::timestamp")]
    pub last: Timestamp,
    pub attempts: u64,
}

/// Sums over everything in the report, rows that were left out included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Row, Deserialize)]
pub struct Totals {
    pub events: u64,
    pub failures: u64,
    pub failed_logins: u64,
    pub users: u64,
    pub clients: u64,
    pub instances: u64,
    /// Events of senders that sign nothing, which are among the events.
    pub unsigned: u64,
}

/// Who came from where in a window.
#[derive(Clone, Debug)]
pub struct AccessReport {
    /// Most events first.
    pub rows: Vec<AccessRow>,
    /// Most attempts first.
    pub failed_logins: Vec<FailedLoginRow>,
    pub totals: Totals,
    /// Whether more than [`MAX_REPORT_ROWS`] rows were there.
    pub cut_off: bool,
    /// What part of the window was watched, per server.
    pub coverage: Vec<InstanceCoverage>,
}

impl Store {
    /// The access report over what `scope` means.
    pub async fn access_report(&self, scope: &EventFilter) -> Result<AccessReport, StoreError> {
        let conditions = scope.conditions();
        let failed = "kind = 'connect_failed' OR ifNull(result, '') = 'error'";
        let class = |name: &str| format!("countIf(ifNull(statement_class, '') = '{name}')");
        let sql = format!(
            "SELECT user, client_host, client_ip, instance_id, any(e.host) AS host, min(started_at) AS first,
                 max(started_at) AS last, count() AS events, countIf({failed}) AS failures,
                 countIf(kind = 'connect') AS connects, countIf(kind = 'command') AS commands,
                 {} AS reads, {} AS writes, {} AS ddl, {} AS privileges, {} AS transactions, {} AS admin, {} AS others,
                 {} AS unknown
             FROM events AS e WHERE {conditions} AND kind != 'gap'
             GROUP BY user, client_host, client_ip, instance_id
             ORDER BY events DESC, last DESC, user, client_host, client_ip, instance_id LIMIT {}",
            class("read"),
            class("write"),
            class("ddl"),
            class("privileges"),
            class("transaction"),
            class("admin"),
            class("other"),
            class("unknown"),
            MAX_REPORT_ROWS + 1
        );
        let mut rows: Vec<AccessRow> = scope.bind(self.ask(&sql)).fetch_all().await?;

        let sql = format!(
            "SELECT if(isNull(login_user), e.user, login_user) AS user, client_host, client_ip, instance_id,
                 any(e.host) AS host, error_code, min(started_at) AS first, max(started_at) AS last, count() AS attempts
             FROM events AS e WHERE {conditions} AND kind = 'connect_failed'
             GROUP BY user, client_host, client_ip, instance_id, error_code
             ORDER BY attempts DESC, last DESC, user, client_host, client_ip, instance_id LIMIT {}",
            MAX_REPORT_ROWS + 1
        );
        let mut failed_logins: Vec<FailedLoginRow> = scope.bind(self.ask(&sql)).fetch_all().await?;

        let sql = format!(
            "SELECT count() AS events, countIf({failed}) AS failures, countIf(kind = 'connect_failed') AS failed_logins,
                 uniqExact(user) AS users, uniqExact(client_host, client_ip) AS clients,
                 uniqExact(instance_id) AS instances, countIf(provider = 'external') AS unsigned
             FROM events WHERE {conditions} AND kind != 'gap'"
        );
        let totals = scope.bind(self.ask(&sql)).fetch_one().await?;
        let cut_off = rows.len() > MAX_REPORT_ROWS || failed_logins.len() > MAX_REPORT_ROWS;
        rows.truncate(MAX_REPORT_ROWS);
        failed_logins.truncate(MAX_REPORT_ROWS);
        let mut coverage = self.coverage(scope.window, scope.instance).await?;
        coverage.retain(|instance| scope.host.as_ref().is_none_or(|host| *host == instance.host));
        Ok(AccessReport { rows, failed_logins, totals, cut_off, coverage })
    }
}
