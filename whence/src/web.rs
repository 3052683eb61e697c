//! `whence web`: the pages and the API.

use std::net::SocketAddr;

use clap::Args;

use crate::database::ClickHouse;

#[derive(Args)]
pub struct Settings {
    /// Address that the pages and the API are served on.
    #[arg(long, env = "WHENCE_LISTEN", value_name = "ADDR", default_value = "127.0.0.1:8088")]
    listen: SocketAddr,
    #[command(flatten)]
    clickhouse: ClickHouse,
}

pub async fn run(settings: Settings) -> anyhow::Result<()> {
    let shutdown = whence_service::shutdown::on_signal()?;
    let store = settings.clickhouse.store()?;
    let listener = crate::ingest::listen(settings.listen).await?;
    whence_service::notify::ready();
    whence_web::serve(whence_web::WebConfig::default(), store, listener, shutdown).await
}
