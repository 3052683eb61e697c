//! What ingest needs to run, and the limits it holds its senders to.

use std::time::Duration;

use secrecy::SecretString;
use tokio_rustls::TlsAcceptor;
use whence_store::Store;
use whence_wire::Limits;

use crate::external::Sources;

/// Settings of an ingest service.
#[derive(Clone)]
pub struct IngestConfig {
    pub store: Store,
    /// What a collector must know to enrol.
    pub enroll_token: SecretString,
    /// TLS of the listener; None to speak without.
    pub tls: Option<TlsAcceptor>,
    /// Who may send events that are not signed.
    pub sources: Sources,
    /// Most bytes of a request's body, as sent. A collector seals a batch at 4 MiB of text.
    pub body_bytes: usize,
    /// What a batch may hold, after decompression.
    pub limits: Limits,
    /// How long a sender may take for the body of one request.
    pub body_timeout: Duration,
    /// How long a request waits for the one before it, when its collector says that this is on its way.
    pub follow_timeout: Duration,
    /// Bytes of all requests that are worked on at once, as sent; more are asked to come again. One without a Content-Length
    /// counts as the largest.
    pub in_flight_bytes: usize,
    /// Memory of all batches that wait for ClickHouse, about; more wait until there is room before they are decompressed.
    pub decoded_bytes: usize,
    /// How long a key is used before it is looked up again: how long a revoked collector may still send.
    pub key_lifetime: Duration,
    /// How long requests may go on after the service was told to stop.
    pub drain: Duration,
}

impl IngestConfig {
    /// Settings for this store and enrolment token, everything else as usual.
    pub fn new(store: Store, enroll_token: SecretString) -> Self {
        Self {
            store,
            enroll_token,
            tls: None,
            sources: Sources::default(),
            body_bytes: 16 << 20,
            limits: Limits::default(),
            body_timeout: Duration::from_secs(30),
            follow_timeout: Duration::from_secs(10),
            in_flight_bytes: 64 << 20,
            decoded_bytes: 256 << 20,
            key_lifetime: Duration::from_secs(5),
            drain: Duration::from_secs(8),
        }
    }
}
