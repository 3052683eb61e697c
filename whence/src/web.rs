//! `whence web`: the pages and the API.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use whence_chain::SigningKey;

use crate::database::ClickHouse;

#[derive(Args)]
pub struct Settings {
    /// Address that the pages and the API are served on.
    #[arg(long, env = "WHENCE_LISTEN", value_name = "ADDR", default_value = "127.0.0.1:8088")]
    listen: SocketAddr,
    /// File with the key that exports are signed with; it is made when it is not there. Without it a new key is made at
    /// each start.
    #[arg(long, env = "WHENCE_SERVICE_KEY_FILE", value_name = "FILE")]
    service_key_file: Option<PathBuf>,
    #[command(flatten)]
    clickhouse: ClickHouse,
}

pub async fn run(settings: Settings) -> anyhow::Result<()> {
    let shutdown = whence_service::shutdown::on_signal()?;
    let mut config = whence_web::WebConfig::default();
    if let Some(path) = &settings.service_key_file {
        config.signing_key = Arc::new(SigningKey::load_or_create(path)?);
    } else {
        tracing::warn!("exports are signed with a key that ends with this process: set --service-key-file");
    }
    let store = settings.clickhouse.store()?;
    let listener = crate::ingest::listen(settings.listen).await?;
    whence_service::notify::ready();
    whence_web::serve(config, store, listener, shutdown).await
}
