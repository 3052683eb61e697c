//! The HTTP side: requests to one of several ingest URLs.
//!
//! A URL is used until it fails; then the next one is, in the order in which they were given and from the first again after
//! the last. One that asked for a rest with `Retry-After` is passed over until the rest is over.

use std::error::Error;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER};
use reqwest::{Response, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use whence_model::CollectorId;

use super::Transport;
use crate::identity::Identity;
use crate::spool::Waiting;

/// Longest rest that an ingest gets.
const LONGEST_REST: Duration = Duration::from_mins(5);
/// Header by which a collector says that the batches `from-to` will never come.
const MISSING_HEADER: &str = "whence-missing-batches";
/// Header by which a collector says that batch N, which the first of these follows, is on its way in another request.
const FOLLOWS_HEADER: &str = "whence-follows-batch";

/// No client can be made of these settings.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("no ingest URL was given")]
    NoUrl,
    #[error("cannot use TLS: {}", in_full(.0))]
    Tls(#[source] reqwest::Error),
    #[error("cannot reach ingest: {}", in_full(.0))]
    Unreachable(#[source] reqwest::Error),
    #[error("{path}: {source}")]
    File { path: PathBuf, source: std::io::Error },
    #[error("{path} holds no certificate in PEM")]
    NoCertificate { path: PathBuf },
    #[error("{certificate} and {key} are no certificate and key in PEM: {}", in_full(source))]
    Identity { certificate: PathBuf, key: PathBuf, source: reqwest::Error },
    // Without the URL: it may hold a password.
    #[error("the URL of the proxy cannot be used; it must be http://HOST:PORT or https://HOST:PORT")]
    Proxy,
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

impl Enrolment {
    /// That of the collector with this identity, on this host.
    pub fn of(identity: &Identity, host: String) -> Self {
        let public_key = hex::encode(identity.key.public().to_bytes());
        Self { collector_id: identity.id, public_key, host }
    }
}

/// What ingest made of a batch, or of the first of several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It has all batches up to this one.
    Confirmed {
        through: u64,
    },
    Later {
        reason: String,
        after: Option<Duration>,
    },
    /// Ingest does not know this collector.
    Unknown,
    /// Ingest's newest batch is `last`, and this one does not follow it.
    OutOfOrder {
        last: u64,
        /// Sequence number of the first event that it does not have, where it says so.
        next_sequence: Option<u64>,
    },
    Never {
        reason: String,
    },
}

/// The answer of ingest to what it has taken.
#[derive(Deserialize)]
struct Confirmed {
    /// The last batch of the request that it has.
    number: u64,
}

/// Error answers of ingest.
#[derive(Deserialize)]
struct Problem {
    code: String,
    message: String,
    last_number: Option<u64>,
    next_sequence: Option<u64>,
}

struct Endpoint {
    url: String,
    rests_until: Option<Instant>,
}

/// Sends to ingest.
pub struct Client {
    http: reqwest::Client,
    urls: Vec<Endpoint>,
    current: usize,
    enrolment: Enrolment,
    token: Option<SecretString>,
}

/// What ingest must know of those before to take the batches of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Before {
    /// Whatever is before them was confirmed.
    Confirmed,
    /// Batches from this one to this one will never come.
    Missing(u64, u64),
    /// This batch is on its way, in the request before.
    OnItsWay(u64),
}

impl Client {
    /// A client for these URLs, tried in their order. `token` is needed until the collector has enrolled.
    pub fn new(
        urls: &[String],
        transport: &Transport,
        enrolment: Enrolment,
        token: Option<SecretString>,
    ) -> Result<Self, ClientError> {
        if urls.is_empty() {
            return Err(ClientError::NoUrl);
        }
        let http = transport.client(urls)?;
        let endpoint = |url: &String| Endpoint { url: url.trim_end_matches('/').into(), rests_until: None };
        let urls = urls.iter().map(endpoint).collect();
        Ok(Self { http, urls, current: 0, enrolment, token })
    }

    /// The URL in use.
    pub fn url(&self) -> &str {
        self.urls.get(self.current).map_or("", |endpoint| &endpoint.url)
    }

    /// Sends batches that follow each other, at least one, to the URL in use.
    pub fn send(&self, run: &[Waiting], before: Before) -> impl Future<Output = Answer> + Send + use<> {
        let mut request = self
            .http
            .post(format!("{}/v1/batches", self.url()))
            .header(CONTENT_TYPE, whence_wire::CONTENT_TYPE)
            .header(CONTENT_ENCODING, whence_wire::CONTENT_ENCODING)
            .body(run.iter().map(|batch| batch.bytes.as_slice()).collect::<Vec<_>>().concat());
        match before {
            Before::Confirmed => {}
            Before::Missing(from, to) => request = request.header(MISSING_HEADER, format!("{from}-{to}")),
            Before::OnItsWay(number) => request = request.header(FOLLOWS_HEADER, number),
        }
        let numbers: Vec<u64> = run.iter().map(|batch| batch.number).collect();
        async move {
            match request.send().await {
                Ok(response) if response.status() == StatusCode::OK => confirmed(response, &numbers).await,
                Ok(response) => judge(response).await,
                Err(error) => Answer::Later { reason: in_full(&error.without_url()), after: None },
            }
        }
    }

    /// Makes this collector known to ingest.
    pub async fn enroll(&self) -> Result<(), ClientError> {
        let token = self.token.as_ref().ok_or(ClientError::NoToken)?;
        let request = self.http.post(format!("{}/v1/enroll", self.url()));
        let request = request.bearer_auth(token.expose_secret()).json(&self.enrolment);
        let response = request.send().await.map_err(|error| ClientError::Unreachable(error.without_url()))?;
        if response.status().is_success() {
            return Ok(());
        }
        let status = response.status();
        let problem = response.json::<Problem>().await;
        Err(ClientError::Refused(problem.map_or_else(|_| status.to_string(), |problem| problem.message)))
    }

    /// Uses another URL from now on. `after`: how long the one in use asked to be left alone.
    pub fn fail_over(&mut self, after: Option<Duration>) {
        let now = Instant::now();
        if let Some(failed) = self.urls.get_mut(self.current) {
            failed.rests_until = after.map(|after| now + after.min(LONGEST_REST));
        }
        let others = (1..=self.urls.len()).map(|step| (self.current + step) % self.urls.len());
        // The first of those that rest least.
        let rest = |&place: &usize| self.urls.get(place).map(|endpoint| endpoint.rest(now));
        self.current = others.min_by_key(rest).unwrap_or(0);
    }

    /// How long the URL in use is to be left alone.
    pub fn rest(&self) -> Duration {
        self.urls.get(self.current).map_or(Duration::ZERO, |endpoint| endpoint.rest(Instant::now()))
    }
}

impl Endpoint {
    fn rest(&self, now: Instant) -> Duration {
        self.rests_until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now))
    }
}

