//! `whence migrate`: brings the ClickHouse schema to this version.

use clap::Args;

use crate::database::ClickHouse;

#[derive(Args)]
pub struct Settings {
    #[command(flatten)]
    clickhouse: ClickHouse,
}

pub async fn run(settings: Settings) -> anyhow::Result<()> {
    settings.clickhouse.store()?.migrate().await?;
    println!("the schema is up to date");
    Ok(())
}
