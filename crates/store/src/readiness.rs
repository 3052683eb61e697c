//! Whether a service that needs ClickHouse can do its work, for `/ready`.

use std::time::{Duration, Instant};

use tokio::time::timeout;

use crate::{MigrateError, Store, StoreError};

/// How long an answer about ClickHouse stands: whoever asks often must not burden it.
const FRESH: Duration = Duration::from_secs(1);
const DEADLINE: Duration = Duration::from_secs(5);

/// The last answer about ClickHouse, and when it was given.
#[derive(Debug, Default)]
pub struct Readiness(tokio::sync::Mutex<Option<(Instant, Result<(), String>)>>);

impl Readiness {
    /// Whether `store` answers and has the schema of this program; the error says what is wrong, for people.
    pub async fn check(&self, store: &Store) -> Result<(), String> {
        let mut known = self.0.lock().await;
        let answer = match known.take() {
            Some((asked, answer)) if asked.elapsed() < FRESH => (asked, answer),
            _ => (Instant::now(), ask(store).await),
        };
        known.insert(answer).1.clone()
    }
}

async fn ask(store: &Store) -> Result<(), String> {
    let Ok(checked) = timeout(DEADLINE, store.check_schema()).await else {
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
