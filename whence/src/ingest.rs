//! `whence ingest`: the receiver of batches.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use tokio::net::TcpListener;

use crate::database::ClickHouse;

#[derive(Args)]
pub struct Settings {
    /// Address that collectors send to.
    #[arg(long, env = "WHENCE_LISTEN", value_name = "ADDR", default_value = "127.0.0.1:8090")]
    listen: SocketAddr,
    /// File with the token that new collectors enrol with.
    #[arg(long, env = "WHENCE_ENROLL_TOKEN_FILE", value_name = "FILE")]
    enroll_token_file: PathBuf,
    #[command(flatten)]
    clickhouse: ClickHouse,
}

pub async fn run(settings: Settings) -> anyhow::Result<()> {
    let shutdown = whence_service::shutdown::on_signal()?;
    let token = whence_service::secret::read(&settings.enroll_token_file)?;
    let listener = listen(settings.listen).await?;
    let config = whence_ingest::IngestConfig::new(settings.clickhouse.store()?, token);
    whence_service::notify::ready();
    whence_ingest::serve(config, listener, shutdown).await
}

/// Binds `address`, with an error that names it.
pub async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))
}
