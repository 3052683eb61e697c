//! The one place that speaks SQL to ClickHouse: migrations, the writing of batches, and typed reading.
//!
//! Audit events go in as rows made from `whence_model` types, and come out as the same types, so that their
//! hashes can be computed again from what is stored.

mod claim;
mod codec;
mod collectors;
mod error;
mod external;
mod migrate;
mod people;
mod proof;
pub mod read;
mod readiness;
mod retention;
pub mod row;
pub mod verify;
mod write;

pub use claim::{GroupedBatch, WRITER_LIFETIME, WriterId};
pub use collectors::Enrolment;
pub use error::StoreError;
pub use external::ExternalBatchRow;
pub use migrate::{MIGRATIONS, MigrateError, Migration};
pub use people::{CredentialRow, PersonRow, ReadRow};
pub use proof::{ExportRow, GapRow, Head, ServiceKeyRow};
pub use readiness::Readiness;
pub use retention::{ExpiryRow, Retained, Retention};
pub use write::Written;

use secrecy::{ExposeSecret, SecretString};
use url::{Host, Url};

/// How ClickHouse is reached.
#[derive(Clone, Debug)]
pub struct ConnectOptions {
    /// HTTP address, e.g. `http://127.0.0.1:8123`.
    pub url: String,
    pub user: String,
    pub password: SecretString,
    /// Database that holds the tables of Whence.
    pub database: String,
}

/// A handle on the audit in ClickHouse. Cheap to clone; all clones share their connections.
#[derive(Clone)]
pub struct Store {
    client: clickhouse::Client,
    database: String,
    /// Whether ClickHouse runs on this machine.
    is_near: bool,
}

impl Store {
    /// A handle for these options. Nothing is sent yet.
    pub fn connect(options: ConnectOptions) -> Self {
        let is_near = is_loopback(&options.url);
        let client = clickhouse::Client::default()
            .with_url(options.url)
            .with_user(&options.user)
            .with_password(options.password.expose_secret())
            .with_database(&options.database);
        Self { client, database: options.database, is_near }
    }

    /// Whether ClickHouse answers and knows this user.
    pub async fn ping(&self) -> Result<(), StoreError> {
        // A database that does not exist yet is no reason to fail.
        let one = self.client.clone().with_database("system").query("SELECT 1").fetch_one::<u8>();
        one.await.map(drop).map_err(StoreError::from_clickhouse)
    }

    pub(crate) fn client(&self) -> &clickhouse::Client {
        &self.client
    }
}

fn is_loopback(url: &str) -> bool {
    match Url::parse(url).ok().as_ref().and_then(Url::host) {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}
