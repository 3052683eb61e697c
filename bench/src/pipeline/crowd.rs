//! Many collectors at once, each with its own key and connection: how long it takes from an event to its row.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::ensure;
use tokio::sync::Mutex;
use uuid::Uuid;
use whence_chain::SigningKey;
use whence_collector::seal::{Link, Sealer};
use whence_collector::ship::{Answer, Before, Client, Enrolment};
use whence_collector::spool::Waiting;
use whence_model::{CollectorId, Timestamp};
use whence_testkit::sample::shop_query;

use super::parts::{Parts, Usage};
use super::rate;

/// So many enrol at once.
const ENROL_AT_ONCE: usize = 32;
const RETRY: Duration = Duration::from_millis(200);
/// How often it is seen whether a batch is due, as a collector does.
const TICK: Duration = Duration::from_millis(20);

/// What came of it.
pub struct Crowd {
    pub events: u64,
    pub seconds: f64,
    pub usage: Usage,
    /// From the event to its row being there to be found, in seconds, sorted.
    pub delays: Vec<f64>,
    /// Requests that ingest asked to try again.
    pub again: u64,
}

/// Lets `collectors` send `per_second` events together, for so long.
pub async fn run(parts: &Parts, collectors: usize, per_second: f64, time: Duration) -> anyhow::Result<Crowd> {
    let mut senders = Vec::new();
    let mut enrolling = tokio::task::JoinSet::new();
    for number in 0..collectors {
        let sender = Sender::new(parts, number)?;
        enrolling.spawn(async move { sender.client.enroll().await.map(|()| sender) });
        if enrolling.len() >= ENROL_AT_ONCE
            && let Some(enrolled) = enrolling.join_next().await
        {
            senders.push(enrolled??);
        }
    }
    while let Some(enrolled) = enrolling.join_next().await {
        senders.push(enrolled??);
    }

    let (before, began) = (parts.usage()?, Instant::now());
    let each = per_second / f64::from(u32::try_from(collectors)?);
    let all = Arc::new(Mutex::new((Vec::new(), 0)));
    let mut running = tokio::task::JoinSet::new();
    for sender in senders {
        running.spawn(sender.run(each, began + time, all.clone()));
    }
    while let Some(ended) = running.join_next().await {
        ended??;
    }
    let seconds = began.elapsed().as_secs_f64();
    let usage = parts.usage()?.since(&before);
    let (mut delays, again) = std::mem::take(&mut *all.lock().await);
    delays.sort_by(f64::total_cmp);
    Ok(Crowd { events: delays.len() as u64, seconds, usage, delays, again })
}

struct Sender {
    client: Client,
    sealer: Sealer,
}

impl Sender {
    fn new(parts: &Parts, number: usize) -> anyhow::Result<Self> {
        let (id, key) = (CollectorId(Uuid::now_v7()), SigningKey::generate());
        let enrolment = Enrolment {
            collector_id: id,
            public_key: hex::encode(key.public().to_bytes()),
            host: format!("db{number}"),
        };
        let client = parts.client(enrolment)?;
        Ok(Self { client, sealer: Sealer::new(id, key, Link::FIRST)? })
    }

    /// Seals what came meanwhile when a collector would, and sends until it is confirmed.
    async fn run(
        mut self,
        per_second: f64,
        until: Instant,
        all: Arc<Mutex<(Vec<f64>, u64)>>,
    ) -> anyhow::Result<()> {
        let step = Duration::from_secs_f64(1.0 / per_second);
        // They do not come in step.
        let mut next = Instant::now() + step.mul_f64(rand::random());
        let (mut delays, mut again) = (Vec::new(), 0);
        let mut number = 0;
        while next < until {
            let mut came = Vec::new();
            tokio::time::sleep_until(next.into()).await;
            loop {
                while next <= Instant::now() {
                    let at = Timestamp::now().plus_ns(-i64::try_from(next.elapsed().as_nanos())?);
                    self.sealer.event(shop_query(number, at));
                    came.push(next);
                    number += 1;
                    next += step;
                }
                if self.sealer.is_due(Instant::now()) {
                    break;
                }
                tokio::time::sleep(TICK).await;
            }
            let Some(batch) = self.sealer.seal()? else { continue };
            let waiting = Waiting { number: batch.number, events: batch.event_count, bytes: batch.bytes };
            let began = Instant::now();
            loop {
                match self.client.send(std::slice::from_ref(&waiting), Before::Confirmed).await {
                    Answer::Confirmed { .. } => break,
                    Answer::Later { after, .. } => {
                        again += 1;
                        tokio::time::sleep(after.unwrap_or(RETRY)).await;
                    }
                    other => ensure!(false, "ingest answered {other:?}"),
                }
            }
            self.sealer.adapt(1, began.elapsed());
            delays.extend(came.into_iter().map(|at| at.elapsed().as_secs_f64()));
        }
        let mut all = all.lock().await;
        all.0.append(&mut delays);
        all.1 += again;
        Ok(())
    }
}

impl Crowd {
    /// The delay that so many of a hundred do not exceed, in seconds.
    pub fn percentile(&self, percent: usize) -> f64 {
        let place = self.delays.len() * percent / 100;
        self.delays.get(place.min(self.delays.len().saturating_sub(1))).copied().unwrap_or(0.0)
    }

    pub fn per_second(&self) -> f64 {
        rate(self.events, self.seconds)
    }
}
