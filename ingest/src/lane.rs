//! What one collector has to itself in this process: its batches go through one by one, each on the ground of what is known of
//! the one before.
//!
//! A checked batch flows in, and it is stored, or has no place. What is stored of a collector is asked for once, when its first
//! batch comes (`group.rs`); from then on this process knows it, and asks ClickHouse only about what comes again or out of order.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::timeout;
use whence_chain::Hash;
use whence_model::{BatchId, CollectorId, Timestamp};
use whence_store::{GroupedBatch, StoreError, Written};
use whence_wire::Batch;

use crate::check::{self, Month};
use crate::group::{ANSWER_TIMEOUT, Known};
use crate::refusal::Refusal;
use crate::router::Ingest;
use crate::write::{Rows, batch_id};

/// A batch that finds its collector taken by another ingest is tried for so long. Then its collector sends it again.
const TRY: Duration = Duration::from_secs(10);

#[derive(Default)]
pub struct Lane {
    known: Option<Known>,
    pub ahead_logged: Option<Instant>,
    pub mismatch_logged: Option<Instant>,
}

/// A batch that is what its collector signed.
pub struct Checked {
    pub batch: Batch,
    pub event_hashes: Vec<Hash>,
    pub months: HashSet<Month>,
    /// The batches that its collector declares missing, first and last.
    pub declared: Option<(u64, u64)>,
}

/// Where a batch belongs in its chain.
pub enum Place {
    /// It is stored.
    Stored,
    /// It is the next one, after so many that will never come.
    Next { missing: u64 },
    /// It had been declared missing, and fits where it was missed.
    Late,
}

impl Ingest {
    /// Stores a batch, and returns when ClickHouse has it. Must not be given up half way: see `Groups::write`.
    pub async fn store(&self, checked: Checked) -> Result<Written, Refusal> {
        let lane = self.lane(checked.batch.manifest.collector);
        let mut lane = lane.lock().await;
        let began = Instant::now();
        let received_at = Timestamp::now();
        let place = loop {
            match self.try_store(&mut lane, &checked, received_at).await {
                Err(Refusal::StoreUnavailable(StoreError::SessionEnded | StoreError::SessionBusy))
                    if began.elapsed() < TRY => {}
                place => break place?,
            }
        };
        if !matches!(place, Place::Stored) {
            self.note_oddities(&checked.batch, received_at, &mut lane);
        }
        self.store_works();
        self.count(&place, &checked.batch);
        Ok(if matches!(place, Place::Stored) { Written::Before } else { Written::New })
    }

    async fn try_store(
        &self,
        lane: &mut Lane,
        checked: &Checked,
        received_at: Timestamp,
    ) -> Result<Place, Refusal> {
        let batch = &checked.batch;
        let rows = Rows::new(batch, &checked.event_hashes, received_at);
        // Whatever goes wrong from here, the next batch asks anew.
        let mut known = match lane.known.take().filter(|known| self.groups.is_current(known.writer)) {
            Some(known) => known,
            None => self.groups.claim(rows.batch.clone()).await?,
        };
        let mut place = answered(self.place(batch, &known, checked.declared)).await;
        if place.is_err() {
            // Another ingest may have stored more of it: only a write would have told.
            known = self.groups.claim(rows.batch.clone()).await?;
            place = answered(self.place(batch, &known, checked.declared)).await;
        }
        let place = match place {
            Ok(Place::Stored) => {
                lane.known = Some(known);
                return Ok(Place::Stored);
            }
            Ok(place) => place,
            Err(refusal) => {
                lane.known = Some(known);
                return Err(refusal);
            }
        };
        if !matches!(place, Place::Next { missing: 0 }) && !known.leapt {
            answered(async {
                Ok(self.config.store.claim_leap(known.writer, batch.manifest.collector).await?)
            })
            .await?;
            known.leapt = true;
        }
        let stored = answered(self.stored_sequences(&rows, &known)).await?;
        let mut events = rows.events;
        events.retain(|event| !stored.contains(&event.sequence));
        let group = GroupedBatch { batch: rows.batch.clone(), events, coverage: rows.coverage };
        let began = Instant::now();
        let written = self.groups.write(known.writer, group, checked.months.clone()).await;
        self.metrics.write_seconds.observe(began.elapsed().as_secs_f64());
        written?;
        known.stored = None;
        if known.newest.as_ref().is_none_or(|newest| newest.number < rows.batch.number) {
            known.newest = Some(rows.batch);
        }
        lane.known = Some(known);
        Ok(place)
    }

    /// Which events of this batch are stored although it is not complete.
    ///
    /// Only a writer before this one can have left some, and as it took batches in order, only of the batch that follows the
    /// newest one: of the first that is written here.
    async fn stored_sequences(&self, rows: &Rows, known: &Known) -> Result<HashSet<u64>, Refusal> {
        let id = rows.batch.batch_id;
        match &known.stored {
            Some((asked, stored)) if *asked == BatchId(id) => Ok(stored.clone()),
            None if !known.leapt => Ok(HashSet::new()),
            _ => {
                let mut stored = self.config.store.stored_sequences(&[&rows.batch]).await?;
                Ok(stored.remove(&id).unwrap_or_default())
            }
        }
    }

    /// Finds the batch's place, or says why it has none.
    async fn place(
        &self,
        batch: &Batch,
        known: &Known,
        declared: Option<(u64, u64)>,
    ) -> Result<Place, Refusal> {
        let number = batch.manifest.number;
        let newest = known.newest.as_ref();
        let last = newest.map_or(0, |newest| newest.number);
        if number <= last {
            return self.place_before(batch, last).await;
        }
        let missing = number - last - 1;
        if missing > 0 && declared != Some((last + 1, number - 1)) {
            return Err(Refusal::OutOfOrder { number, last, next: last + 1, before: number - 1 });
        }
        check::follows(batch, newest, missing > 0)?;
        Ok(Place::Next { missing })
    }

    /// The place of a batch whose number is not above that of the newest.
    async fn place_before(&self, batch: &Batch, last: u64) -> Result<Place, Refusal> {
        let store = &self.config.store;
        let collector = batch.manifest.collector;
        let number = batch.manifest.number;
        if let Some(stored) = store.find_batch(batch_id(collector, number)).await? {
            if stored.batch_hash == batch.batch_hash {
                return Ok(Place::Stored);
            }
            return Err(Refusal::ConflictingBatch { number, last });
        }
        // It was declared missing, and came after all: it must fit what lies beside it.
        let before = store.find_batch(batch_id(collector, number - 1)).await?;
        check::follows(batch, before.as_ref(), before.is_none() && number > 1)?;
        if let Some(after) = store.find_batch(batch_id(collector, number + 1)).await? {
            check::precedes(batch, &after)?;
        }
        Ok(Place::Late)
    }

    /// This collector's lane. Only collectors that enrolled get one.
    fn lane(&self, collector: CollectorId) -> Arc<tokio::sync::Mutex<Lane>> {
        let mut lanes = self.lanes.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        lanes.entry(collector).or_default().clone()
    }
}

/// Waits no longer for ClickHouse than a collector's other batches can.
async fn answered<T>(question: impl Future<Output = Result<T, Refusal>>) -> Result<T, Refusal> {
    timeout(ANSWER_TIMEOUT, question).await.map_err(|_| StoreError::timed_out())?
}
