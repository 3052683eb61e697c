//! Whether the collectors live: asked of the store every few seconds, told in words, counted for `/metrics`, and said in the
//! log when one falls silent.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use whence_model::{ClockQuality, Timestamp};
use whence_store::read::{CollectorState, Heard};
use whence_store::{Store, StoreError};

use crate::metrics::Metrics;
use crate::{statement, text};

/// What was asked is good for so long: with the silence that is allowed, less than a minute goes by.
const GOOD_FOR: Duration = Duration::from_secs(10);

/// What the collectors told last.
#[derive(Default)]
pub struct Collectors {
    asked: Mutex<Option<Asked>>,
    /// Those of which it was said that they are silent.
    silent: Mutex<HashSet<Uuid>>,
}

struct Asked {
    at: Instant,
    heard: Arc<Vec<Heard>>,
}

impl Collectors {
    /// All that enrolled, as they were a few seconds ago at most.
    pub async fn heard(&self, store: &Store, metrics: &Metrics) -> Result<Arc<Vec<Heard>>, StoreError> {
        let mut asked = self.asked.lock().await;
        let known = asked.as_ref().filter(|asked| asked.at.elapsed() < GOOD_FOR);
        let heard = if let Some(known) = known {
            known.heard.clone()
        } else {
            let heard = Arc::new(store.heard().await?);
            *asked = Some(Asked { at: Instant::now(), heard: heard.clone() });
            heard
        };
        drop(asked);
        self.tell(&heard, metrics).await;
        Ok(heard)
    }

    /// Counts them, and logs whose silence begins or ends.
    async fn tell(&self, heard: &[Heard], metrics: &Metrics) {
        let now = Timestamp::now();
        for state in CollectorState::ALL {
            metrics.set_collectors(state, heard.iter().filter(|heard| heard.state(now) == state).count());
        }
        let silent = heard.iter().filter(|heard| heard.state(now) == CollectorState::Silent);
        let silent: HashSet<Uuid> = silent.map(|heard| heard.collector.collector_id).collect();
        let mut before = self.silent.lock().await;
        for collector in silent.difference(&before) {
            tracing::warn!(%collector, "a collector is silent");
        }
        for collector in before.difference(&silent) {
            tracing::info!(%collector, "a collector is no longer silent");
        }
        *before = silent;
    }

    /// Asks until `shutdown`, so that silence is logged and counted also when nobody looks.
    pub async fn watch(&self, store: &Store, metrics: &Metrics, shutdown: CancellationToken) {
        loop {
            if let Err(error) = self.heard(store, metrics).await {
                tracing::debug!(%error, "cannot ask whether the collectors live");
            }
            if shutdown.run_until_cancelled(tokio::time::sleep(GOOD_FOR)).await.is_none() {
                return;
            }
        }
    }
}

/// What to say of those that are silent, in one sentence each and in few.
pub fn silence(heard: &[Heard], now: Timestamp) -> Vec<String> {
    let silent = heard.iter().filter(|heard| heard.state(now) == CollectorState::Silent).map(|heard| {
        let host = text::visible(&heard.collector.host).into_owned();
        match heard.last_seen {
            Some(at) => format!("{host} for {}", ago(at, now)),
            None => format!("{host} since it enrolled"),
        }
    });
    let said = statement::listed("Nothing comes from the collector of", silent.collect(), "collector");
    let meaning = said.is_some().then(|| {
        "What happens there is not known here; it may come later. If a collector is gone for good, revoke it.".into()
    });
    said.into_iter().chain(meaning).collect()
}

/// How long ago that was.
pub fn ago(at: Timestamp, now: Timestamp) -> String {
    text::long_duration(u64::try_from(now.since_ns(at)).unwrap_or_default() / 1_000_000_000)
}

/// A clock, in words.
pub fn clock(quality: ClockQuality) -> String {
    match quality {
        ClockQuality::Unknown => "not known".into(),
        ClockQuality::Unsynchronised => "not synchronised".into(),
        ClockQuality::Synchronised { error_us, .. } => {
            format!("synchronised, within {}", text::duration(error_us.saturating_mul(1000)))
        }
    }
}
