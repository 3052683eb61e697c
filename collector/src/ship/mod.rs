//! Brings sealed batches from the spool to ingest, in their order, until each is confirmed.
//!
//! | answer | what happens |
//! | --- | --- |
//! | 200 | confirmed: dropped from the spool |
//! | no answer, 408, 429, 5xx | waits (backoff with jitter, or `Retry-After`), tries the next URL |
//! | 401 `unknown_collector` | enrols, tries again |
//! | 409 `out_of_order` | says which batches no longer exist, tries again |
//! | 403 `revoked`, 401 | waits: a person has to mend it, and nothing may be lost meanwhile |
//! | other 4xx | never accepted: to quarantine, counted |

mod client;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::Rng;
use tokio_util::sync::CancellationToken;

use crate::spool::{Spool, SpoolError, Waiting};
pub use client::{Answer, Client, ClientError, Enrolment};

const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const LONGEST_BACKOFF: Duration = Duration::from_secs(30);
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
    pub batches_shipped: prometheus_client::metrics::counter::Counter,
    pub events_shipped: prometheus_client::metrics::counter::Counter,
    pub attempts_failed: prometheus_client::metrics::counter::Counter,
    pub batches_quarantined: prometheus_client::metrics::counter::Counter,
}

impl Metrics {
    pub fn register(&self, registry: &mut prometheus_client::registry::Registry) {
        registry.register("batches_shipped", "batches that ingest confirmed", self.batches_shipped.clone());
        registry.register("events_shipped", "events that ingest confirmed", self.events_shipped.clone());
        registry.register("ship_attempts_failed", "requests to try again", self.attempts_failed.clone());
        registry.register(
            "batches_quarantined",
            "batches that ingest refused for good",
            self.batches_quarantined.clone(),
        );
    }
}

/// Ships until `shutdown`, and then, for a few seconds, what is left.
pub async fn run(
    spool: SharedSpool,
    mut client: Client,
    metrics: Metrics,
    shutdown: CancellationToken,
) -> Result<(), SpoolError> {
    let mut backoff = Backoff::default();
    let mut drain_until = None;
    loop {
        if shutdown.is_cancelled() {
            let until = *drain_until.get_or_insert_with(|| tokio::time::Instant::now() + DRAIN);
            if tokio::time::Instant::now() >= until {
                return Ok(());
            }
        }
        let oldest = lock(&spool).oldest();
        let waiting = match oldest {
            Ok(Some(waiting)) => waiting,
            Ok(None) if shutdown.is_cancelled() => return Ok(()),
            Ok(None) => {
                // Cancelled or not: the next turn of the loop decides.
                let _ = tokio::time::timeout(IDLE, shutdown.cancelled()).await;
                continue;
            }
            Err(SpoolError::Damaged { number }) => {
                tracing::error!(batch = number, "a batch in the spool became unreadable");
                lock(&spool).quarantine(number)?;
                continue;
            }
            Err(error) => return Err(error),
        };
        let pause = ship_one(&spool, &mut client, &waiting, &metrics, &mut backoff).await?;
        if let Some(pause) = pause {
            metrics.attempts_failed.inc();
            // A stopping collector does not wait for long.
            let pause = if shutdown.is_cancelled() { pause.min(IDLE) } else { pause };
            tokio::time::sleep(pause).await;
        }
    }
}

/// Sends one batch once; how long to wait before the next attempt, when one is due.
async fn ship_one(
    spool: &SharedSpool,
    client: &mut Client,
    waiting: &Waiting,
    metrics: &Metrics,
    backoff: &mut Backoff,
) -> Result<Option<Duration>, SpoolError> {
    match client.send(waiting).await {
        Answer::Confirmed => {
            lock(spool).acknowledge(waiting.number)?;
            metrics.batches_shipped.inc();
            metrics.events_shipped.inc_by(waiting.events.into());
            backoff.reset();
            Ok(None)
        }
        Answer::Later { reason, after } => {
            tracing::warn!(batch = waiting.number, reason, "ingest did not take a batch, trying again");
            client.fail_over();
            Ok(Some(backoff.next(after)))
        }
        Answer::Unknown => match client.enroll().await {
            Ok(()) => Ok(None),
            Err(error) => {
                tracing::warn!(%error, "cannot enrol, trying again");
                Ok(Some(backoff.next(None)))
            }
        },
        Answer::OutOfOrder { last } if last + 1 < waiting.number => {
            tracing::error!(from = last + 1, to = waiting.number - 1, "batches are missing for good");
            client.declare_missing(last + 1, waiting.number - 1);
            Ok(Some(backoff.next(None)))
        }
        Answer::OutOfOrder { last } => {
            tracing::error!(batch = waiting.number, last, "ingest has other batches of these numbers");
            Ok(Some(backoff.next(None)))
        }
        Answer::Never { reason } => {
            tracing::error!(
                batch = waiting.number,
                reason,
                "ingest refused a batch for good; it is in quarantine"
            );
            lock(spool).quarantine(waiting.number)?;
            metrics.batches_quarantined.inc();
            Ok(None)
        }
    }
}

/// Doubles the pause at every failure, with jitter, so that many collectors do not come at once.
struct Backoff(Duration);

impl Default for Backoff {
    fn default() -> Self {
        Self(FIRST_BACKOFF)
    }
}

impl Backoff {
    fn reset(&mut self) {
        self.0 = FIRST_BACKOFF;
    }

    fn next(&mut self, asked: Option<Duration>) -> Duration {
        let pause = asked.unwrap_or(self.0).min(LONGEST_BACKOFF);
        self.0 = (self.0 * 2).min(LONGEST_BACKOFF);
        pause.mul_f64(rand::thread_rng().gen_range(0.5..1.0))
    }
}
