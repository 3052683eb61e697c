//! `POST /v1/enroll`: a collector that knows the token makes its id and its public key known.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use whence_chain::PublicKey;
use whence_model::CollectorId;
use whence_store::{Enrolment, StoreError};

use crate::authenticate::check_token;
use crate::receive;
use crate::refusal::Refusal;
use crate::router::Ingest;

const BODY_BYTES: usize = 16 << 10;
const HOST_BYTES: usize = 255;

/// Texts first, so that each is refused with a word about what is wrong with it.
#[derive(Deserialize)]
struct Request {
    collector_id: String,
    public_key: String,
    host: String,
}

/// The answer to a collector that may send now.
#[derive(Serialize)]
pub struct Enrolled {
    /// `new`, or `before` when it had enrolled before with the same key.
    enrolled: &'static str,
}

pub async fn enroll(
    State(ingest): State<Arc<Ingest>>,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<Enrolled>), Refusal> {
    check_token(&headers, &ingest.config.enroll_token)?;
    let _admission = Ingest::admit(&ingest, &headers)?;
    let body = receive::body(&ingest.config, body, BODY_BYTES).await?;
    let request: Request = serde_json::from_slice(&body).map_err(|error| Refusal::InvalidEnrolment {
        field: "the body",
        problem: format!("must be a JSON object with collector_id, public_key and host: {error}"),
    })?;
    let (id, public_key, host) = request.check()?;
    // One after the other: of two keys for one id, the second is refused. Two services may welcome both at once; then
    // the store still holds to one, and what the other signs is refused.
    let _turn = ingest.enrolling.lock().await;
    let enrolment = match ingest.config.store.enroll_collector(id, &host, public_key).await {
        Ok(enrolment) => enrolment,
        Err(StoreError::Rejected { reason }) => return Err(Refusal::EnrolmentRefused { reason }),
        Err(error) => return Err(error.into()),
    };
    if enrolment == Enrolment::Before {
        return Ok((StatusCode::OK, Json(Enrolled { enrolled: "before" })));
    }
    ingest.metrics.collectors_enrolled.inc();
    tracing::info!(collector = %id, "collector enrolled");
    Ok((StatusCode::CREATED, Json(Enrolled { enrolled: "new" })))
}

impl Request {
    fn check(self) -> Result<(CollectorId, [u8; 32], String), Refusal> {
        let invalid = |field, problem: &str| Refusal::InvalidEnrolment { field, problem: problem.into() };
        let id = self.collector_id.parse();
        let id = id.map_err(|_| invalid("collector_id", "must be a UUID"))?;
        let mut public_key = [0; 32];
        let is_hex = hex::decode_to_slice(&self.public_key, &mut public_key).is_ok();
        if !is_hex || PublicKey::from_bytes(&public_key).is_none() {
            return Err(invalid("public_key", "must be an Ed25519 public key in 64 hexadecimal digits"));
        }
        if self.host.trim().is_empty() || self.host.len() > HOST_BYTES {
            return Err(invalid("host", "must be the name of the host, of 1 to 255 bytes"));
        }
        if self.host.chars().any(char::is_control) {
            return Err(invalid("host", "must be a name without control characters"));
        }
        Ok((id, public_key, self.host))
    }
}
