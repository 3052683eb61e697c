//! Who sends: keys of collectors, remembered for a few seconds, and the enrolment token.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, header};
use secrecy::{ExposeSecret, SecretString};
use subtle::ConstantTimeEq;
use whence_chain::PublicKey;
use whence_model::CollectorId;
use whence_store::Store;

use crate::refusal::Refusal;

/// Keys of collectors as ClickHouse has them, looked up again after a while so that a revocation takes effect.
pub struct Keys {
    lifetime: Duration,
    known: Mutex<HashMap<CollectorId, Known>>,
}

#[derive(Clone, Copy)]
struct Known {
    public_key: [u8; 32],
    is_revoked: bool,
    looked_up: Instant,
}

impl Keys {
    pub fn new(lifetime: Duration) -> Self {
        Self { lifetime, known: Mutex::default() }
    }

    /// The key that `collector` signs with.
    pub async fn key(&self, store: &Store, collector: CollectorId) -> Result<PublicKey, Refusal> {
        let known = match self.recall(collector) {
            Some(known) => known,
            None => self.look_up(store, collector).await?,
        };
        if known.is_revoked {
            return Err(Refusal::Revoked);
        }
        // Enrolment lets no other bytes through.
        PublicKey::from_bytes(&known.public_key).ok_or(Refusal::WrongSignature)
    }

    fn recall(&self, collector: CollectorId) -> Option<Known> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&collector).copied()?;
        (known.looked_up.elapsed() < self.lifetime).then_some(known)
    }

    async fn look_up(&self, store: &Store, collector: CollectorId) -> Result<Known, Refusal> {
        let looked_up = Instant::now();
        // One that is not known is not remembered: it enrols next, and a stranger's ids must not fill the memory.
        let row = store.collector(collector).await?.ok_or(Refusal::UnknownCollector)?;
        let known = Known { public_key: row.public_key, is_revoked: row.revoked_at.is_some(), looked_up };
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(collector, known);
        Ok(known)
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
