//! The configuration that the embedded ClickHouse runs with. Its defaults as a library differ from a server's, so
//! whatever matters to an audit is set here.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::{EngineError, file_error};

/// An account of the embedded ClickHouse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Account {
    pub name: &'static str,
    grants: &'static [&'static str],
    profile: &'static str,
}

/// The accounts, each with what it needs and no more. None may read files of the host.
pub const ACCOUNTS: &[Account] = &[
    Account {
        name: "whence_migrate",
        grants: &[
            "GRANT CREATE DATABASE, CREATE TABLE, CREATE VIEW, DROP TABLE, DROP VIEW, DROP DATABASE, ALTER, SELECT, \
             INSERT, OPTIMIZE, SHOW, TRUNCATE ON whence*.*",
            "GRANT TABLE ENGINE ON *",
        ],
        profile: "default",
    },
    Account { name: "whence_ingest", grants: &["GRANT SELECT, INSERT ON whence.*"], profile: "default" },
    Account {
        name: "whence_web",
        grants: &[
            "GRANT SELECT ON whence.*",
            "GRANT INSERT ON whence.people",
            "GRANT INSERT ON whence.credentials",
            "GRANT INSERT ON whence.audit_reads",
            "GRANT INSERT ON whence.exports",
            "GRANT INSERT ON whence.service_keys",
        ],
        profile: "default",
    },
    Account { name: "auditor", grants: &["GRANT SELECT ON whence.*"], profile: "auditor" },
];

/// Writes `config.xml` and `users.xml` into `directory`; returns the path of the first.
///
/// `passwords` holds one password per account of [`ACCOUNTS`], in their order.
pub fn write(directory: &Path, data: &Path, passwords: &[String]) -> Result<PathBuf, EngineError> {
    let users = directory.join("users.xml");
    std::fs::write(&users, users_xml(passwords)).map_err(file_error(&users))?;
    restrict(&users)?;
    let config = directory.join("config.xml");
    std::fs::write(&config, config_xml(data, &users)).map_err(file_error(&config))?;
    Ok(config)
}

fn restrict(path: &Path) -> Result<(), EngineError> {
    use std::os::unix::fs::PermissionsExt;

    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(file_error(path))
}

fn config_xml(data: &Path, users: &Path) -> String {
    let data = escape(&data.display().to_string());
    let users = escape(&users.display().to_string());
    format!(
        "<clickhouse>
    <logger><level>warning</level><console_log_level>warning</console_log_level><console>true</console></logger>
    <users_config>{users}</users_config>
    <user_directories><users_xml><path>{users}</path></users_xml></user_directories>
    <tmp_path>{data}/tmp/</tmp_path>
    <listen_host>127.0.0.1</listen_host>
    <default_profile>default</default_profile>
    <timezone>UTC</timezone>
    <mark_cache_size>67108864</mark_cache_size>
    <uncompressed_cache_size>0</uncompressed_cache_size>
    <index_mark_cache_size>67108864</index_mark_cache_size>
    <max_server_memory_usage_to_ram_ratio>0.5</max_server_memory_usage_to_ram_ratio>
    <background_pool_size>2</background_pool_size>
    <background_schedule_pool_size>8</background_schedule_pool_size>
    <max_concurrent_queries>100</max_concurrent_queries>
    <merge_tree>
        <fsync_after_insert>1</fsync_after_insert>
        <fsync_part_directory>1</fsync_part_directory>
        <old_parts_lifetime>480</old_parts_lifetime>
        <number_of_free_entries_in_pool_to_execute_mutation>1</number_of_free_entries_in_pool_to_execute_mutation>
        <number_of_free_entries_in_pool_to_lower_max_size_of_merge>1</number_of_free_entries_in_pool_to_lower_max_size_of_merge>
        <number_of_free_entries_in_pool_to_execute_optimize_entire_partition>1</number_of_free_entries_in_pool_to_execute_optimize_entire_partition>
    </merge_tree>
    <query_log>
        <database>system</database>
        <table>query_log</table>
        <ttl>event_date + INTERVAL 7 DAY</ttl>
        <flush_interval_milliseconds>7500</flush_interval_milliseconds>
    </query_log>
</clickhouse>
"
    )
}

fn users_xml(passwords: &[String]) -> String {
    let mut users = String::new();
    for (account, password) in ACCOUNTS.iter().zip(passwords) {
        let hash = hex::encode(Sha256::digest(password.as_bytes()));
        let grants = format!("<query>{}</query>", account.grants.join("</query><query>"));
        let _ = write!(
            users,
            "        <{name}>
            <password_sha256_hex>{hash}</password_sha256_hex>
            <networks><ip>127.0.0.1</ip></networks>
            <profile>{profile}</profile>
            <quota>default</quota>
            <grants>{grants}</grants>
        </{name}>
",
            name = account.name,
            profile = account.profile,
        );
    }
    format!(
        "<clickhouse>
    <profiles>
        <default>
            <async_insert>0</async_insert>
            <wait_for_async_insert>1</wait_for_async_insert>
            <max_memory_usage>4000000000</max_memory_usage>
            <log_queries>1</log_queries>
        </default>
        <auditor>
            <readonly>2</readonly>
            <max_memory_usage>2000000000</max_memory_usage>
            <max_execution_time>300</max_execution_time>
        </auditor>
    </profiles>
    <quotas><default></default></quotas>
    <users>
        <!-- The engine opens its listener as this one; it can do nothing else. -->
        <default>
            <password></password>
            <networks><ip>127.0.0.1</ip></networks>
            <profile>default</profile>
            <quota>default</quota>
            <grants><query>GRANT SYSTEM LISTEN ON *.*</query><query>GRANT SELECT ON system.numbers</query></grants>
        </default>
{users}    </users>
</clickhouse>
"
    )
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
