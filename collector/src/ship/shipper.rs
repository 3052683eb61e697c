//! One attempt after the other: batches of the spool and ingest's answers flow in; what is confirmed, missing or refused flows to
//! the spool, and out flows when to try again.

use std::time::{Duration, Instant};

use rand::Rng;
use tokio_util::task::AbortOnDropHandle;
use whence_model::Timestamp;

use super::{Answer, Before, Client, Metrics, SharedSpool, lock};
use crate::spool::{SpoolError, Waiting};

const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const LONGEST_BACKOFF: Duration = Duration::from_secs(30);
/// Most batches of one request, …
const MOST_BATCHES: usize = 16;
/// … and most events behind its first batch: as many as ClickHouse takes in at once without growing slower.
const MOST_EVENTS: u32 = 65_536;
/// So long no second request goes out after one that was not taken: behind the URL may be several ingests, of which one
/// would wait in vain for what another has.
const ONE_AT_A_TIME: Duration = Duration::from_mins(5);

pub struct Shipper<'a> {
    spool: &'a SharedSpool,
    client: &'a mut Client,
    metrics: &'a Metrics,
    backoff: Backoff,
    /// Batches that ingest is to be told of that they will never come, from one to one.
    missing: Option<(u64, u64)>,
    /// Sent while the one before was unanswered, which is confirmed by now.
    second: Option<Sent>,
    /// Until then no second request goes out.
    single_until: Option<Instant>,
    /// Several batches, or two requests, at once were not taken: the next batch goes by itself, so that its answer is about it.
    one_by_one: bool,
}

/// A request on its way. Dropped: it counts as never sent.
struct Sent {
    /// Numbers and events of its batches, at least one.
    run: Vec<(u64, u32)>,
    before: Before,
    /// Since when it is the oldest on its way.
    began: Instant,
    answer: AbortOnDropHandle<Answer>,
}

impl Sent {
    fn first(&self) -> u64 {
        self.run.first().map_or(0, |(number, _)| *number)
    }

    fn last(&self) -> u64 {
        self.run.last().map_or(0, |(number, _)| *number)
    }
}

impl<'a> Shipper<'a> {
    pub fn new(spool: &'a SharedSpool, client: &'a mut Client, metrics: &'a Metrics) -> Self {
        let backoff = Backoff::default();
        Self {
            spool,
            client,
            metrics,
            backoff,
            missing: None,
            second: None,
            single_until: None,
            one_by_one: false,
        }
    }

    /// How long to wait when the spool cannot be used.
    pub fn pause(&mut self) -> Duration {
        self.backoff.next()
    }

    /// Brings the oldest batches to ingest; how long to wait before the next attempt. None: there was no batch.
    pub async fn ship_oldest(&mut self) -> Result<Option<Duration>, SpoolError> {
        let mut sent = match self.second.take() {
            Some(second) => second,
            None => match self.send_oldest()? {
                Some(sent) => sent,
                None => return Ok(None),
            },
        };
        let second = self.send_behind(&sent);
        let answer = (&mut sent.answer).await;
        let answer = answer.unwrap_or_else(|error| Answer::Later { reason: error.to_string(), after: None });
        let pause = match answer {
            Answer::Confirmed { through } => {
                self.confirm(&sent, through)?;
                let second = second.filter(|_| through == sent.last());
                self.second = second.map(|second| Sent { began: Instant::now(), ..second });
                None
            }
            // It may be about the request before, or have overtaken it.
            _ if matches!(sent.before, Before::OnItsWay(_)) => {
                self.single_until = Some(Instant::now() + ONE_AT_A_TIME);
                self.one_by_one = true;
                None
            }
            answer => {
                drop(second);
                self.take_refusal(&sent, answer).await?
            }
        };
        if pause.is_some() {
            self.metrics.attempts_failed.inc();
        }
        Ok(Some(pause.unwrap_or(Duration::ZERO)))
    }

    fn send_oldest(&mut self) -> Result<Option<Sent>, SpoolError> {
        let most = if self.one_by_one { 1 } else { MOST_BATCHES };
        loop {
            let oldest = lock(self.spool).oldest_run(most, MOST_EVENTS);
            match oldest {
                Ok(run) if run.is_empty() => return Ok(None),
                Ok(run) => {
                    let missing = self.missing.map(|(from, to)| Before::Missing(from, to));
                    return Ok(Some(self.send(&run, missing.unwrap_or(Before::Confirmed))));
                }
                Err(SpoolError::Damaged { number }) => {
                    tracing::error!(batch = number, "a batch in the spool became unreadable");
                    lock(self.spool).set_aside(number)?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Sends what follows those that are on their way, when there is so much that more follows it.
    fn send_behind(&self, first: &Sent) -> Option<Sent> {
        let is_single = self.single_until.is_some_and(|until| Instant::now() < until);
        if is_single || self.one_by_one || self.missing.is_some() {
            return None;
        }
        let (run, waiting) = {
            let spool = lock(self.spool);
            (spool.run_behind(first.last(), MOST_BATCHES, MOST_EVENTS), spool.backlog().0)
        };
        let is_long = !run.is_empty() && waiting > first.run.len() + run.len();
        is_long.then(|| self.send(&run, Before::OnItsWay(first.last())))
    }

    fn send(&self, run: &[Waiting], before: Before) -> Sent {
        let answer = AbortOnDropHandle::new(tokio::spawn(self.client.send(run, before)));
        let run = run.iter().map(|waiting| (waiting.number, waiting.events)).collect();
        Sent { run, before, began: Instant::now(), answer }
    }

    fn confirm(&mut self, sent: &Sent, through: u64) -> Result<(), SpoolError> {
        self.metrics.answer_seconds.set(sent.began.elapsed().as_secs_f64());
        lock(self.spool).confirm(through)?;
        for (_, events) in sent.run.iter().filter(|(number, _)| *number <= through) {
            self.metrics.batches_shipped.inc();
            self.metrics.events_shipped.inc_by((*events).into());
        }
        self.metrics.shipped_at_seconds.set(Timestamp::now().0 / 1_000_000_000);
        self.backoff.reset();
        self.missing = None;
        self.one_by_one = false;
        Ok(())
    }

    /// Takes in an answer that confirms nothing; how long to wait before the next attempt, when one is due.
    async fn take_refusal(&mut self, sent: &Sent, answer: Answer) -> Result<Option<Duration>, SpoolError> {
        let first = sent.first();
        match answer {
            Answer::Confirmed { .. } => Ok(None),
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
                self.missing = Some((last + 1, first - 1));
                Ok(Some(self.backoff.next()))
            }
            Answer::OutOfOrder { last, .. } => {
                tracing::error!(batch = first, last, "ingest has other batches of these numbers");
                Ok(Some(self.backoff.next()))
            }
            Answer::Never { .. } if sent.run.len() > 1 => {
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
