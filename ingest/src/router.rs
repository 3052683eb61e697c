//! Paths, the state that their handlers share, and the layer that puts every refusal into words.

use std::collections::HashMap;
use std::error::Error;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::{get, post};
use prometheus_client::registry::Registry;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;
use uuid::Uuid;
use whence_model::CollectorId;
use whence_store::Readiness;

use crate::authenticate::Keys;
use crate::group::Groups;
use crate::lane::Lane;
use crate::metrics::Metrics;
use crate::refusal::Refusal;
use crate::{IngestConfig, batches, enroll, external, health};

/// A request counts as so many bytes at least.
const LEAST_ROOM_BYTES: usize = 16 << 10;
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What the handlers share.
pub struct Ingest {
    pub config: IngestConfig,
    pub keys: Keys,
    pub groups: Groups,
    pub lanes: Mutex<HashMap<CollectorId, Arc<Lane>>>,
    pub enrolling: tokio::sync::Mutex<()>,
    pub metrics: Metrics,
    pub registry: Registry,
    pub readiness: Readiness,
    pub stopping: CancellationToken,
    in_flight: Arc<Semaphore>,
    decoders: Semaphore,
    decoded: Arc<Semaphore>,
    misconfiguration_logged: AtomicBool,
}

/// Room for a request that is worked on.
pub struct Admission {
    _permit: OwnedSemaphorePermit,
    ingest: Arc<Ingest>,
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.ingest.metrics.in_flight.dec();
    }
}

impl Ingest {
    /// Lets a request in when there is room for its body.
    pub fn admit(ingest: &Arc<Self>, headers: &HeaderMap) -> Result<Admission, Refusal> {
        let length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        let most = ingest.config.body_bytes;
        let bytes = length.unwrap_or(most).clamp(LEAST_ROOM_BYTES, most.max(LEAST_ROOM_BYTES));
        let permits = u32::try_from(bytes).unwrap_or(u32::MAX);
        let permit = ingest.in_flight.clone().try_acquire_many_owned(permits).map_err(|_| Refusal::Busy)?;
        ingest.metrics.in_flight.inc();
        Ok(Admission { _permit: permit, ingest: ingest.clone() })
    }

    /// Waits for a turn to decompress and check a batch.
    pub async fn decoding(&self) -> Result<SemaphorePermit<'_>, Refusal> {
        self.decoders.acquire().await.map_err(|error| Refusal::Internal(error.into()))
    }

    /// Waits for memory for batches of so many bytes, decompressed and as rows. They are there already, so wait only for a turn
    /// to decompress more with this.
    pub async fn room(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Refusal> {
        let bytes = u32::try_from(bytes.min(self.config.decoded_bytes)).unwrap_or(u32::MAX);
        let room = self.decoded.clone().acquire_many_owned(bytes).await;
        room.map_err(|error| Refusal::Internal(error.into()))
    }

    /// ClickHouse has done what it was asked: the next misconfiguration is a new one.
    pub fn store_works(&self) {
        self.misconfiguration_logged.store(false, Ordering::Relaxed);
    }

    /// One line per refusal, with its cause. What a person has to mend is said once, until something works again.
    fn log(&self, refusal: &Refusal) {
        let (status, code) = refusal.status_and_code();
        let cause = refusal.source().map(ToString::to_string).unwrap_or_default();
        // The text of ClickHouse has many lines and is long.
        let cause: String = cause.lines().next().unwrap_or_default().chars().take(300).collect();
        match refusal {
            Refusal::Busy | Refusal::Stopping | Refusal::NotReady(_) | Refusal::NotFound => {
                tracing::debug!(code, "{refusal}");
            }
            Refusal::StoreMisconfigured(_) => {
                if !self.misconfiguration_logged.swap(true, Ordering::Relaxed) {
                    tracing::error!(code, cause, "{refusal}");
                }
            }
            _ if status.is_server_error() => tracing::error!(code, cause, "{refusal}"),
            _ => tracing::warn!(code, "{refusal}"),
        }
    }
}

/// The service as a router, for tests that need no listener.
pub fn router(config: IngestConfig) -> Router {
    router_until(config, CancellationToken::new())
}

/// [`router`], which is no longer ready once `stopping` is cancelled.
pub fn router_until(config: IngestConfig, stopping: CancellationToken) -> Router {
    let metrics = Metrics::default();
    let decoders = std::thread::available_parallelism().map_or(2, usize::from);
    let ingest = Arc::new(Ingest {
        keys: Keys::new(config.key_lifetime),
        groups: Groups::start(&config.store),
        lanes: Mutex::default(),
        enrolling: tokio::sync::Mutex::default(),
        registry: metrics.registry(),
        metrics,
        readiness: Readiness::default(),
        stopping,
        in_flight: Arc::new(Semaphore::new(config.in_flight_bytes)),
        decoders: Semaphore::new(decoders),
        decoded: Arc::new(Semaphore::new(config.decoded_bytes)),
        misconfiguration_logged: AtomicBool::new(false),
        config,
    });
    Router::new()
        .route("/v1/batches", post(batches::receive))
        .route("/v1/events", post(external::receive))
        .route("/v1/enroll", post(enroll::enroll))
        .route("/live", get(health::live))
        .route("/ready", get(health::ready))
        .route("/metrics", get(health::metrics))
        .fallback(async || Refusal::NotFound)
        .method_not_allowed_fallback(async || Refusal::MethodNotAllowed)
        .layer(from_fn_with_state(ingest.clone(), put_into_words))
        .with_state(ingest)
}

/// Gives the request an id, and its refusal an answer, a count and a line in the log.
async fn put_into_words(State(ingest): State<Arc<Ingest>>, request: Request, next: Next) -> Response {
    let id = Uuid::now_v7().to_string();
    let span = tracing::info_span!("request", id, collector = tracing::field::Empty);
    let mut response = next.run(request).instrument(span.clone()).await;
    if let Some(refusal) = response.extensions_mut().remove::<Arc<Refusal>>() {
        ingest.metrics.refused(refusal.status_and_code().1);
        span.in_scope(|| ingest.log(&refusal));
        let allow = response.headers_mut().remove(header::ALLOW);
        response = refusal.answer(&id);
        if let Some(allow) = allow {
            response.headers_mut().insert(header::ALLOW, allow);
        }
    }
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response
}
