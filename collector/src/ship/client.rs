//! The HTTP side: one request at a time to one of several ingest URLs.

use std::net::IpAddr;
use std::time::Duration;

use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER};
use reqwest::{Response, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use whence_model::CollectorId;

use crate::spool::Waiting;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// ClickHouse may take its time; the batch is safe in the spool.
const REQUEST_TIMEOUT: Duration = Duration::from_mins(1);
/// Header by which a collector says that the batches `from-to` will never come.
const MISSING_HEADER: &str = "whence-missing-batches";

/// No client can be made of these settings.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("no ingest URL was given")]
    NoUrl,
    #[error("cannot make an HTTP client: {0}")]
    Http(#[from] reqwest::Error),
    #[error(
        "this collector has not enrolled at ingest, and no enrolment token was given (--enroll-token-file)"
    )]
    NoToken,
    #[error("ingest refused to enrol this collector: {0}")]
    Refused(String),
}

/// What ingest needs to know a collector.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Enrolment {
    pub collector_id: CollectorId,
    /// Ed25519, 64 hexadecimal digits.
    pub public_key: String,
    pub host: String,
}

/// What ingest made of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Confirmed,
    Later {
        reason: String,
        after: Option<Duration>,
    },
    /// Ingest does not know this collector.
    Unknown,
    /// Ingest's newest batch is `last`, and this one does not follow it.
    OutOfOrder {
        last: u64,
    },
    Never {
        reason: String,
    },
}

/// Error answers of ingest.
#[derive(Deserialize)]
struct Problem {
    code: String,
    message: String,
    last_number: Option<u64>,
}

/// Sends to ingest.
pub struct Client {
    http: reqwest::Client,
    urls: Vec<String>,
    current: usize,
    enrolment: Enrolment,
    token: Option<SecretString>,
    missing: Option<(u64, u64)>,
}

impl Client {
    /// A client for these URLs, tried in their order. `token` is needed until the collector has enrolled.
    pub fn new(
        urls: &[String],
        enrolment: Enrolment,
        token: Option<SecretString>,
    ) -> Result<Self, ClientError> {
        if urls.is_empty() {
            return Err(ClientError::NoUrl);
        }
        let mut http = reqwest::Client::builder().connect_timeout(CONNECT_TIMEOUT).timeout(REQUEST_TIMEOUT);
        if urls.iter().all(|url| is_loopback(url)) {
            // A proxy of the environment does not know this machine's loopback.
            http = http.no_proxy();
        }
        let http = http.build()?;
        let urls = urls.iter().map(|url| url.trim_end_matches('/').to_owned()).collect();
        Ok(Self { http, urls, current: 0, enrolment, token, missing: None })
    }

    /// Sends a batch to the current URL.
    pub async fn send(&mut self, batch: &Waiting) -> Answer {
        let mut request = self
            .http
            .post(self.url("/v1/batches"))
            .header(CONTENT_TYPE, whence_wire::CONTENT_TYPE)
            .header(CONTENT_ENCODING, whence_wire::CONTENT_ENCODING)
            .body(batch.bytes.clone());
        if let Some((from, to)) = self.missing {
            request = request.header(MISSING_HEADER, format!("{from}-{to}"));
        }
        let answer = match request.send().await {
            Ok(response) if response.status() == StatusCode::OK => Answer::Confirmed,
            Ok(response) => judge(response).await,
            Err(error) => Answer::Later { reason: error.without_url().to_string(), after: None },
        };
        if answer == Answer::Confirmed {
            self.missing = None;
        }
        answer
    }

    /// Makes this collector known to ingest.
    pub async fn enroll(&self) -> Result<(), ClientError> {
        let token = self.token.as_ref().ok_or(ClientError::NoToken)?;
        let request =
            self.http.post(self.url("/v1/enroll")).bearer_auth(token.expose_secret()).json(&self.enrolment);
        let response = request.send().await?;
        if response.status().is_success() {
            return Ok(());
        }
        let status = response.status();
        let problem = response.json::<Problem>().await;
        Err(ClientError::Refused(problem.map_or_else(|_| status.to_string(), |problem| problem.message)))
    }

    /// Uses the next URL from now on.
    pub fn fail_over(&mut self) {
        self.current = (self.current + 1) % self.urls.len();
    }

    /// Says with the next batch that batches `from` to `to` will never come.
    pub fn declare_missing(&mut self, from: u64, to: u64) {
        self.missing = Some((from, to));
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.urls.get(self.current).map_or("", String::as_str))
    }
}

fn is_loopback(url: &str) -> bool {
    let Ok(url) = reqwest::Url::parse(url) else { return false };
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.to_canonical().is_loopback())
}

async fn judge(response: Response) -> Answer {
    let status = response.status();
    let after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    let after = after.map(Duration::from_secs);
    let problem = response.json::<Problem>().await.ok();
    let code = problem.as_ref().map_or("", |problem| problem.code.as_str());
    let reason = match &problem {
        Some(problem) => format!("{}: {}", problem.code, problem.message),
        None => status.to_string(),
    };
    match (status, code) {
        (StatusCode::UNAUTHORIZED, "unknown_collector") => Answer::Unknown,
        (StatusCode::CONFLICT, "out_of_order") => {
            Answer::OutOfOrder { last: problem.and_then(|problem| problem.last_number).unwrap_or(0) }
        }
        // Answers of ingest itself; any other 4xx may come from something between us and it.
        (
            StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE | StatusCode::UNPROCESSABLE_ENTITY,
            code,
        ) if !code.is_empty() => Answer::Never { reason },
        _ => Answer::Later { reason, after },
    }
}

#[cfg(test)]
mod tests {
    use super::is_loopback;

    #[test]
    fn loopback_is_told_from_the_network() {
        for url in ["http://127.0.0.1:8089", "https://localhost/x", "http://[::1]:1", "http://127.8.8.8"] {
            assert!(is_loopback(url), "{url}");
        }
        for url in ["http://10.0.0.1", "https://localhost.example.com", "http://[fe80::1]:1", "127.0.0.1"] {
            assert!(!is_loopback(url), "{url}");
        }
    }
}
