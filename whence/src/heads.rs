//! `whence heads`: keeps where the collectors' chains are, day by day, where ClickHouse's owner has no reach.

use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

use chrono::NaiveDate;
use clap::Args;
use secrecy::ExposeSecret;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use whence_chain::SigningKey;
use whence_model::{CollectorId, Timestamp};
use whence_proof::heads::{Added, DayHeads, Head, S3Options, Target};
use whence_store::{ReadRow, Store};

use crate::database::ClickHouse;

/// Batches that were sealed just before midnight are on their way for so long.
const SETTLED_NS: i64 = 5 * 60 * 1_000_000_000;
/// How often the clock is looked at, and how long after a failure it is tried again.
const LOOK: Duration = Duration::from_mins(1);

#[derive(Args)]
pub struct Settings {
    /// Where they are kept: a file that only grows, or `s3://BUCKET/PREFIX`, in which nothing is ever replaced.
    #[arg(long, env = "WHENCE_HEADS", value_name = "FILE|s3://…")]
    to: String,
    /// Go on, and write those of each UTC day when it is over. Without it, those of all days that are missing are
    /// written once.
    #[arg(long)]
    daily: bool,
    /// File with the key of the service, whose public half is written with the heads.
    #[arg(long, env = "WHENCE_SERVICE_KEY_FILE", value_name = "FILE")]
    service_key_file: Option<PathBuf>,
    #[command(flatten)]
    s3: Bucket,
    #[command(flatten)]
    clickhouse: ClickHouse,
}

/// How an S3-compatible bucket is reached.
#[derive(Args, Clone, Debug)]
#[expect(
    clippy::struct_field_names,
    reason = "the fields are the flags, which stand beside those of other parts"
)]
pub struct Bucket {
    /// Address of an S3-compatible service, e.g. `https://minio.example:9000`. Without it: Amazon's.
    #[arg(long, env = "WHENCE_S3_ENDPOINT", value_name = "URL")]
    s3_endpoint: Option<String>,
    /// Region of the bucket.
    #[arg(long, env = "WHENCE_S3_REGION", value_name = "NAME")]
    s3_region: Option<String>,
    /// File with the access key's id. Without it the usual AWS variables, or the machine's role.
    #[arg(long, env = "WHENCE_S3_ACCESS_KEY_FILE", value_name = "FILE", requires = "s3_secret_key_file")]
    s3_access_key_file: Option<PathBuf>,
    /// File with the secret access key.
    #[arg(long, env = "WHENCE_S3_SECRET_KEY_FILE", value_name = "FILE", requires = "s3_access_key_file")]
    s3_secret_key_file: Option<PathBuf>,
}

impl Bucket {
    pub fn options(&self) -> anyhow::Result<S3Options> {
        let secret = |path: &Option<PathBuf>| {
            let read = path.as_deref().map(whence_service::secret::read).transpose();
            read.map(|secret| secret.map(|secret| secret.expose_secret().to_owned()))
        };
        Ok(S3Options {
            endpoint: self.s3_endpoint.clone(),
            region: self.s3_region.clone(),
            access_key: secret(&self.s3_access_key_file)?,
            secret_key: secret(&self.s3_secret_key_file)?,
        })
    }
}

pub async fn run(settings: Settings) -> anyhow::Result<()> {
    let store = settings.clickhouse.store()?;
    let target = Target::open(&settings.to, &settings.s3.options()?)?;
    let key = settings.service_key_file.as_deref().map(SigningKey::load_or_create).transpose()?;
    let service_key = key.map(|key| key.public().to_string());
    let write = || write(&store, &target, service_key.as_deref());
    if settings.daily {
        let shutdown = whence_service::shutdown::on_signal()?;
        whence_service::notify::ready();
        daily(&shutdown, "heads", write).await;
        return Ok(());
    }
    let days = write().await?;
    println!("the heads of {days} days were written to {target}");
    Ok(())
}

/// Does `work` when this is called and once a UTC day has ended; again after a minute when it failed.
pub async fn daily<T, F>(shutdown: &CancellationToken, name: &str, work: impl Fn() -> F)
where
    F: Future<Output = anyhow::Result<T>>,
{
    let mut done = None;
    loop {
        let today = settled_day();
        if done != Some(today) {
            let Some(worked) = shutdown.run_until_cancelled(work()).await else { return };
            match worked {
                Ok(_) => done = Some(today),
                Err(error) => tracing::error!(error = format!("{error:#}"), "{name} failed"),
            }
        }
        // The clock may be set meanwhile, so that a sleep until midnight would be too long.
        if shutdown.run_until_cancelled(tokio::time::sleep(LOOK)).await.is_none() {
            return;
        }
    }
}

/// The day that is not over yet, for a while after midnight the one before.
fn settled_day() -> NaiveDate {
    Timestamp::now().plus_ns(-SETTLED_NS).to_utc().date_naive()
}

/// Writes the heads of all days that are over and not there; gives how many.
async fn write(store: &Store, target: &Target, service_key: Option<&str>) -> anyhow::Result<u64> {
    let from = target.last_day().await?.and_then(|day| day.succ_opt());
    let days = store.day_heads(from, settled_day()).await?;
    if days.is_empty() {
        return Ok(0);
    }
    store.record_read(&read(days.len() as u64, target)).await?;
    let mut written = 0;
    for (day, heads) in days {
        let heads = DayHeads {
            day,
            written_at: Timestamp::now(),
            version: env!("CARGO_PKG_VERSION").into(),
            service_key: service_key.map(str::to_owned),
            collectors: heads.iter().map(head).collect(),
        };
        if target.add(&heads).await? == Added::New {
            tracing::info!(%day, collectors = heads.collectors.len(), "heads written");
            written += 1;
        }
    }
    Ok(written)
}

fn head(head: &whence_store::Head) -> Head {
    let batch = &head.batch;
    Head {
        collector_id: CollectorId(batch.collector_id),
        public_key: head.public_key.map(hex::encode),
        batch: batch.number,
        batch_hash: hex::encode(batch.batch_hash),
        signature: hex::encode(batch.signature),
        sealed_at: batch.sealed_at,
        events: batch.next_sequence().saturating_sub(1),
    }
}

/// Reading the audit is audited, here too.
fn read(days: u64, target: &Target) -> ReadRow {
    ReadRow {
        at: Timestamp::now(),
        request_id: Uuid::now_v7(),
        person: crate::terminal::user(),
        address: nix::unistd::gethostname().unwrap_or_default().to_string_lossy().into_owned(),
        action: "heads".into(),
        query: format!("to={target}"),
        rows: Some(days),
        result: "ok".into(),
    }
}
