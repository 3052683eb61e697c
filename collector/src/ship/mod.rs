//! Brings sealed batches from the spool to ingest, in their order, until each is confirmed.
//!
//! | answer | what happens |
//! | --- | --- |
//! | 200 | confirmed: dropped from the spool |
//! | no answer, 408, 429, 5xx | tries the next URL after a pause (backoff with jitter); `Retry-After` holds for its URL |
//! | 401 `unknown_collector` | enrols, tries again |
//! | 409 `out_of_order` | says which batches no longer exist, tries again |
//! | 403 `revoked`, 401 | waits: a person has to mend it, and nothing may be lost meanwhile |
//! | other 4xx | never accepted: to quarantine, and what it held is counted as lost |

mod client;
mod transport;

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use rand::Rng;
use tokio_util::sync::CancellationToken;
use whence_model::Timestamp;

use crate::spool::{Spool, SpoolError, Waiting};
pub use client::{Answer, Client, ClientError, Enrolment};
pub use transport::Transport;

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
    let mut backoff = Backoff::default();
    loop {
        let pause = match ship_oldest(spool, client, metrics, &mut backoff).await {
            Ok(Some(pause)) => pause,
            Ok(None) if shutdown.is_cancelled() => return,
            Ok(None) => IDLE,
            Err(error) => {
                // The disk is full, say. What is in the spool stays there.
                tracing::error!(%error, "the spool cannot be used, trying again");
                metrics.attempts_failed.inc();
                backoff.next()
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

/// Sends the oldest batch; how long to wait before the next attempt. None: there was no batch.
async fn ship_oldest(
    spool: &SharedSpool,
    client: &mut Client,
    metrics: &Metrics,
    backoff: &mut Backoff,
) -> Result<Option<Duration>, SpoolError> {
    let oldest = lock(spool).oldest();
    let waiting = match oldest {
        Ok(Some(waiting)) => waiting,
        Ok(None) => return Ok(None),
        Err(SpoolError::Damaged { number }) => {
            tracing::error!(batch = number, "a batch in the spool became unreadable");
            lock(spool).quarantine(number)?;
            metrics.batches_quarantined.inc();
            return Ok(Some(Duration::ZERO));
        }
        Err(error) => return Err(error),
    };
    let pause = ship_one(spool, client, &waiting, metrics, backoff).await?;
    if pause.is_some() {
        metrics.attempts_failed.inc();
    }
    Ok(Some(pause.unwrap_or(Duration::ZERO)))
}

/// Sends one batch once; how long to wait before the next attempt, when one is due.
async fn ship_one(
    spool: &SharedSpool,
    client: &mut Client,
    waiting: &Waiting,
    metrics: &Metrics,
    backoff: &mut Backoff,
) -> Result<Option<Duration>, SpoolError> {
    let began = Instant::now();
    match client.send(waiting).await {
        Answer::Confirmed => {
            metrics.answer_seconds.set(began.elapsed().as_secs_f64());
            lock(spool).confirm(waiting.number)?;
            metrics.batches_shipped.inc();
            metrics.shipped_at_seconds.set(Timestamp::now().0 / 1_000_000_000);
            metrics.events_shipped.inc_by(waiting.events.into());
            backoff.reset();
            Ok(None)
        }
        Answer::Later { reason, after } => {
            let (batch, url) = (waiting.number, client.url());
            tracing::warn!(batch, url, reason, "ingest did not take a batch, trying again");
            client.fail_over(after);
            Ok(Some(client.rest() + backoff.next()))
        }
        Answer::Unknown => match client.enroll().await {
            Ok(()) => Ok(None),
            Err(error) => {
                tracing::warn!(%error, "cannot enrol, trying again");
                Ok(Some(backoff.next()))
            }
        },
        Answer::OutOfOrder { last } if last + 1 < waiting.number => {
            tracing::error!(from = last + 1, to = waiting.number - 1, "batches are missing for good");
            lock(spool).declare_missing(last + 1, waiting.number - 1);
            client.declare_missing(last + 1, waiting.number - 1);
            Ok(Some(backoff.next()))
        }
        Answer::OutOfOrder { last } => {
            tracing::error!(batch = waiting.number, last, "ingest has other batches of these numbers");
            Ok(Some(backoff.next()))
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

    /// The pause before the next attempt.
    fn next(&mut self) -> Duration {
        let pause = self.0.mul_f64(rand::thread_rng().gen_range(0.5..1.0));
        self.0 = (self.0 * 2).min(LONGEST_BACKOFF);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_a_longest_and_begin_anew_after_a_success() {
        let mut backoff = Backoff::default();
        assert!((0.05..0.1).contains(&backoff.next().as_secs_f64()));
        assert!((0.1..0.2).contains(&backoff.next().as_secs_f64()));
        for _ in 0..20 {
            backoff.next();
        }
        assert!((15.0..30.0).contains(&backoff.next().as_secs_f64()));
        backoff.reset();
        assert!(backoff.next() < FIRST_BACKOFF);
    }
}
