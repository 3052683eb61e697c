//! Which address leads where.

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn_with_state;
use axum::response::Redirect;
use axum::routing::{get, post};
use tokio_util::sync::CancellationToken;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::{DefaultPredicate, NotForContentType, Predicate};
use whence_store::Store;

use crate::WebConfig;
use crate::handlers::{
    api, assets, coverage, event, export, health, history, people, reads, report, sign_in,
};
use crate::layers;
use crate::problem::Problem;
use crate::state::{SharedWeb, Web};

/// The largest form that anybody sends.
const MAX_FORM_BYTES: usize = 16 * 1024;

/// The service as a router, for tests that need no listener.
pub fn router(config: WebConfig, store: Store) -> Router {
    routes(Arc::new(Web::new(config, store, CancellationToken::new())))
}

pub fn routes(web: SharedWeb) -> Router {
    let packed = DefaultPredicate::new().and(NotForContentType::new(export::ZIP));
    Router::new()
        // Pages
        .route("/", get(async || Redirect::to("/history")))
        .route("/sign-in", get(sign_in::form).post(sign_in::sign_in))
        .route("/sign-out", post(sign_in::sign_out))
        .route("/history", get(history::page))
        .route("/history/results", get(history::results))
        .route("/events/{id}", get(event::page))
        .route("/report", get(report::page))
        .route("/coverage", get(coverage::page))
        .route("/people", get(people::page))
        .route("/reads", get(reads::page))
        // Files
        .route("/export.csv", get(export::csv))
        .route("/export.csv.zip", get(export::csv_zip))
        .route("/export.ndjson", get(export::ndjson))
        .route("/export.ndjson.zip", get(export::ndjson_zip))
        .route("/exports/{id}", get(export::manifest))
        .route("/report.csv", get(report::csv))
        .route("/static/{version}/{name}", get(assets::get))
        .route("/favicon.ico", get(assets::icon))
        // Programs
        .route("/api/openapi.json", get(api::openapi))
        .route("/api/v1/events", get(api::events))
        .route("/api/v1/events/{id}", get(api::event))
        .route("/api/v1/histogram", get(api::histogram))
        .route("/api/v1/report", get(api::report))
        .route("/api/v1/coverage", get(api::coverage))
        .route("/api/v1/instances", get(api::instances))
        .route("/api/v1/keys", get(api::keys))
        // Machines that look after this service
        .route("/live", get(health::live))
        .route("/ready", get(health::ready))
        .route("/metrics", get(health::metrics))
        .fallback(async || Problem::NotFound)
        .method_not_allowed_fallback(async || Problem::MethodNotAllowed)
        .layer(CompressionLayer::new().compress_when(packed))
        .layer(DefaultBodyLimit::max(MAX_FORM_BYTES))
        .layer(from_fn_with_state(web.clone(), layers::around))
        .with_state(web)
}
