//! `/live`, `/ready` and `/metrics`, for the machines that look after this service.

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;

use crate::problem::Problem;
use crate::state::SharedWeb;

pub async fn live() -> &'static str {
    "live\n"
}

pub async fn ready(State(web): State<SharedWeb>) -> Result<&'static str, Problem> {
    if web.stopping.is_cancelled() {
        return Err(Problem::Stopping);
    }
    web.readiness.check(&web.store).await.map(|()| "ready\n").map_err(Problem::NotReady)
}

pub async fn metrics(State(web): State<SharedWeb>) -> impl IntoResponse {
    // What cannot be asked now is as it was.
    if let Err(error) = web.heard().await {
        tracing::debug!(%error, "cannot ask whether the collectors live");
    }
    let content_type = [(header::CONTENT_TYPE, whence_service::metrics::CONTENT_TYPE)];
    (content_type, whence_service::metrics::encode(&web.registry))
}
