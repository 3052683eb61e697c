//! Every way to say no: a stable code for programs, a message for people, a status that tells the collector whether
//! to wait, to enrol, or to put the batch into quarantine.

use std::sync::Arc;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use whence_store::StoreError;
use whence_wire::WireError;

use crate::external::BadLine;

/// Seconds after which a request that could not be served now is worth another try.
const RETRY_AFTER_SECONDS: u16 = 1;

/// Why a request was not served. The message says what was wrong and what would be right.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    // The request
    #[error(
        "there is nothing at this path; there are POST /v1/batches, POST /v1/events, POST /v1/enroll, GET /live, GET /ready and GET /metrics"
    )]
    NotFound,
    #[error(
        "this path does not take this method; POST /v1/batches, /v1/events and /v1/enroll, GET /live, /ready and /metrics"
    )]
    MethodNotAllowed,
    #[error("{field} is {found:?}; it must be {expected}")]
    UnsupportedMediaType { field: &'static str, found: String, expected: &'static str },
    #[error("the body has more than {limit} bytes; send smaller batches")]
    BodyTooLarge { limit: usize },
    #[error("the body did not arrive within {seconds} s; send it faster, or in smaller batches")]
    BodyTimeout { seconds: u64 },
    #[error("the body broke off; send all of it")]
    BodyBrokenOff,
    #[error("{0}; send a batch as whence-wire encodes it")]
    Malformed(WireError),
    #[error("{0}; send smaller batches")]
    TooLarge(WireError),
    /// A newer collector than this service: another one may know it, and this one will after its update.
    #[error("{0}; update ingest")]
    UnknownValue(WireError),
    #[error("{field} {problem}")]
    InvalidEnrolment { field: &'static str, problem: String },
    // Events of other senders
    #[error(
        "{bad_lines} lines are no events, so nothing was stored; mend them, or leave them out, and send all of it again"
    )]
    BadLines { bad_lines: usize, lines: Vec<BadLine> },
    #[error("the body is not compressed as its Content-Encoding says: {source}")]
    Undecodable { source: std::io::Error },
    #[error("the events lie in {found} months; at most {limit} can be stored at once: send smaller requests")]
    TooManyMonthsOfEvents { found: usize, limit: usize },
    #[error("Idempotency-Key must have 1 to {limit} printable characters of ASCII")]
    InvalidKey { limit: usize },
    #[error("other events were stored under this Idempotency-Key; give each request a key of its own")]
    ConflictingKey,
    #[error("nobody may send unsigned events here; give ingest a file of senders with --event-sources-file")]
    NoSources,
    #[error("the token is missing or that of no sender; send it as `Authorization: Bearer TOKEN`")]
    WrongSourceToken,
    // The sender
    #[error("this collector has not enrolled; enrol it with POST /v1/enroll and the enrolment token")]
    UnknownCollector,
    #[error(
        "this collector was revoked; if that was a mistake, start it with a new spool directory so that it enrols anew"
    )]
    Revoked,
    #[error(
        "the signature is not by the key that this collector enrolled with; two collectors may use one id: start one of them with a new spool directory"
    )]
    WrongSignature,
    #[error("the enrolment token is missing or wrong; send it as `Authorization: Bearer TOKEN`")]
    WrongToken,
    #[error("{reason}; start the collector with a new spool directory so that it enrols as a new one")]
    EnrolmentRefused { reason: String },
    // The batch
    #[error(
        "{what} of batch {number} does not fit its contents: it was changed after it was sealed; send what was sealed"
    )]
    ContentsChanged { what: &'static str, number: u64 },
    #[error("batch {number} does not follow batch {last}, the newest that is stored; send batch {next}, or say which are missing with the header {header}: {next}-{before}", header = crate::receive::MISSING_HEADER)]
    OutOfOrder { number: u64, last: u64, next: u64, before: u64, next_sequence: u64 },
    #[error(
        "batch {number}, which this one follows, was not stored here within {seconds} s; send this one again when it is"
    )]
    NotFollowing { number: u64, seconds: u64 },
    #[error(
        "batch {number} was stored before with other contents; two collectors may use one id: start one of them with a new spool directory"
    )]
    ConflictingBatch { number: u64, last: u64 },
    #[error("batch {number} names {found} as {what}, and it must be {expected}")]
    BrokenChain { number: u64, what: &'static str, found: String, expected: String },
    #[error(
        "the events of batch {number} lie in {found} months; at most {limit} can be stored at once: send smaller batches"
    )]
    TooManyMonths { number: u64, found: usize, limit: usize },
    // This service
    #[error("too many requests at once; try again later")]
    Busy,
    #[error("this service is stopping; try another or try again later")]
    Stopping,
    #[error("ClickHouse cannot store this now; try again later")]
    StoreUnavailable(#[source] StoreError),
    #[error(
        "ClickHouse is not set up as it must be; run `whence migrate` and check the user and its grants (the log of ingest says more)"
    )]
    StoreMisconfigured(#[source] StoreError),
    #[error("{0}")]
    NotReady(String),
    #[error("ingest failed; try again later (its log says more)")]
    Internal(#[source] anyhow::Error),
}

impl Refusal {
    /// The status and the code, which never change.
    pub fn status_and_code(&self) -> (StatusCode, &'static str) {
        match self {
            Self::NotFound => (StatusCode::NOT_FOUND, "not_found"),
            Self::MethodNotAllowed => (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed"),
            Self::UnsupportedMediaType { .. } => {
                (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type")
            }
            Self::BodyTooLarge { .. } | Self::TooLarge(_) => (StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
            Self::BodyTimeout { .. } => (StatusCode::REQUEST_TIMEOUT, "body_timeout"),
            // Not 400: the batch is good, its way was not.
            Self::BodyBrokenOff => (StatusCode::REQUEST_TIMEOUT, "body_broken_off"),
            Self::Malformed(_) | Self::Undecodable { .. } => (StatusCode::BAD_REQUEST, "malformed"),
            // Not 4xx: a collector keeps the batch until ingest is updated.
            Self::UnknownValue(_) => (StatusCode::NOT_IMPLEMENTED, "unknown_value"),
            Self::BadLines { .. } => (StatusCode::UNPROCESSABLE_ENTITY, "bad_lines"),
            Self::InvalidKey { .. } => (StatusCode::BAD_REQUEST, "invalid_key"),
            Self::ConflictingKey => (StatusCode::UNPROCESSABLE_ENTITY, "conflicting_key"),
            Self::NoSources => (StatusCode::FORBIDDEN, "no_sources"),
            Self::InvalidEnrolment { .. } => (StatusCode::UNPROCESSABLE_ENTITY, "invalid_enrolment"),
            Self::UnknownCollector => (StatusCode::UNAUTHORIZED, "unknown_collector"),
            Self::Revoked => (StatusCode::FORBIDDEN, "revoked"),
            Self::WrongSignature => (StatusCode::UNAUTHORIZED, "wrong_signature"),
            Self::WrongToken | Self::WrongSourceToken => (StatusCode::UNAUTHORIZED, "wrong_token"),
            Self::EnrolmentRefused { .. } => (StatusCode::CONFLICT, "enrolment_refused"),
            Self::ContentsChanged { .. } => (StatusCode::UNPROCESSABLE_ENTITY, "contents_changed"),
            Self::OutOfOrder { .. } => (StatusCode::CONFLICT, "out_of_order"),
            Self::NotFollowing { .. } => (StatusCode::CONFLICT, "not_following"),
            Self::ConflictingBatch { .. } => (StatusCode::CONFLICT, "conflicting_batch"),
            Self::BrokenChain { .. } => (StatusCode::UNPROCESSABLE_ENTITY, "broken_chain"),
            Self::TooManyMonths { .. } | Self::TooManyMonthsOfEvents { .. } => {
                (StatusCode::UNPROCESSABLE_ENTITY, "too_many_months")
            }
            Self::Busy => (StatusCode::TOO_MANY_REQUESTS, "busy"),
            Self::Stopping => (StatusCode::SERVICE_UNAVAILABLE, "stopping"),
            Self::StoreUnavailable(_) => (StatusCode::SERVICE_UNAVAILABLE, "store_unavailable"),
            Self::StoreMisconfigured(_) => (StatusCode::SERVICE_UNAVAILABLE, "store_misconfigured"),
            Self::NotReady(_) => (StatusCode::SERVICE_UNAVAILABLE, "not_ready"),
            Self::Internal(_) => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
        }
    }

    /// The number of the newest stored batch, for a collector that must find its place again.
    fn last_number(&self) -> Option<u64> {
        match self {
            Self::OutOfOrder { last, .. } | Self::ConflictingBatch { last, .. } => Some(*last),
            _ => None,
        }
    }

    fn next_sequence(&self) -> Option<u64> {
        match self {
            Self::OutOfOrder { next_sequence, .. } => Some(*next_sequence),
            _ => None,
        }
    }

    /// The answer with this refusal in it.
    pub fn answer(&self, request_id: &str) -> Response {
        let (status, code) = self.status_and_code();
        let lines = match self {
            Self::BadLines { lines, .. } => lines.as_slice(),
            _ => &[],
        };
        let problem = Problem {
            code,
            message: self.to_string(),
            request_id,
            last_number: self.last_number(),
            next_sequence: self.next_sequence(),
            lines,
        };
        let mut response = (status, Json(problem)).into_response();
        if matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
            response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER_SECONDS.into());
        }
        if matches!(self, Self::WrongToken | Self::WrongSourceToken) {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

#[derive(Serialize)]
struct Problem<'a> {
    code: &'static str,
    message: String,
    request_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_number: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_sequence: Option<u64>,
    /// The first lines that are no events.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    lines: &'a [BadLine],
}

impl From<WireError> for Refusal {
    fn from(error: WireError) -> Self {
        match error {
            WireError::TooLarge { .. } | WireError::TooMany { .. } | WireError::TooLong { .. } => {
                Self::TooLarge(error)
            }
            WireError::UnknownValue { .. } => Self::UnknownValue(error),
            _ => Self::Malformed(error),
        }
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Retryable { .. }
            | StoreError::SessionEnded
            | StoreError::SessionBusy
            | StoreError::TooBig => Self::StoreUnavailable(error),
            StoreError::Misconfigured { .. } => Self::StoreMisconfigured(error),
            StoreError::Rejected { .. } | StoreError::Corrupt { .. } => Self::Internal(error.into()),
        }
    }
}

/// Leaves the refusal in the response, for the layer around every handler to count, log and put into words.
impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = self.status_and_code().0.into_response();
        response.extensions_mut().insert(Arc::new(self));
        response
    }
}
