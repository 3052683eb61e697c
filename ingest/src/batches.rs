//! `POST /v1/batches`: batches that follow each other come in, mostly one, and are acknowledged when ClickHouse has them.
//!
//! The answer is about the first of them, but for 200, which names the last that is stored. What follows one that cannot be
//! stored is left out; its collector sends it again, as the first then.
//!
//! | answer | what the collector does |
//! | --- | --- |
//! | 200 | drops the batch from its spool |
//! | 408, 429, 5xx | sends it again later, maybe to another ingest |
//! | 401 `unknown_collector` | enrols, and sends it again |
//! | 401 `wrong_signature`, 403 `revoked`, 409 `conflicting_batch` | waits for a person |
//! | 409 `out_of_order` | says which batches are missing, and sends it again |
//! | 409 `not_following` | sends it again when the batch before it, which it said to be on its way, is stored |
//! | 400, 413, 422 | never sends it again, and keeps it in quarantine |

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use serde::Serialize;
use tracing::Instrument as _;
use whence_chain::PublicKey;
use whence_model::Timestamp;
use whence_store::row::EventRow;
use whence_wire::Batch;

use crate::lane::{Checked, Place, Turn};
use crate::refusal::Refusal;
use crate::router::Ingest;
use crate::{check, receive, write};

/// How often the same oddity of one collector is logged.
const REMINDER: Duration = Duration::from_mins(10);

/// The answer to batches that are stored, up to `number`.
#[derive(Serialize)]
pub struct Confirmed {
    pub number: u64,
    /// `new`, or `before` when it had been stored before.
    pub stored: &'static str,
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
    let (run, decompressed_bytes) = blocking(move || whence_wire::decode_run(&bytes, &limits)).await??;
    let Some(collector) = run.first().map(|first| first.manifest.collector) else {
        return Err(Refusal::Internal(anyhow::anyhow!("a body without a batch was read")));
    };
    tracing::Span::current().record("collector", tracing::field::display(collector));
    let key = ingest.keys.key(&ingest.config.store, collector).await?;
    let declared = receive::declared_missing(&headers);
    let checked = blocking(move || check_run(run, &key, declared)).await??;
    let events = checked.iter().map(|checked| checked.rows.events.len()).sum();
    let room = ingest.room(memory_bytes(events, decompressed_bytes)).await?;
    drop(decoding);
    if let Some(before) = receive::follows(&headers) {
        ingest.follow(collector, before).await?;
    }

    // A task of its own, since it goes on when the collector hangs up.
    let store = async move {
        let (_admission, _room) = (admission, room);
        ingest.store(checked).await
    };
    let stored = tokio::spawn(store.in_current_span()).await;
    stored.map_err(|error| Refusal::Internal(error.into()))?.map(Json)
}

/// How much memory batches take until they are stored, about.
fn memory_bytes(events: usize, decompressed_bytes: usize) -> usize {
    size_of::<EventRow>() * events + 2 * decompressed_bytes
}

/// Checks batches of one collector, as far as they are what it signed, and makes their rows; the refusal is that of the first.
fn check_run(
    run: Vec<Batch>,
    key: &PublicKey,
    declared: Option<(u64, u64)>,
) -> Result<Vec<Checked>, Refusal> {
    let mut checked = Vec::with_capacity(run.len());
    let collector = run.first().map(|first| first.manifest.collector);
    for batch in run {
        // The key is the first one's.
        if Some(batch.manifest.collector) != collector {
            break;
        }
        match check::contents(&batch, key) {
            Ok((event_hashes, months)) => {
                let mismatches = batch.coverage.iter().filter(|span| !span.adds_up()).count();
                let rows = Arc::new(write::rows(batch, event_hashes));
                checked.push(Checked { rows, months, mismatches, declared });
            }
            Err(refusal) if checked.is_empty() => return Err(refusal),
            Err(_) => break,
        }
    }
    Ok(checked)
}

/// Runs what takes the processor for long where it holds up no one else.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Refusal> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Refusal::Internal(error.into()))
}

impl Ingest {
    /// What is odd and is stored all the same, since refusing it would lose it.
    pub fn note_oddities(&self, checked: &Checked, now: Timestamp, turn: &mut Turn) {
        let batch = &checked.rows.batch;
        if check::is_ahead(batch, now) {
            self.metrics.batches_ahead.inc();
            if is_due(&mut turn.ahead_logged) {
                tracing::warn!(
                    sealed_at = %batch.sealed_at,
                    "a batch tells of times far ahead of this clock; set the clock of its host, or of this one"
                );
            }
        }
        let mismatches = checked.mismatches;
        if mismatches > 0 {
            self.metrics.coverage_mismatches.inc_by(mismatches as u64);
            if is_due(&mut turn.mismatch_logged) {
                let number = batch.number;
                tracing::error!(
                    number,
                    mismatches,
                    "coverage spans do not add up: seen is not stored + filtered + lost"
                );
            }
        }
    }

    pub fn count(&self, place: &Place, checked: &Checked) {
        let metrics = &self.metrics;
        if matches!(place, Place::Stored) {
            metrics.batches_repeated.inc();
            return;
        }
        metrics.batches_stored.inc();
        metrics.events_stored.inc_by(checked.rows.events.len() as u64);
        metrics.coverage_stored.inc_by(checked.rows.coverage.len() as u64);
        let number = checked.rows.batch.number;
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
