//! Brings sealed batches from the spool to ingest, in their order, until each is confirmed. Of a backlog, several that follow
//! each other go in one request; the answers are about the first of them, but for the confirmation of all up to one.
//!
//! Of a long backlog, a second request goes out while the first is unanswered, so that ingest checks the one while ClickHouse takes
//! in the other. It counts only when it is confirmed, and the first was: else it was never sent.
//!
//! | answer | what happens |
//! | --- | --- |
//! | 200 | confirmed: dropped from the spool |
//! | no answer, 408, 429, 5xx | tries the next URL after a pause (backoff with jitter); `Retry-After` holds for its URL |
//! | 401 `unknown_collector` | enrols, tries again |
//! | 409 `out_of_order` | says which batches no longer exist, tries again |
//! | 403 `revoked`, 401 | waits: a person has to mend it, and nothing may be lost meanwhile |
//! | other 4xx | never accepted: set aside, and counted as lost once ingest says that it does not have it |

mod client;
mod shipper;
mod transport;

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use tokio_util::sync::CancellationToken;

use crate::spool::Spool;
pub use client::{Answer, Before, Client, ClientError, Enrolment};
use shipper::Shipper;
pub use transport::Transport;

const IDLE: Duration = Duration::from_millis(50);
/// How long a stopping collector goes on shipping what it has.
const DRAIN: Duration = Duration::from_secs(5);

/// The spool, shared by the thread that fills it and the task that empties it.
pub type SharedSpool = Arc<Mutex<Spool>>;

/// The spool, also when a thread panicked with it: its state on disk is consistent at every moment.
pub fn lock(spool: &SharedSpool) -> std::sync::MutexGuard<'_, Spool> {
    spool.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Counters for `/metrics`.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    pub batches_shipped: Counter,
    pub events_shipped: Counter,
    pub attempts_failed: Counter,
    pub batches_quarantined: Counter,
    /// How long ingest took for the batch that it confirmed last.
    pub answer_seconds: Gauge<f64, AtomicU64>,
    /// UTC seconds; 0: never.
    pub shipped_at_seconds: Gauge,
}

impl Metrics {
    pub fn register(&self, registry: &mut Registry) {
        registry.register("batches_shipped", "batches that ingest confirmed", self.batches_shipped.clone());
        registry.register("events_shipped", "events that ingest confirmed", self.events_shipped.clone());
        registry.register("ship_attempts_failed", "requests to try again", self.attempts_failed.clone());
        registry.register(
            "batches_quarantined",
            "batches that ingest refused for good",
            self.batches_quarantined.clone(),
        );
        registry.register(
            "shipped_at_seconds",
            "when ingest confirmed a batch last",
            self.shipped_at_seconds.clone(),
        );
        registry.register_with_unit(
            "answer",
            "time for ingest to confirm the last batch",
            Unit::Seconds,
            self.answer_seconds.clone(),
        );
    }

    /// How long ingest took for the batch that it confirmed last; nothing before the first.
    pub fn last_answer(&self) -> Duration {
        Duration::try_from_secs_f64(self.answer_seconds.get()).unwrap_or_default()
    }
}

/// Ships until `shutdown`, and then, for a few seconds, what is left.
pub async fn run(spool: SharedSpool, mut client: Client, metrics: Metrics, shutdown: CancellationToken) {
    let drained = async {
        shutdown.cancelled().await;
        tokio::time::sleep(DRAIN).await;
    };
    tokio::select! {
        () = ship(&spool, &mut client, &metrics, &shutdown) => {}
        () = drained => {}
    }
}

/// Ships until `shutdown` and nothing is left.
async fn ship(spool: &SharedSpool, client: &mut Client, metrics: &Metrics, shutdown: &CancellationToken) {
    let mut shipper = Shipper::new(spool, client, metrics);
    loop {
        let pause = match shipper.ship_oldest().await {
            Ok(Some(pause)) => pause,
            Ok(None) if shutdown.is_cancelled() => return,
            Ok(None) => IDLE,
            Err(error) => {
                // The disk is full, say. What is in the spool stays there.
                tracing::error!(%error, "the spool cannot be used, trying again");
                metrics.attempts_failed.inc();
                shipper.pause()
            }
        };
        if shutdown.is_cancelled() {
            // A stopping collector does not wait for long, but it waits.
            tokio::time::sleep(pause.min(IDLE)).await;
        } else {
            // Cancelled or not: the next turn of the loop decides.
            let _ = tokio::time::timeout(pause, shutdown.cancelled()).await;
        }
    }
}
