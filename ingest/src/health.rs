//! `/live`, `/ready` and `/metrics`, for the machines that look after this service.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use tokio::time::timeout;
use whence_store::{MigrateError, StoreError};

use crate::refusal::Refusal;
use crate::router::Ingest;

/// How long an answer about ClickHouse stands: whoever asks often must not burden it.
const FRESH: Duration = Duration::from_secs(1);
const DEADLINE: Duration = Duration::from_secs(5);

/// The last answer about ClickHouse, and when it was given. `Err` holds what is wrong, for people.
pub type Readiness = tokio::sync::Mutex<Option<(Instant, Result<(), String>)>>;

pub async fn live() -> &'static str {
    "live\n"
}

pub async fn ready(State(ingest): State<Arc<Ingest>>) -> Result<&'static str, Refusal> {
    if ingest.stopping.is_cancelled() {
        return Err(Refusal::Stopping);
    }
    let mut known = ingest.readiness.lock().await;
    let answer = match known.take() {
        Some((asked, answer)) if asked.elapsed() < FRESH => (asked, answer),
        _ => (Instant::now(), ask(&ingest).await),
    };
    known.insert(answer).1.clone().map(|()| "ready\n").map_err(Refusal::NotReady)
}

async fn ask(ingest: &Ingest) -> Result<(), String> {
    let Ok(checked) = timeout(DEADLINE, ingest.config.store.check_schema()).await else {
        return Err("ClickHouse does not answer in time".into());
    };
    checked.map_err(|error| match error {
        MigrateError::Store(StoreError::Retryable { .. } | StoreError::TooBig) => {
            "ClickHouse cannot be reached".into()
        }
        MigrateError::Store(source) => {
            tracing::debug!(%source, "the schema cannot be read");
            "ClickHouse answers, but the schema of Whence cannot be read; run `whence migrate`, and check the \
             user, the password and the database"
                .into()
        }
        other => other.to_string(),
    })
}

pub async fn metrics(State(ingest): State<Arc<Ingest>>) -> impl IntoResponse {
    let content_type = [(header::CONTENT_TYPE, whence_service::metrics::CONTENT_TYPE)];
    (content_type, whence_service::metrics::encode(&ingest.registry))
}
