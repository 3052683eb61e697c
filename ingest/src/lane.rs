//! What one collector has to itself in this process: its batches go through one by one, each on the ground of what is known of
//! the one before.
//!
//! A checked batch flows in, and it is stored, or has no place. What is stored of a collector is asked for once, when its first
//! batch comes (`group.rs`); from then on this process knows it, and asks ClickHouse only about what comes again or out of order.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::timeout;
use whence_model::{BatchId, CollectorId, Timestamp};
use whence_store::row::BatchRow;
use whence_store::{GroupedBatch, StoreError};

use crate::batches::Confirmed;
use crate::check::{self, Month};
use crate::group::{ANSWER_TIMEOUT, Known};
use crate::refusal::Refusal;
use crate::router::Ingest;
use crate::write;

/// A batch that finds its collector taken by another ingest is tried for so long. Then its collector sends it again.
const TRY: Duration = Duration::from_secs(10);

#[derive(Default)]
pub struct Lane {
    turn: tokio::sync::Mutex<Turn>,
    /// Number of the newest batch that was stored here.
    newest: watch::Sender<u64>,
}

/// What the batch whose turn it is goes by.
#[derive(Default)]
pub struct Turn {
    known: Option<Known>,
    pub ahead_logged: Option<Instant>,
    pub mismatch_logged: Option<Instant>,
}

/// A batch that is what its collector signed.
pub struct Checked {
    /// What is written of it.
    pub rows: Arc<GroupedBatch>,
    pub months: HashSet<Month>,
    /// So many of its coverage spans do not add up.
    pub mismatches: usize,
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

impl Place {
    /// Whether it does not follow the newest.
    fn leaps(&self) -> bool {
        matches!(self, Self::Next { missing: 1.. } | Self::Late)
    }
}

impl Ingest {
    /// Stores batches of one collector, the first of them or as many as follow it directly, and returns when ClickHouse has
    /// them. Must not be given up half way: see `Groups::write`.
    pub async fn store(&self, mut run: Vec<Checked>) -> Result<Confirmed, Refusal> {
        let Some(first) = run.first() else { return Err(Refusal::Internal(anyhow::anyhow!("an empty run"))) };
        let lane = self.lane(CollectorId(first.rows.batch.collector_id));
        let mut turn = lane.turn.lock().await;
        let began = Instant::now();
        let received_at = Timestamp::now();
        for checked in &mut run {
            write::receive(Arc::make_mut(&mut checked.rows), received_at);
        }
        let places = loop {
            match self.try_store(&mut turn, &run).await {
                Err(Refusal::StoreUnavailable(StoreError::SessionEnded | StoreError::SessionBusy))
                    if began.elapsed() < TRY => {}
                places => break places?,
            }
        };
        self.store_works();
        let mut confirmed = Confirmed { number: 0, stored: "before" };
        for (place, checked) in places.iter().zip(&run) {
            confirmed.number = checked.rows.batch.number;
            if !matches!(place, Place::Stored) {
                confirmed.stored = "new";
                self.note_oddities(checked, received_at, &mut turn);
            }
            self.count(place, checked);
        }
        lane.newest.send_if_modified(|newest| {
            let is_newer = confirmed.number > *newest;
            *newest = confirmed.number.max(*newest);
            is_newer
        });
        Ok(confirmed)
    }

    /// Waits until batch `number`, which comes in another request, is stored. Must not be waited for in a turn.
    pub async fn follow(&self, collector: CollectorId, number: u64) -> Result<(), Refusal> {
        let mut newest = self.lane(collector).newest.subscribe();
        let patience = self.config.follow_timeout;
        match timeout(patience, newest.wait_for(|newest| *newest >= number)).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(Refusal::NotFollowing { number, seconds: patience.as_secs() }),
        }
    }

    async fn try_store(&self, turn: &mut Turn, run: &[Checked]) -> Result<Vec<Place>, Refusal> {
        let batches = || run.iter().map(|checked| checked.rows.batch.clone()).collect();
        // Whatever goes wrong from here, the next batch asks anew.
        let mut known = match turn.known.take().filter(|known| self.groups.is_current(known.writer)) {
            Some(known) => known,
            None => self.groups.claim(batches()).await?,
        };
        let mut places = answered(self.places(run, &known)).await;
        if places.is_err() {
            // Another ingest may have stored more of it: only a write would have told.
            known = self.groups.claim(batches()).await?;
            places = answered(self.places(run, &known)).await;
        }
        let places = match places {
            Ok(places) => places,
            Err(refusal) => {
                turn.known = Some(known);
                return Err(refusal);
            }
        };
        let not_stored = run.iter().zip(&places).filter(|(_, place)| !matches!(place, Place::Stored));
        let mut rows: Vec<Arc<GroupedBatch>> = not_stored.map(|(checked, _)| checked.rows.clone()).collect();
        let Some(newest) = rows.last().map(|rows| rows.batch.clone()) else {
            turn.known = Some(known);
            return Ok(places);
        };
        if !known.leapt && places.iter().any(Place::leaps) {
            let collector = CollectorId(newest.collector_id);
            answered(async { Ok(self.config.store.claim_leap(known.writer, collector).await?) }).await?;
            known.leapt = true;
        }
        answered(self.leave_out_stored(&mut rows, &mut known)).await?;
        let written = run.iter().take(places.len());
        let months = written.flat_map(|checked| checked.months.iter().copied()).collect();
        let began = Instant::now();
        let written = self.groups.write(known.writer, rows, months).await;
        self.metrics.write_seconds.observe(began.elapsed().as_secs_f64());
        written?;
        if known.newest.as_ref().is_none_or(|known| known.number < newest.number) {
            known.newest = Some(newest);
        }
        turn.known = Some(known);
        Ok(places)
    }

