//! The collector's life: everything is opened, three parts run (discover, capture, ship), and end in that order.

use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use anyhow::Context as _;
use tokio_util::sync::CancellationToken;

use crate::account::Accounts;
use crate::capture::{self, Capture, Parts};
use crate::decode::Decoder;
use crate::discover;
use crate::enroll::host_name;
use crate::identity::Identity;
use crate::metrics::{self, Metrics};
use crate::offsets::Table;
use crate::probe::{Config, ProbeError, Probes};
use crate::seal::Sealer;
use crate::settings::Settings;
use crate::ship::{self, Client, Enrolment};
use crate::spool::Spool;

/// Runs the collector until `shutdown`.
pub async fn run(settings: Settings, shutdown: CancellationToken) -> anyhow::Result<()> {
    let host = host_name(settings.host.as_deref())?;
    let listener = match settings.metrics_listen {
        Some(address) => {
            let bound = tokio::net::TcpListener::bind(address).await;
            Some(bound.with_context(|| format!("cannot serve metrics on {address}"))?)
        }
        None => None,
    };
    let table = Table::load(settings.offsets.as_deref())?;
    let (mut spool, recovery) = Spool::open(&settings.spool_dir, settings.spool_bytes)?;
    if let Some(days) = settings.spool_days {
        spool.limit_age(Duration::from_hours(24) * days);
    }
    let identity = Identity::load_or_create(&settings.spool_dir)?;
    let mut probes = Probes::load(&Config {
        ring_bytes: settings.ring_bytes,
        sql_bytes: settings.sql_bytes,
        pin_directory: Some(settings.pin_dir.clone()),
        ..Config::default()
    })
    .map_err(|error| match error {
        error @ ProbeError::Kernel(_) => error.into(),
        error => anyhow::Error::from(error).context("capturing needs root (CAP_SYS_ADMIN)"),
    })?;
    let mut ring = probes.take_ring()?.context("the ring is in use")?;
    if let Some(mark) = recovery.ring.filter(|mark| mark.ring == capture::ring_tag(&ring)) {
        ring.skip_to(mark.position);
    }
    let accounts = Accounts::open(&settings.spool_dir, ring.identity(), recovery.link.number - 1);
    let token = settings.enroll_token_file.as_deref().map(whence_service::secret::read).transpose()?;
    let enrolment = Enrolment::of(&identity, host.clone());
    let client = Client::new(&settings.ingest_url, &settings.transport, enrolment, token)?;
    let metrics = Metrics::default();
    let spool = Arc::new(Mutex::new(spool));
    let policy = Arc::new(settings.policy()?);
    probes.hold_rules(&policy)?;

    let (tell, findings) = mpsc::channel();
    let capture = Capture::new(Parts {
        host: host.clone(),
        probes,
        ring,
        decoder: Decoder::new(identity.id, recovery.link.sequence, policy.clone()),
        policy,
        sealer: Sealer::new(identity.id, identity.key, recovery.link)?,
        spool: spool.clone(),
        accounts,
        findings,
        metrics: metrics.clone(),
        status_file: settings.status_file.clone(),
        keep_probes: settings.keep_probes,
        shutdown: shutdown.clone(),
    });
    if let Some(directory) = settings.status_file.parent() {
        std::fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    }
    // A status of before says nothing of now.
    let _ = std::fs::remove_file(&settings.status_file);

    let stop_discovery = shutdown.clone();
    let discovery = std::thread::Builder::new()
        .name("discover".into())
        .spawn(move || discover::run(&host, &table, &tell, &stop_discovery))?;
    let capture = tokio::task::spawn_blocking(move || capture.run());
    let captured = CancellationToken::new();
    let shipping = tokio::spawn(ship::run(spool, client, metrics.ship.clone(), captured.clone()));
    if let Some(listener) = listener {
        let (metrics, shutdown) = (metrics.clone(), shutdown.clone());
        tokio::spawn(async move { metrics::serve(listener, &metrics, shutdown).await });
    }
    whence_service::notify::ready();

    let result = capture.await?;
    shutdown.cancel();
    whence_service::notify::stopping();
    captured.cancel();
    shipping.await?;
    if discovery.join().is_err() {
        tracing::error!("discovery failed");
    }
    Ok(result?)
}