/// The error with its causes: by itself, one of HTTP says no more than that it failed.
fn in_full(error: &reqwest::Error) -> String {
    let causes = std::iter::successors(Some(error as &dyn Error), |&error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// Seconds, or a time.
fn retry_after(value: &str) -> Option<Duration> {
    match value.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => httpdate::parse_http_date(value).ok()?.duration_since(SystemTime::now()).ok(),
    }
}

async fn confirmed(response: Response, numbers: &[u64]) -> Answer {
    match response.json::<Confirmed>().await.map(|confirmed| confirmed.number) {
        Ok(through) if numbers.contains(&through) => Answer::Confirmed { through },
        _ => Answer::Later { reason: "an answer that names no batch of the request".into(), after: None },
    }
}

async fn judge(response: Response) -> Answer {
    let status = response.status();
    let after = response.headers().get(RETRY_AFTER).and_then(|value| retry_after(value.to_str().ok()?));
    let problem = response.json::<Problem>().await.ok();
    let code = problem.as_ref().map_or("", |problem| problem.code.as_str());
    let reason = match &problem {
        Some(problem) => format!("{}: {}", problem.code, problem.message),
        None => status.to_string(),
    };
    match (status, code) {
        (StatusCode::UNAUTHORIZED, "unknown_collector") => Answer::Unknown,
        (StatusCode::CONFLICT, "out_of_order") => Answer::OutOfOrder {
            last: problem.as_ref().and_then(|problem| problem.last_number).unwrap_or(0),
            next_sequence: problem.and_then(|problem| problem.next_sequence),
        },
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
    use super::*;

    fn client(urls: &[&str]) -> Client {
        let enrolment = Enrolment {
            collector_id: CollectorId(uuid::Uuid::nil()),
            public_key: String::new(),
            host: "db1".into(),
        };
        let urls: Vec<String> = urls.iter().map(ToString::to_string).collect();
        Client::new(&urls, &Transport::default(), enrolment, None).unwrap()
    }

    #[test]
    fn urls_are_used_in_their_order_and_one_that_rests_is_passed_over() {
        let mut client = client(&["http://127.0.0.1:1/", "http://127.0.0.1:2", "http://127.0.0.1:3"]);
        let mut used = Vec::new();
        for after in [None, Some(60), None, None, Some(30), None] {
            used.push(client.url().trim_start_matches("http://127.0.0.1:").parse::<u16>().unwrap());
            client.fail_over(after.map(Duration::from_secs));
        }
        // 2 rests when 1 fails the second time, and so does 1 when 3 fails the third.
        assert_eq!(used, [1, 2, 3, 1, 3, 1]);
        assert_eq!(client.rest(), Duration::ZERO);
    }

    #[test]
    fn when_all_rest_the_first_to_be_rested_is_next() {
        let mut client = client(&["http://127.0.0.1:1", "http://127.0.0.1:2"]);
        client.fail_over(Some(Duration::from_mins(1)));
        client.fail_over(Some(Duration::MAX));
        assert_eq!(client.url(), "http://127.0.0.1:1");
        assert!(client.rest() <= Duration::from_mins(1) && client.rest() > Duration::from_secs(30));
        client.fail_over(Some(Duration::MAX));
        assert!(client.rest() <= LONGEST_REST);
    }

    #[test]
    fn a_rest_is_asked_for_in_seconds_or_until_a_time() {
        assert_eq!(retry_after("7"), Some(Duration::from_secs(7)));
        let in_an_hour = httpdate::fmt_http_date(SystemTime::now() + Duration::from_hours(1));
        assert!(retry_after(&in_an_hour).is_some_and(|rest| rest > Duration::from_mins(50)));
        assert_eq!(retry_after("Wed, 21 Oct 2015 07:28:00 GMT"), None);
        assert_eq!(retry_after("soon"), None);
    }
}
