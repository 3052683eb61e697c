//! `POST /v1/batches`: a batch comes in, and is acknowledged when ClickHouse has it.
//!
//! | answer | what the collector does |
//! | --- | --- |
//! | 200 | drops the batch from its spool |
//! | 408, 429, 5xx | sends it again later, maybe to another ingest |
//! | 401 `unknown_collector` | enrols, and sends it again |
//! | 401 `wrong_signature`, 403 `revoked`, 409 `conflicting_batch` | waits for a person |
//! | 409 `out_of_order` | says which batches are missing, and sends it again |
//! | 400, 413, 422 | never sends it again, and keeps it in quarantine |

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use serde::Serialize;
use whence_model::{CollectorId, Timestamp};
use whence_store::{StoreError, Written};
use whence_wire::Batch;

use crate::refusal::Refusal;
use crate::router::Ingest;
use crate::write::{Rows, batch_id};
use crate::{check, receive};

/// How often the same oddity of one collector is logged.
const REMINDER: Duration = Duration::from_mins(10);

/// What one collector has to itself in this process. Its batches go through one by one.
#[derive(Default)]
pub struct Lane {
    ahead_logged: Option<Instant>,
    mismatch_logged: Option<Instant>,
}

/// The answer to a batch that is stored.
#[derive(Serialize)]
pub struct Confirmed {
    number: u64,
    /// `new`, or `before` when it had been stored before.
    stored: &'static str,
}

/// Where a batch belongs in its chain.
enum Place {
    /// It is stored.
    Stored,
    /// It is the next one, after so many that will never come.
    Next { missing: u64 },
    /// It had been declared missing, and fits where it was missed.
    Late,
}

pub async fn receive(
    State(ingest): State<Arc<Ingest>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Confirmed>, Refusal> {
    receive::check_headers(&headers)?;
    let _admission = ingest.admit()?;
    let bytes = receive::body(&ingest.config, body, ingest.config.body_bytes).await?;
    ingest.metrics.received_bytes.inc_by(bytes.len() as u64);

    // Decompressed batches of senders that are not known yet are few at a time.
    let decoding = ingest.decoding().await?;
    let limits = ingest.config.limits;
    let batch = blocking(move || whence_wire::decode(&bytes, &limits)).await??;
    let collector = batch.manifest.collector;
    tracing::Span::current().record("collector", tracing::field::display(collector));
    let key = ingest.keys.key(&ingest.config.store, collector).await?;
    let (batch, hashes) =
        blocking(move || check::contents(&batch, &key).map(|hashes| (batch, hashes))).await??;
    drop(decoding);

    let lane = ingest.lane(collector);
    let mut lane = lane.lock().await;
    let number = batch.manifest.number;
    let place = ingest.place(&batch, receive::declared_missing(&headers)).await?;
    let written = match place {
        Place::Stored => Written::Before,
        Place::Next { .. } | Place::Late => {
            let received_at = Timestamp::now();
            ingest.note_oddities(&batch, received_at, &mut lane);
            ingest.write(Rows::new(&batch, &hashes, received_at)).await?
        }
    };
    ingest.store_works();
    ingest.count(&place, written, &batch);
    let stored = match written {
        Written::New => "new",
        Written::Before => "before",
    };
    Ok(Json(Confirmed { number, stored }))
}

/// Runs what takes the processor for long where it holds up no one else.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Refusal> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Refusal::Internal(error.into()))
}

impl Ingest {
    /// Finds the batch's place, or says why it has none.
    async fn place(&self, batch: &Batch, declared: Option<(u64, u64)>) -> Result<Place, Refusal> {
        let collector = batch.manifest.collector;
        let number = batch.manifest.number;
        let newest = self.config.store.last_batch(collector).await?;
        let last = newest.as_ref().map_or(0, |newest| newest.number);
        if number <= last {
            return self.place_before(batch, last).await;
        }
        let missing = number - last - 1;
        if missing > 0 && declared != Some((last + 1, number - 1)) {
            return Err(Refusal::OutOfOrder { number, last, next: last + 1, before: number - 1 });
        }
        check::follows(batch, newest.as_ref(), missing > 0)?;
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

    async fn write(&self, rows: Rows) -> Result<Written, Refusal> {
        let began = Instant::now();
        let written = self.config.store.write_batch(&rows.batch, &rows.events, &rows.coverage).await;
        self.metrics.write_seconds.observe(began.elapsed().as_secs_f64());
        match written {
            Ok(written) => Ok(written),
            // Another ingest was quicker with another batch of this number.
            Err(StoreError::Rejected { .. }) => {
                let number = rows.batch.number;
                Err(Refusal::ConflictingBatch { number, last: number })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// What is odd and is stored all the same, since refusing it would lose it.
    fn note_oddities(&self, batch: &Batch, now: Timestamp, lane: &mut Lane) {
        if check::is_ahead(batch, now) {
            self.metrics.batches_ahead.inc();
            if is_due(&mut lane.ahead_logged) {
                tracing::warn!(
                    sealed_at = %batch.manifest.sealed_at,
                    "a batch tells of times far ahead of this clock; set the clock of its host, or of this one"
                );
            }
        }
        let mismatches = batch.coverage.iter().filter(|span| !span.adds_up()).count();
        if mismatches > 0 {
            self.metrics.coverage_mismatches.inc_by(mismatches as u64);
            if is_due(&mut lane.mismatch_logged) {
                let number = batch.manifest.number;
                tracing::error!(
                    number,
                    mismatches,
                    "coverage spans do not add up: seen is not stored + filtered + lost"
                );
            }
        }
    }

    fn count(&self, place: &Place, written: Written, batch: &Batch) {
        let metrics = &self.metrics;
        if written == Written::Before {
            metrics.batches_repeated.inc();
            return;
        }
        metrics.batches_stored.inc();
        metrics.events_stored.inc_by(batch.events.len() as u64);
        metrics.coverage_stored.inc_by(batch.coverage.len() as u64);
        let number = batch.manifest.number;
        match *place {
            Place::Next { missing } if missing > 0 => {
                metrics.batches_missing.inc_by(missing);
                tracing::error!(
                    from = number - missing,
                    to = number - 1,
                    "a collector declared batches missing"
                );
            }
            Place::Late => {
                metrics.batches_late.inc();
                tracing::info!(number, "a batch that was missing came after all");
            }
            Place::Next { .. } | Place::Stored => {}
        }
    }

    /// This collector's lane. Only collectors that enrolled get one.
    fn lane(&self, collector: CollectorId) -> Arc<tokio::sync::Mutex<Lane>> {
        let mut lanes = self.lanes.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        lanes.entry(collector).or_default().clone()
    }
}

fn is_due(logged: &mut Option<Instant>) -> bool {
    let is_due = logged.is_none_or(|at| at.elapsed() > REMINDER);
    if is_due {
        *logged = Some(Instant::now());
    }
    is_due
}
