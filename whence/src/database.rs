//! Where ClickHouse is, for every subcommand that uses it.

use std::path::PathBuf;

use clap::Args;
use secrecy::SecretString;
use whence_store::{ConnectOptions, Store};

/// How ClickHouse is reached.
#[derive(Args, Clone, Debug)]
#[expect(
    clippy::struct_field_names,
    reason = "the fields are the flags, which stand beside those of other parts"
)]
pub struct ClickHouse {
    /// HTTP address of ClickHouse, e.g. `http://127.0.0.1:8123`. Every ingest must use the same server.
    #[arg(long, env = "WHENCE_CLICKHOUSE_URL", value_name = "URL")]
    pub clickhouse_url: String,
    /// ClickHouse user.
    #[arg(long, env = "WHENCE_CLICKHOUSE_USER", value_name = "NAME", default_value = "default")]
    pub clickhouse_user: String,
    /// File with the ClickHouse user's password. Without it the password is empty.
    #[arg(long, env = "WHENCE_CLICKHOUSE_PASSWORD_FILE", value_name = "FILE")]
    pub clickhouse_password_file: Option<PathBuf>,
    /// Database that holds the audit.
    #[arg(long, env = "WHENCE_CLICKHOUSE_DATABASE", value_name = "NAME", default_value = "whence")]
    pub clickhouse_database: String,
}

impl ClickHouse {
    /// The store behind these settings. Nothing is sent yet.
    pub fn store(&self) -> anyhow::Result<Store> {
        let password = match &self.clickhouse_password_file {
            Some(path) => whence_service::secret::read(path)?,
            None => SecretString::from(""),
        };
        Ok(Store::connect(ConnectOptions {
            url: self.clickhouse_url.clone(),
            user: self.clickhouse_user.clone(),
            password,
            database: self.clickhouse_database.clone(),
        }))
    }
}
