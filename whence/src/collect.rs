//! `whence collect`: the collector.

pub use whence_collector::settings::Settings;

pub async fn run(settings: Settings) -> anyhow::Result<()> {
    let shutdown = whence_service::shutdown::on_signal()?;
    whence_collector::run::run(settings, shutdown).await
}
