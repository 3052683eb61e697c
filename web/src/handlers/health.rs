//! `/live`, `/ready` and `/metrics`, for the machines that look after this service.

use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use tokio::time::timeout;
use whence_store::{MigrateError, StoreError};

use crate::problem::Problem;
use crate::state::{SharedWeb, Web};

/// How long an answer about ClickHouse stands: whoever asks often must not burden it.
const FRESH: Duration = Duration::from_secs(1);
const DEADLINE: Duration = Duration::from_secs(5);

/// The last answer about ClickHouse, and when it was given. `Err` holds what is wrong, for people.
pub type Readiness = tokio::sync::Mutex<Option<(Instant, Result<(), String>)>>;

pub async fn live() -> &'static str {
    "live\n"
}

pub async fn ready(State(web): State<SharedWeb>) -> Result<&'static str, Problem> {
    if web.stopping.is_cancelled() {
        return Err(Problem::Stopping);
    }
    let mut known = web.readiness.lock().await;
    let answer = match known.take() {
        Some((asked, answer)) if asked.elapsed() < FRESH => (asked, answer),
        _ => (Instant::now(), ask(&web).await),
    };
    known.insert(answer).1.clone().map(|()| "ready\n").map_err(Problem::NotReady)
}

async fn ask(web: &Web) -> Result<(), String> {
    let Ok(checked) = timeout(DEADLINE, web.store.check_schema()).await else {
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

pub async fn metrics(State(web): State<SharedWeb>) -> impl IntoResponse {
    let content_type = [(header::CONTENT_TYPE, whence_service::metrics::CONTENT_TYPE)];
    (content_type, whence_service::metrics::encode(&web.registry))
}
