//! What the handlers share.

use std::sync::Arc;
use std::time::Instant;

use prometheus_client::registry::Registry;
use tokio::sync::{Mutex, OnceCell, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use whence_store::read::Heard;
use whence_store::{Readiness, Store, StoreError};

use crate::WebConfig;
use crate::collectors::Collectors;
use crate::metrics::Metrics;
use crate::refusals::Refusals;

/// Sign-ins of one name from one address come one after another, so that a burst cannot outrun the count of failures.
const SIGN_IN_LANES: usize = 64;
/// Argon2 takes 19 MB and a core: this many at once.
const HASHERS: usize = 2;

pub struct Web {
    pub config: WebConfig,
    pub store: Store,
    pub metrics: Metrics,
    pub registry: Registry,
    pub readiness: Readiness,
    pub stopping: CancellationToken,
    /// Exports under way, which end before the process does.
    pub exporting: TaskTracker,
    pub export_permits: Arc<Semaphore>,
    pub hashers: Semaphore,
    pub sign_in_lanes: Vec<Mutex<Lane>>,
    /// Set once the signing key is known in the store.
    pub key_known: OnceCell<()>,
    pub refusals: Refusals,
    collectors: Collectors,
}

/// The sign-ins that come one after another, and the last of them that was turned away and written down: by which
/// name, from where, when.
pub type Lane = Option<(String, String, Instant)>;

pub type SharedWeb = Arc<Web>;

impl Web {
    pub fn new(config: WebConfig, store: Store, stopping: CancellationToken) -> Self {
        let metrics = Metrics::default();
        Self {
            registry: metrics.registry(),
            metrics,
            readiness: Readiness::default(),
            stopping,
            exporting: TaskTracker::new(),
            export_permits: Arc::new(Semaphore::new(config.exports)),
            hashers: Semaphore::new(HASHERS),
            sign_in_lanes: (0..SIGN_IN_LANES).map(|_| Mutex::default()).collect(),
            key_known: OnceCell::new(),
            refusals: Refusals::default(),
            collectors: Collectors::default(),
            config,
            store,
        }
    }

    /// What the collectors told last.
    pub async fn heard(&self) -> Result<Arc<Vec<Heard>>, StoreError> {
        self.collectors.heard(&self.store, &self.metrics).await
    }

    /// Looks after the collectors until the service stops.
    pub async fn watch_collectors(&self) {
        self.collectors.watch(&self.store, &self.metrics, self.stopping.clone()).await;
    }
}
