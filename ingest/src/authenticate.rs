//! Who sends: keys of collectors, remembered for a few seconds, and the enrolment token.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, header};
use secrecy::{ExposeSecret, SecretString};
use subtle::ConstantTimeEq;
use tokio::time::timeout;
use whence_chain::PublicKey;
use whence_model::CollectorId;
use whence_store::row::CollectorRow;
use whence_store::{Store, StoreError};

use crate::group::ANSWER_TIMEOUT;
use crate::refusal::Refusal;

/// Keys of collectors as ClickHouse has them, looked up again after a while so that a revocation takes effect. All are looked up
/// together, since a thousand collectors would else ask a thousand times.
pub struct Keys {
    lifetime: Duration,
    known: tokio::sync::Mutex<Known>,
}

#[derive(Default)]
struct Known {
    collectors: HashMap<CollectorId, Key>,
    looked_up: Option<Instant>,
}

#[derive(Clone, Copy)]
struct Key {
    public_key: [u8; 32],
    is_revoked: bool,
}

impl From<CollectorRow> for Key {
    fn from(row: CollectorRow) -> Self {
        Self { public_key: row.public_key, is_revoked: row.revoked_at.is_some() }
    }
}

impl Keys {
    pub fn new(lifetime: Duration) -> Self {
        Self { lifetime, known: tokio::sync::Mutex::default() }
    }

    /// The key that `collector` signs with.
    pub async fn key(&self, store: &Store, collector: CollectorId) -> Result<PublicKey, Refusal> {
        let mut known = self.known.lock().await;
        if known.looked_up.is_none_or(|at| at.elapsed() >= self.lifetime) {
            let looked_up = Instant::now();
            let rows = timeout(ANSWER_TIMEOUT, store.list_collectors()).await;
            let rows = rows.map_err(|_| StoreError::timed_out())??;
            let key = |row: CollectorRow| (CollectorId(row.collector_id), Key::from(row));
            known.collectors = rows.into_iter().map(key).collect();
            known.looked_up = Some(looked_up);
        }
        let found = known.collectors.get(&collector).copied();
        drop(known);
        let key = if let Some(key) = found {
            key
        } else {
            // It may have enrolled meanwhile. One that did not is not remembered: a stranger's ids must not fill the memory.
            let row = timeout(ANSWER_TIMEOUT, store.collector(collector)).await;
            let row = row.map_err(|_| StoreError::timed_out())??;
            row.ok_or(Refusal::UnknownCollector)?.into()
        };
        if key.is_revoked {
            return Err(Refusal::Revoked);
        }
        // Enrolment lets no other bytes through.
        PublicKey::from_bytes(&key.public_key).ok_or(Refusal::WrongSignature)
    }
}

/// Whether the request carries the enrolment token. Takes the same time for every wrong one of its length.
pub fn check_token(headers: &HeaderMap, token: &SecretString) -> Result<(), Refusal> {
    let value = headers.get(header::AUTHORIZATION).map_or(&[][..], |value| value.as_bytes());
    let (scheme, given) = value.split_at(value.len().min("Bearer ".len()));
    let is_bearer = scheme.eq_ignore_ascii_case(b"Bearer ");
    let is_right = bool::from(given.trim_ascii().ct_eq(token.expose_secret().as_bytes()));
    if is_bearer && is_right { Ok(()) } else { Err(Refusal::WrongToken) }
}
