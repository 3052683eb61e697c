//! The collector's metrics, and the small HTTP server that shows them.

use std::sync::Arc;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use whence_model::{Flaws, LossReason};

use crate::ship;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct State {
    state: &'static str,
}

/// Everything that is counted.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    pub events: Counter,
    pub events_filtered: Counter,
    lost: Family<Reason, Counter>,
    fields_unreadable: Counter,
    texts_cut: Counter,
    ends_unmatched: Counter,
    pub batches_sealed: Counter,
    pub spool_failures: Counter,
    pub backlog_batches: Gauge,
    pub backlog_bytes: Gauge,
    servers: Family<State, Gauge>,
    pub ship: ship::Metrics,
}

impl Metrics {
    pub fn registry(&self) -> Registry {
        let mut registry = whence_service::metrics::registry("collector");
        registry.register("events", "events decoded and sealed", self.events.clone());
        let filtered = self.events_filtered.clone();
        registry.register("events_filtered", "events that rules left out", filtered);
        registry.register("events_lost", "events lost, by reason", self.lost.clone());
        let fields = self.fields_unreadable.clone();
        registry.register("fields_unreadable", "fields that could not be read in a server's memory", fields);
        let texts = self.texts_cut.clone();
        registry.register("texts_cut", "SQL texts cut further than the limit, for want of room", texts);
        let ends = self.ends_unmatched.clone();
        registry.register("ends_unmatched", "commands that were under way when a watch began", ends);
        registry.register("batches_sealed", "batches put into the spool", self.batches_sealed.clone());
        registry.register(
            "spool_failures",
            "attempts to write to the spool that failed",
            self.spool_failures.clone(),
        );
        registry.register("spool_backlog_batches", "batches not confirmed yet", self.backlog_batches.clone());
        registry.register("spool_backlog_bytes", "bytes not confirmed yet", self.backlog_bytes.clone());
        registry.register("servers", "database servers known, by state", self.servers.clone());
        self.ship.register(&mut registry);
        registry
    }

    pub fn count_lost(&self, reason: LossReason, events: u64) {
        self.lost.get_or_create(&Reason { reason: reason.as_str() }).inc_by(events);
    }

    pub fn count_flaws(&self, flaws: Flaws) {
        self.fields_unreadable.inc_by(flaws.fields_unreadable);
        self.texts_cut.inc_by(flaws.texts_cut);
        self.ends_unmatched.inc_by(flaws.ends_unmatched);
    }

    pub fn set_servers(&self, states: impl Iterator<Item = whence_model::CoverageState>) {
        let states: Vec<_> = states.collect();
        for state in whence_model::CoverageState::ALL {
            let number = states.iter().filter(|known| *known == state).count();
            let gauge = self.servers.get_or_create(&State { state: state.as_str() });
            gauge.set(i64::try_from(number).unwrap_or(i64::MAX));
        }
    }
}

/// Serves `/metrics`, `/live` and `/ready` until `shutdown`.
pub async fn serve(listener: TcpListener, metrics: &Metrics, shutdown: CancellationToken) {
    let registry = Arc::new(metrics.registry());
    let text = move || {
        let registry = registry.clone();
        async move {
            let kind = [(header::CONTENT_TYPE, whence_service::metrics::CONTENT_TYPE)];
            (kind, whence_service::metrics::encode(&registry)).into_response()
        }
    };
    let routes = Router::new()
        .route("/metrics", get(text))
        .route("/live", get(|| async { StatusCode::OK }))
        .route("/ready", get(|| async { StatusCode::OK }));
    let served =
        axum::serve(listener, routes).with_graceful_shutdown(async move { shutdown.cancelled().await });
    if let Err(error) = served.await {
        tracing::error!(%error, "metrics are not served any more");
    }
}
