//! `whence enroll`: makes the collector of this host known to ingest.

pub use whence_collector::enroll::Settings;

pub async fn run(settings: &Settings) -> anyhow::Result<()> {
    println!("{}", whence_collector::enroll::run(settings).await?);
    Ok(())
}
