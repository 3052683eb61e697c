//! `whence collect`: the collector.

use whence_collector::privileges::{self, PrivilegesError};
pub use whence_collector::settings::Settings;

/// Gives up the rights that a collector does not need; to be called while there is one thread.
pub fn give_up_privileges(settings: &Settings) -> Result<(), PrivilegesError> {
    privileges::give_up(&[&settings.spool_dir, &settings.status_file])
}

pub async fn run(settings: Settings) -> anyhow::Result<()> {
    let shutdown = whence_service::shutdown::on_signal()?;
    whence_collector::run::run(settings, shutdown).await
}
