//! Brings sealed batches from the spool to ingest, in their order, until each is confirmed. Of a backlog, several that follow
//! each other go in one request; the answers are about the first of them, but for the confirmation of all up to one.
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
/// Most batches of one request, …
const MOST_BATCHES: usize = 16;
/// … and most events behind its first batch: as many as ClickHouse takes in at once without growing slower.
const MOST_EVENTS: u32 = 65_536;
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
    let mut shipper = Shipper { spool, client, metrics, backoff: Backoff::default(), one_by_one: false };
    loop {
        let pause = match shipper.ship_oldest().await {
            Ok(Some(pause)) => pause,
            Ok(None) if shutdown.is_cancelled() => return,
            Ok(None) => IDLE,
            Err(error) => {
                // The disk is full, say. What is in the spool stays there.
                tracing::error!(%error, "the spool cannot be used, trying again");
                metrics.attempts_failed.inc();
                shipper.backoff.next()
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

struct Shipper<'a> {
    spool: &'a SharedSpool,
    client: &'a mut Client,
    metrics: &'a Metrics,
    backoff: Backoff,
    /// Several at once were refused: which of them it is about is known when the first is sent by itself.
    one_by_one: bool,
}

impl Shipper<'_> {
    /// Sends the oldest batches; how long to wait before the next attempt. None: there was no batch.
    async fn ship_oldest(&mut self) -> Result<Option<Duration>, SpoolError> {
        let most = if self.one_by_one { 1 } else { MOST_BATCHES };
        let oldest = lock(self.spool).oldest_run(most, MOST_EVENTS);
        let run = match oldest {
            Ok(run) => run,
            Err(SpoolError::Damaged { number }) => {
                tracing::error!(batch = number, "a batch in the spool became unreadable");
                lock(self.spool).set_aside(number)?;
                return Ok(Some(Duration::ZERO));
            }
            Err(error) => return Err(error),
        };
        let Some(first) = run.first().map(|first| first.number) else { return Ok(None) };
        let pause = self.ship_run(first, &run).await?;
        if pause.is_some() {
            self.metrics.attempts_failed.inc();
        }
        Ok(Some(pause.unwrap_or(Duration::ZERO)))
    }

    /// Sends batches once, the first of which is number `first`; how long to wait before the next attempt, when one is due.
    async fn ship_run(&mut self, first: u64, run: &[Waiting]) -> Result<Option<Duration>, SpoolError> {
        let began = Instant::now();
        match self.client.send(run).await {
            Answer::Confirmed { through } => {
                self.metrics.answer_seconds.set(began.elapsed().as_secs_f64());
                lock(self.spool).confirm(through)?;
                let confirmed = run.iter().filter(|waiting| waiting.number <= through);
                for waiting in confirmed {
                    self.metrics.batches_shipped.inc();
                    self.metrics.events_shipped.inc_by(waiting.events.into());
                }
                self.metrics.shipped_at_seconds.set(Timestamp::now().0 / 1_000_000_000);
                self.backoff.reset();
                self.one_by_one = false;
                Ok(None)
            }
            Answer::Later { reason, after } => {
                let url = self.client.url();
                tracing::warn!(batch = first, url, reason, "ingest did not take a batch, trying again");
                self.client.fail_over(after);
                Ok(Some(self.client.rest() + self.backoff.next()))
            }
            Answer::Unknown => match self.client.enroll().await {
                Ok(()) => Ok(None),
                Err(error) => {
                    tracing::warn!(%error, "cannot enrol, trying again");
                    Ok(Some(self.backoff.next()))
                }
            },
            Answer::OutOfOrder { last, next_sequence } if last + 1 < first => {
                tracing::error!(from = last + 1, to = first - 1, "batches are missing for good");
                lock(self.spool).declare_missing(last + 1, first - 1, next_sequence);
                self.client.declare_missing(last + 1, first - 1);
                Ok(Some(self.backoff.next()))
            }
            Answer::OutOfOrder { last, .. } => {
                tracing::error!(batch = first, last, "ingest has other batches of these numbers");
                Ok(Some(self.backoff.next()))
            }
            Answer::Never { .. } if run.len() > 1 => {
                self.one_by_one = true;
                Ok(None)
            }
            Answer::Never { reason } => {
                tracing::error!(
                    batch = first,
                    reason,
                    "ingest refused a batch for good; it is in quarantine"
                );
                lock(self.spool).set_aside(first)?;
                self.metrics.batches_quarantined.inc();
                self.one_by_one = false;
                Ok(None)
            }
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