    /// Leaves out the events that are stored although their batch is not.
    ///
    /// Only a writer before this one can have left some, of the batches behind the newest. It wrote the events of several at
    /// once, all in one month and so in one part: when there are none of a batch, there are none of those behind it.
    async fn leave_out_stored(
        &self,
        rows: &mut [Arc<GroupedBatch>],
        known: &mut Known,
    ) -> Result<(), Refusal> {
        let mut asked = std::mem::take(&mut known.stored);
        for place in 0..rows.len() {
            let Some((row, behind)) = rows.get_mut(place..).and_then(<[_]>::split_first_mut) else {
                break;
            };
            let id = BatchId(row.batch.batch_id);
            if !asked.contains_key(&id) {
                if !known.unsure && !known.leapt {
                    break;
                }
                let batches: Vec<&BatchRow> =
                    std::iter::once(&row.batch).chain(behind.iter().map(|row| &row.batch)).collect();
                let mut stored = self.config.store.stored_sequences(&batches).await?;
                let ids = batches.iter().map(|batch| batch.batch_id);
                asked.extend(ids.map(|id| (BatchId(id), stored.remove(&id).unwrap_or_default())));
            }
            let stored = asked.remove(&id).unwrap_or_default();
            if stored.is_empty() && !row.events.is_empty() {
                known.unsure = false;
            }
            if !stored.is_empty() {
                Arc::make_mut(row).events.retain(|event| !stored.contains(&event.sequence));
            }
        }
        Ok(())
    }

    /// Finds the place of the first batch, or says why it has none, and those of the batches that follow it directly.
    async fn places(&self, run: &[Checked], known: &Known) -> Result<Vec<Place>, Refusal> {
        let mut places = Vec::new();
        let (mut before, mut months) = (None::<&BatchRow>, HashSet::<Month>::new());
        for checked in run {
            let batch = &checked.rows.batch;
            let place = match (places.last(), before) {
                (None, _) => self.place(batch, known, checked.declared).await?,
                (Some(Place::Next { .. }), Some(before)) => {
                    months.extend(&checked.months);
                    let follows = before.number.checked_add(1) == Some(batch.number)
                        && check::follows(batch, Some(before), false).is_ok();
                    if !follows || months.len() > 1 {
                        break;
                    }
                    Place::Next { missing: 0 }
                }
                (Some(Place::Stored), _) => match self.place(batch, known, None).await {
                    Ok(place) if !place.leaps() => place,
                    _ => break,
                },
                _ => break,
            };
            if months.is_empty() && !matches!(place, Place::Stored) {
                months.extend(&checked.months);
            }
            before = Some(batch);
            places.push(place);
        }
        Ok(places)
    }

    /// Finds the batch's place, or says why it has none.
    async fn place(
        &self,
        batch: &BatchRow,
        known: &Known,
        declared: Option<(u64, u64)>,
    ) -> Result<Place, Refusal> {
        let number = batch.number;
        let newest = known.newest.as_ref();
        let last = newest.map_or(0, |newest| newest.number);
        if number <= last {
            return self.place_before(batch, last).await;
        }
        let missing = number - last - 1;
        if missing > 0 && declared != Some((last + 1, number - 1)) {
            let next_sequence = check::next_sequence(newest);
            return Err(Refusal::OutOfOrder {
                number,
                last,
                next: last + 1,
                before: number - 1,
                next_sequence,
            });
        }
        check::follows(batch, newest, missing > 0)?;
        Ok(Place::Next { missing })
    }

    /// The place of a batch whose number is not above that of the newest.
    async fn place_before(&self, batch: &BatchRow, last: u64) -> Result<Place, Refusal> {
        let store = &self.config.store;
        let number = batch.number;
        let beside = |number| BatchId::derive(CollectorId(batch.collector_id), number);
        if let Some(stored) = store.find_batch(BatchId(batch.batch_id)).await? {
            if stored.batch_hash == batch.batch_hash {
                return Ok(Place::Stored);
            }
            return Err(Refusal::ConflictingBatch { number, last });
        }
        // It was declared missing, and came after all: it must fit what lies beside it.
        let before = store.find_batch(beside(number - 1)).await?;
        check::follows(batch, before.as_ref(), before.is_none() && number > 1)?;
        if let Some(after) = store.find_batch(beside(number + 1)).await? {
            check::precedes(batch, &after)?;
        }
        Ok(Place::Late)
    }

    /// This collector's lane. Only collectors that enrolled get one.
    fn lane(&self, collector: CollectorId) -> Arc<Lane> {
        let mut lanes = self.lanes.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        lanes.entry(collector).or_default().clone()
    }
}

/// Waits no longer for ClickHouse than a collector's other batches can.
async fn answered<T>(question: impl Future<Output = Result<T, Refusal>>) -> Result<T, Refusal> {
    timeout(ANSWER_TIMEOUT, question).await.map_err(|_| StoreError::timed_out())?
}
