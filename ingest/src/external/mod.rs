//! `POST /v1/events`: events of other senders as JSON lines. All of a request is stored, once, or none of it.
//!
//! receive → authenticate → decompress → read each line → write. Nobody signs these events: they are marked
//! (`provider` is `external`), and belong to no chain. A request is known by its `Idempotency-Key`, else by its contents: sent
//! again it is answered like the first time, and stored once.

mod body;
mod line;
mod sources;

pub use line::Problem;
pub use sources::{Sources, SourcesError};

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use serde::Serialize;
use uuid::Uuid;
use whence_chain::event_hash;
use whence_model::{BatchId, CollectorId, Event, EventId, Timestamp};
use whence_store::row::EventRow;
use whence_store::{ExternalBatchRow, StoreError, Written};
use whence_wire::WireError;

use crate::refusal::Refusal;
use crate::router::Ingest;
use crate::{IngestConfig, check, receive};

/// Bad lines that are told one by one.
const TOLD: usize = 100;
const KEY_HEADER: &str = "idempotency-key";
const KEY_BYTES: usize = 200;

/// A line that is no event.
#[derive(Clone, Debug, Serialize)]
pub struct BadLine {
    /// From 1.
    pub line: usize,
    #[serde(flatten)]
    pub problem: Problem,
}

/// The answer to events that are stored.
#[derive(Serialize)]
pub struct Answer {
    batch_id: BatchId,
    events: usize,
    /// `new`, or `before` when the same request had been stored before.
    stored: &'static str,
}

pub async fn receive(
    State(ingest): State<Arc<Ingest>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Answer>, Refusal> {
    let source = ingest.config.sources.authenticate(&headers)?.to_owned();
    let encoding = body::encoding(&headers)?;
    let key = key(&headers)?;
    let _admission = Ingest::admit(&ingest, &headers)?;
    let bytes = receive::body(&ingest.config, body, ingest.config.body_bytes).await?;
    ingest.metrics.received_bytes.inc_by(bytes.len() as u64);

    let decoding = ingest.decoding().await?;
    let config = ingest.config.clone();
    let read = move || {
        let text = body::decompress(&bytes, encoding, config.limits.decompressed_bytes)?;
        read(&config, &source, key.as_deref(), &text)
    };
    let (batch, rows) =
        tokio::task::spawn_blocking(read).await.map_err(|error| Refusal::Internal(error.into()))??;
    drop(decoding);
    let written = match ingest.config.store.write_external(&batch, &rows).await {
        Err(StoreError::Rejected { .. }) => return Err(Refusal::ConflictingKey),
        written => written?,
    };
    ingest.store_works();
    let stored = match written {
        Written::New => {
            ingest.metrics.external_events_stored.inc_by(rows.len() as u64);
            "new"
        }
        Written::Before => "before",
    };
    Ok(Json(Answer { batch_id: BatchId(batch.batch_id), events: rows.len(), stored }))
}

fn key(headers: &HeaderMap) -> Result<Option<String>, Refusal> {
    let Some(value) = headers.get(KEY_HEADER) else { return Ok(None) };
    let key = value.to_str().ok().filter(|key| !key.is_empty() && key.len() <= KEY_BYTES);
    key.map(|key| Some(key.to_owned())).ok_or(Refusal::InvalidKey { limit: KEY_BYTES })
}

/// The rows of what `source` sent, or every line that is wrong.
fn read(
    config: &IngestConfig,
    source: &str,
    key: Option<&str>,
    text: &[u8],
) -> Result<(ExternalBatchRow, Vec<EventRow>), Refusal> {
    let collector =
        CollectorId(Uuid::new_v5(&Uuid::NAMESPACE_URL, format!("whence-source\0{source}").as_bytes()));
    let body_hash = *blake3::hash(text).as_bytes();
    let known_by =
        key.map_or_else(|| format!("body\0{}", hex::encode(body_hash)), |key| format!("key\0{key}"));
    let batch_id = Uuid::new_v5(&collector.0, known_by.as_bytes());
    let events = events(config, collector, batch_id, text)?;
    check::months(&events).map_err(|(found, limit)| Refusal::TooManyMonthsOfEvents { found, limit })?;
    let received_at = Timestamp::now();
    let row = |event: &Event| EventRow {
        event_id: event_id(batch_id, event.sequence).0,
        ..EventRow::new(event, BatchId(batch_id), received_at, event_hash(event))
    };
    let rows: Vec<EventRow> = events.iter().map(row).collect();
    let event_count = u32::try_from(rows.len()).unwrap_or(u32::MAX);
    Ok((ExternalBatchRow { batch_id, source: source.into(), event_count, body_hash, received_at }, rows))
}

fn events(
    config: &IngestConfig,
    collector: CollectorId,
    batch_id: Uuid,
    text: &[u8],
) -> Result<Vec<Event>, Refusal> {
    let lines = text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).zip(1..);
    let (mut events, mut bad, mut bad_lines) = (Vec::new(), Vec::new(), 0);
    for (bytes, number) in lines.filter(|(bytes, _)| !bytes.is_empty()) {
        let limit = config.limits.events;
        if events.len() + bad_lines == limit {
            return Err(WireError::TooMany { what: "lines", found: limit + 1, limit }.into());
        }
        match line::read(bytes, &config.limits) {
            Ok(event) => {
                let sequence = sequence(batch_id, events.len() as u64);
                events.push(Event { collector, sequence, ..event });
            }
            Err(problem) => {
                bad_lines += 1;
                if bad.len() < TOLD {
                    bad.push(BadLine { line: number, problem });
                }
            }
        }
    }
    if bad_lines > 0 {
        return Err(Refusal::BadLines { bad_lines, lines: bad });
    }
    Ok(events)
}

/// Numbers of one sender's events: apart from those of its other requests by the request's id, so that pages have an order.
fn sequence(batch_id: Uuid, position: u64) -> u64 {
    const POSITION_BITS: u32 = 20;
    (batch_id.as_u64_pair().0 << POSITION_BITS) | (position & ((1 << POSITION_BITS) - 1))
}

fn event_id(batch_id: Uuid, sequence: u64) -> EventId {
    EventId(Uuid::new_v5(&batch_id, &sequence.to_be_bytes()))
}
