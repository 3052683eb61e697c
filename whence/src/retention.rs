//! `whence retention`: removes what is older than it must be kept, and declares it first.

use std::path::PathBuf;

use clap::Args;
use whence_chain::{Expired, SigningKey};
use whence_model::Timestamp;
use whence_store::{Retained, Retention, Store};

use crate::database::ClickHouse;
use crate::heads::daily;

#[derive(Args)]
pub struct Settings {
    /// Keep events and coverage for so many days, and until their month is over.
    #[arg(long, env = "WHENCE_KEEP_DAYS", value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..))]
    days: u32,
    /// Keep the batches' own rows, which prove what there was, for so many days. By default five years longer.
    #[arg(long, env = "WHENCE_KEEP_BATCH_DAYS", value_name = "DAYS")]
    batch_days: Option<u32>,
    /// Go on, and look every day. Without it, once.
    #[arg(long)]
    daily: bool,
    /// File with the key that declarations are signed with; it is made when it is not there.
    #[arg(long, env = "WHENCE_SERVICE_KEY_FILE", value_name = "FILE")]
    service_key_file: PathBuf,
    #[command(flatten)]
    clickhouse: ClickHouse,
}

pub async fn run(settings: Settings) -> anyhow::Result<()> {
    const FIVE_YEARS: u32 = 1827;

    let store = settings.clickhouse.store()?;
    let key = SigningKey::load_or_create(&settings.service_key_file)?;
    let host = nix::unistd::gethostname()?.to_string_lossy().into_owned();
    let batch_days = settings.batch_days.unwrap_or_else(|| settings.days.saturating_add(FIVE_YEARS));
    let retain = || retain(&store, &key, &host, settings.days, batch_days);
    if settings.daily {
        let shutdown = whence_service::shutdown::on_signal()?;
        whence_service::notify::ready();
        daily(&shutdown, "retention", retain).await;
        return Ok(());
    }
    let declared = retain().await?;
    println!("{declared} spans expired");
    Ok(())
}

/// Gives how many spans were declared.
async fn retain(
    store: &Store,
    key: &SigningKey,
    host: &str,
    days: u32,
    batch_days: u32,
) -> anyhow::Result<usize> {
    let retention = Retention { days, batch_days, now: Timestamp::now(), key, host };
    let Retained { declared, refused } = store.retain(retention).await?;
    for expiry in &declared {
        let what = match expiry.what {
            Expired::Contents => "contents expired",
            Expired::Batches => "batches expired",
        };
        let (first, last, events) = (expiry.first_batch, expiry.last_batch, expiry.events);
        tracing::info!(collector = %expiry.collector, first, last, events, "{what}");
    }
    anyhow::ensure!(
        refused.is_empty(),
        "what does not verify is not removed: {} findings, the first of collector {}; see `whence verify`",
        refused.len(),
        refused[0].collector
    );
    Ok(declared.len())
}
