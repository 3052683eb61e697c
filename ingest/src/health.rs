//! `/live`, `/ready` and `/metrics`, for the machines that look after this service.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;

use crate::refusal::Refusal;
use crate::router::Ingest;

pub async fn live() -> &'static str {
    "live\n"
}

pub async fn ready(State(ingest): State<Arc<Ingest>>) -> Result<&'static str, Refusal> {
    if ingest.stopping.is_cancelled() {
        return Err(Refusal::Stopping);
    }
    ingest.readiness.check(&ingest.config.store).await.map(|()| "ready\n").map_err(Refusal::NotReady)
}

pub async fn metrics(State(ingest): State<Arc<Ingest>>) -> impl IntoResponse {
    let content_type = [(header::CONTENT_TYPE, whence_service::metrics::CONTENT_TYPE)];
    (content_type, whence_service::metrics::encode(&ingest.registry))
}
