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
use tracing::Instrument as _;
use whence_model::Timestamp;
use whence_store::Written;
use whence_wire::Batch;

use crate::lane::{Checked, Lane, Place};
use crate::refusal::Refusal;
use crate::router::Ingest;
use crate::{check, receive};

/// How often the same oddity of one collector is logged.
const REMINDER: Duration = Duration::from_mins(10);

/// The answer to a batch that is stored.
#[derive(Serialize)]
pub struct Confirmed {
    number: u64,
    /// `new`, or `before` when it had been stored before.
    stored: &'static str,
}

pub async fn receive(
    State(ingest): State<Arc<Ingest>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Confirmed>, Refusal> {
    receive::check_headers(&headers)?;
    let admission = Ingest::admit(&ingest, &headers)?;
    let bytes = receive::body(&ingest.config, body, ingest.config.body_bytes).await?;
    ingest.metrics.received_bytes.inc_by(bytes.len() as u64);

    // Decompressed batches of senders that are not known yet are few at a time.
    let decoding = ingest.decoding().await?;
    let limits = ingest.config.limits;
    let batch = blocking(move || whence_wire::decode(&bytes, &limits)).await??;
    let collector = batch.manifest.collector;
    tracing::Span::current().record("collector", tracing::field::display(collector));
    let key = ingest.keys.key(&ingest.config.store, collector).await?;
    let declared = receive::declared_missing(&headers);
    let checked = blocking(move || {
        let (event_hashes, months) = check::contents(&batch, &key)?;
        Ok::<_, Refusal>(Checked { batch, event_hashes, months, declared })
    });
    let checked = checked.await??;
    drop(decoding);

    let number = checked.batch.manifest.number;
    // A task of its own, since it goes on when the collector hangs up.
    let store = async move {
        let _admission = admission;
        ingest.store(checked).await
    };
    let written = tokio::spawn(store.in_current_span()).await;
    let written = written.map_err(|error| Refusal::Internal(error.into()))??;
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
    /// What is odd and is stored all the same, since refusing it would lose it.
    pub fn note_oddities(&self, batch: &Batch, now: Timestamp, lane: &mut Lane) {
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

    pub fn count(&self, place: &Place, batch: &Batch) {
        let metrics = &self.metrics;
        if matches!(place, Place::Stored) {
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
}

fn is_due(logged: &mut Option<Instant>) -> bool {
    let is_due = logged.is_none_or(|at| at.elapsed() > REMINDER);
    if is_due {
        *logged = Some(Instant::now());
    }
    is_due
}
