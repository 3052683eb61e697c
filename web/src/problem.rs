//! Every way to say no: a title and a message for people, a stable code for programs, a status for both.

use std::sync::Arc;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use whence_store::StoreError;

use crate::people::Role;
use crate::query::FieldProblem;

/// Seconds after which a request that could not be served now is worth another try.
const RETRY_AFTER_SECONDS: u64 = 2;

/// Why a request was not served. The message says what was wrong and what would be right, and never the cause inside.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    #[error("there is nothing at this address; look for it in the history")]
    NotFound,
    #[error("there is no event {id}; it may be older than what is kept")]
    NoSuchEvent { id: String },
    #[error("there is no finished export {id}; give the x-request-id of the answer that it came in")]
    NoSuchExport { id: String },
    #[error("this address does not take this method")]
    MethodNotAllowed,
    #[error("the address or the form cannot be read; use the form on the page itself")]
    Malformed,
    #[error("{}", list(.0))]
    Invalid(Vec<FieldProblem>),
    // The person
    #[error("sign in first")]
    SignInNeeded,
    #[error(
        "the API token is missing, wrong, revoked or of a disabled account; send it as `Authorization: Bearer TOKEN`"
    )]
    TokenNeeded,
    #[error("this needs the role {needed}, and {person} is {role}; ask an administrator", person = crate::text::visible(.person))]
    Forbidden { person: String, role: Role, needed: Role },
    #[error("this request came from another site; use the form on the page itself")]
    CrossSite,
    #[error("signing in failed too often; wait {minutes} minutes")]
    Throttled { minutes: u64 },
    #[error("too many exports run at once; wait until one of them is done")]
    TooManyExports,
    // The service
    #[error("this would read too much; choose a shorter time window or narrower filters")]
    TooBig,
    #[error("ClickHouse cannot be reached now; try again in a moment")]
    StoreUnavailable(#[source] StoreError),
    #[error("ClickHouse is not set up as Whence needs it; an administrator finds the reason in the log")]
    StoreMisconfigured(#[source] StoreError),
    #[error("this could not be written to the audit of reads, so nothing is shown; try again in a moment")]
    NotAudited(#[source] StoreError),
    #[error("{0}")]
    NotReady(String),
    #[error("the service is stopping")]
    Stopping,
    #[error("something went wrong here; the log has the reason under this request's id")]
    Internal(#[source] Box<dyn std::error::Error + Send + Sync>),
}

fn list(problems: &[FieldProblem]) -> String {
    let problems = problems.iter().map(|problem| format!("{} {}", problem.field, problem.message));
    problems.collect::<Vec<_>>().join("; ")
}

impl Problem {
    /// HTTP status, stable code, and title.
    pub fn facts(&self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::NotFound => (StatusCode::NOT_FOUND, "not_found", "Not found"),
            Self::NoSuchEvent { .. } => (StatusCode::NOT_FOUND, "no_such_event", "No such event"),
            Self::NoSuchExport { .. } => (StatusCode::NOT_FOUND, "no_such_export", "No such export"),
            Self::MethodNotAllowed => (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "Not this way"),
            Self::Malformed => (StatusCode::BAD_REQUEST, "malformed", "That cannot be read"),
            Self::Invalid(_) => (StatusCode::BAD_REQUEST, "invalid_query", "That cannot be asked"),
            Self::SignInNeeded => (StatusCode::UNAUTHORIZED, "sign_in_needed", "Sign in first"),
            Self::TokenNeeded => (StatusCode::UNAUTHORIZED, "token_needed", "A token is needed"),
            Self::Forbidden { .. } => (StatusCode::FORBIDDEN, "forbidden", "Not with this role"),
            Self::CrossSite => (StatusCode::FORBIDDEN, "cross_site", "From another site"),
            Self::Throttled { .. } => (StatusCode::TOO_MANY_REQUESTS, "throttled", "Too many attempts"),
            Self::TooManyExports => (StatusCode::TOO_MANY_REQUESTS, "too_many_exports", "Too many exports"),
            Self::TooBig => (StatusCode::UNPROCESSABLE_ENTITY, "too_big", "Too much to read"),
            Self::StoreUnavailable(_) => {
                (StatusCode::SERVICE_UNAVAILABLE, "store_unavailable", "ClickHouse cannot be reached")
            }
            Self::StoreMisconfigured(_) => {
                (StatusCode::SERVICE_UNAVAILABLE, "store_misconfigured", "ClickHouse is not set up")
            }
            Self::NotAudited(_) => (StatusCode::SERVICE_UNAVAILABLE, "not_audited", "Not shown"),
            Self::NotReady(_) => (StatusCode::SERVICE_UNAVAILABLE, "not_ready", "Not ready"),
            Self::Stopping => (StatusCode::SERVICE_UNAVAILABLE, "stopping", "Stopping"),
            Self::Internal(_) => (StatusCode::INTERNAL_SERVER_ERROR, "internal", "Something went wrong"),
        }
    }

    /// Headers that belong to the answer.
    pub fn add_headers(&self, response: &mut Response) {
        let headers = response.headers_mut();
        match self {
            Self::Throttled { minutes } => headers.insert(header::RETRY_AFTER, (minutes * 60).into()),
            _ if self.facts().0 == StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(header::RETRY_AFTER, RETRY_AFTER_SECONDS.into())
            }
            Self::TokenNeeded => headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")),
            _ => None,
        };
    }

    /// One line in the log, with the cause where there is one.
    pub fn log(&self) {
        let (status, code, _) = self.facts();
        let cause = std::error::Error::source(self).map(ToString::to_string).unwrap_or_default();
        // The text of ClickHouse has many lines and is long.
        let cause: String = cause.lines().next().unwrap_or_default().chars().take(300).collect();
        match self {
            Self::NotReady(_) | Self::Stopping => tracing::debug!(code, "{self}"),
            _ if status.is_server_error() => tracing::error!(code, cause, "request failed"),
            _ => tracing::debug!(code, "request refused"),
        }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::TooBig => Self::TooBig,
            StoreError::Retryable { .. } | StoreError::SessionEnded | StoreError::SessionBusy => {
                Self::StoreUnavailable(error)
            }
            StoreError::Misconfigured { .. } => Self::StoreMisconfigured(error),
            StoreError::Rejected { .. } | StoreError::Corrupt { .. } => Self::Internal(error.into()),
        }
    }
}

impl From<askama::Error> for Problem {
    fn from(error: askama::Error) -> Self {
        Self::Internal(error.into())
    }
}

impl From<Vec<FieldProblem>> for Problem {
    fn from(problems: Vec<FieldProblem>) -> Self {
        Self::Invalid(problems)
    }
}

/// Leaves the problem in the response, for the layer around every handler to log it and put it into words.
impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.facts().0.into_response();
        response.extensions_mut().insert(Arc::new(self));
        response
    }
}
