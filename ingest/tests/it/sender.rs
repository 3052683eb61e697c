//! A collector as ingest sees it: seals batches, enrols, sends.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, Response, StatusCode};
use clickhouse::RowOwned;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use tower::ServiceExt;
use uuid::Uuid;
use whence_chain::{Hash, Manifest, NO_BATCH, SigningKey, content_hash, coverage_hash, event_hash};
use whence_ingest::IngestConfig;
use whence_model::{CollectorId, Coverage, CoverageState, Event, Provider, Server, Timestamp};
use whence_store::ConnectOptions;
use whence_testkit::{TestDatabase, sample};
use whence_wire::Batch;

pub const TOKEN: &str = "let-me-in";
pub const SECOND: i64 = 1_000_000_000;

pub fn config(database: &TestDatabase) -> IngestConfig {
    let config = IngestConfig::new(database.store.clone(), TOKEN.to_owned().into());
    IngestConfig { key_lifetime: Duration::ZERO, ..config }
}

/// A migrated database, a service on it, and a collector that has enrolled.
pub async fn enrolled(test: &str) -> (TestDatabase, Router, Collector) {
    let database = TestDatabase::new(&format!("ingest_{test}")).await;
    let router = whence_ingest::router(config(&database));
    let collector = Collector::new();
    let answer = send(&router, collector.enrolment(TOKEN)).await;
    assert_eq!(answer.0, StatusCode::CREATED, "{}", answer.1);
    (database, router, collector)
}

/// The answer's status and JSON (null when it is none).
pub async fn send(router: &Router, request: Request<Body>) -> (StatusCode, Value) {
    read(router.clone().oneshot(request).await.unwrap()).await
}

pub async fn read(response: Response<Body>) -> (StatusCode, Value) {
    let status = response.status();
    let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
    (status, serde_json::from_slice(&body).unwrap_or_default())
}

/// The status and the code of a refusal.
pub async fn refusal(router: &Router, request: Request<Body>) -> (u16, String) {
    let (status, problem) = send(router, request).await;
    assert!(problem["message"].as_str().is_some_and(|message| !message.is_empty()), "{problem}");
    assert!(problem["request_id"].as_str().is_some_and(|id| !id.is_empty()), "{problem}");
    (status.as_u16(), problem["code"].as_str().unwrap().to_owned())
}

/// A client of ClickHouse without our code in between.
pub fn clickhouse(database: &TestDatabase) -> clickhouse::Client {
    let ConnectOptions { url, user, password, database } = database.options();
    let client = clickhouse::Client::default().with_url(url).with_user(user);
    client.with_password(password.expose_secret()).with_database(database)
}

pub async fn rows<T: RowOwned + clickhouse::RowRead>(database: &TestDatabase, sql: &str) -> Vec<T> {
    clickhouse(database).query(sql).fetch_all().await.unwrap()
}

pub async fn count(database: &TestDatabase, table: &str) -> u64 {
    rows::<u64>(database, &format!("SELECT count() FROM {table} FINAL")).await[0]
}

/// All events, also those that a table engine would merge away.
pub async fn events(database: &TestDatabase) -> u64 {
    rows::<u64>(database, "SELECT count() FROM events").await[0]
}

pub struct Collector {
    pub id: CollectorId,
    pub key: SigningKey,
    pub number: u64,
    pub sequence: u64,
    pub previous_hash: Hash,
}

impl Collector {
    pub fn new() -> Self {
        let id = CollectorId(Uuid::now_v7());
        Self { id, key: SigningKey::generate(), number: 1, sequence: 1, previous_hash: NO_BATCH }
    }

    pub fn enrolment(&self, token: &str) -> Request<Body> {
        let public_key = hex(&self.key.public().to_bytes());
        enrolment(token, &json!({ "collector_id": self.id, "public_key": public_key, "host": "db1" }))
    }

    /// The next batch, of `count` queries.
    pub fn batch(&mut self, count: u64) -> Batch {
        let events = (0..count).map(|_| query("SELECT 1")).collect();
        self.seal(events, vec![])
    }

    pub fn seal(&mut self, mut events: Vec<Event>, coverage: Vec<Coverage>) -> Batch {
        for (event, sequence) in events.iter_mut().zip(self.sequence..) {
            event.collector = self.id;
            event.sequence = sequence;
        }
        let manifest = Manifest {
            collector: self.id,
            number: self.number,
            first_sequence: self.sequence,
            event_count: u32::try_from(events.len()).unwrap(),
            coverage_count: u32::try_from(coverage.len()).unwrap(),
            sealed_at: Timestamp::now(),
            content_hash: [0; 32],
            previous_hash: self.previous_hash,
        };
        let signature = [0; 64];
        let mut batch = Batch { manifest, batch_hash: [0; 32], signature, events, coverage };
        self.sign(&mut batch);
        self.number += 1;
        self.sequence += batch.events.len() as u64;
        self.previous_hash = batch.batch_hash;
        batch
    }

    /// Makes the proof fit what the batch holds.
    pub fn sign(&self, batch: &mut Batch) {
        let events: Vec<Hash> = batch.events.iter().map(event_hash).collect();
        let coverage: Vec<Hash> = batch.coverage.iter().map(coverage_hash).collect();
        batch.manifest.content_hash = content_hash(&events, &coverage);
        batch.batch_hash = batch.manifest.hash();
        batch.signature = self.key.sign(&batch.batch_hash);
    }
}

pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;

    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

pub fn enrolment(token: &str, body: &Value) -> Request<Body> {
    let request = Request::post("/v1/enroll").header("authorization", format!("Bearer {token}"));
    request.header("content-type", "application/json").body(body.to_string().into()).unwrap()
}

pub fn post(batch: &Batch) -> Request<Body> {
    post_bytes(whence_wire::encode(batch).unwrap())
}

pub fn post_bytes(bytes: impl Into<Body>) -> Request<Body> {
    let request = Request::post("/v1/batches").header("content-type", "application/x-protobuf");
    request.header("content-encoding", "zstd").body(bytes.into()).unwrap()
}

pub fn server() -> Server {
    sample::server_on("db1")
}

pub fn query(sql: &str) -> Event {
    sample::query(sql, Timestamp::now())
}

pub fn span(seen: u64, stored: u64) -> Coverage {
    let now = Timestamp::now();
    Coverage {
        server: server(),
        state: CoverageState::Watched,
        provider: Some(Provider::Functions),
        from: now.plus_ns(-SECOND),
        to: now,
        seen,
        stored,
        filtered: 0,
        filtered_by: BTreeMap::new(),
        lost: BTreeMap::new(),
        detail: None,
    }
}
