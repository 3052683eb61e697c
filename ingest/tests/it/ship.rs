//! The collector's shipping against real services: in order to one of several, and what a revocation does.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::IntoResponse as _;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use whence_chain::SigningKey;
use whence_collector::seal::{Link, Sealer};
use whence_collector::ship::{self, Client, Enrolment, Metrics, SharedSpool, Transport};
use whence_collector::spool::Spool;
use whence_ingest::IngestConfig;
use whence_model::{CollectorId, Timestamp};
use whence_store::read::CollectorState;
use whence_testkit::TestDatabase;

use crate::sender::{TOKEN, config, count, events, hex, query, rows};

const DEADLINE: Duration = Duration::from_secs(30);

async fn start(config: IngestConfig) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(whence_ingest::serve(config, listener, CancellationToken::new()));
    url
}

struct Shipping {
    id: CollectorId,
    sealer: Sealer,
    spool: SharedSpool,
    metrics: Metrics,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

impl Shipping {
    fn start(directory: &Path, urls: &[String]) -> Self {
        Self::start_with(directory, urls, 0, 0)
    }

    /// Starts with so many batches in the spool, each of so many events.
    fn start_with(directory: &Path, urls: &[String], batches: usize, events: usize) -> Self {
        let id = CollectorId(Uuid::now_v7());
        let key = SigningKey::generate();
        let public_key = hex(&key.public().to_bytes());
        let enrolment = Enrolment { collector_id: id, public_key, host: "db1".into() };
        let client = Client::new(urls, &Transport::default(), enrolment, Some(TOKEN.into())).unwrap();
        let spool = Arc::new(Mutex::new(Spool::open(directory, 1 << 30).unwrap().0));
        let mut sealer = Sealer::new(id, key, Link::FIRST).unwrap();
        (0..batches).for_each(|_| add(&spool, &mut sealer, events));
        let (metrics, shutdown) = (Metrics::default(), CancellationToken::new());
        let task = tokio::spawn(ship::run(spool.clone(), client, metrics.clone(), shutdown.clone()));
        Self { id, sealer, spool, metrics, shutdown, task }
    }

    /// Puts one more batch into the spool.
    fn add(&mut self, events: usize) {
        add(&self.spool, &mut self.sealer, events);
    }

    fn backlog(&self) -> usize {
        ship::lock(&self.spool).backlog().0
    }

    async fn wait_until_shipped(&self) {
        wait_until("everything is shipped", || self.backlog() == 0).await;
    }
}

fn add(spool: &SharedSpool, sealer: &mut Sealer, events: usize) {
    for _ in 0..events {
        sealer.event(query("SELECT 1"));
    }
    let batch = sealer.seal().unwrap().unwrap();
    ship::lock(spool).append(&batch, None).unwrap();
}

async fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !is_so() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn batches_go_in_order_to_the_ingest_that_takes_them() {
    let database = TestDatabase::new("ship_failover").await;
    // One that is not there, one that has no room and asks to wait, one that works.
    let busy = start(IngestConfig { in_flight_bytes: 0, ..config(&database) }).await;
    let urls = ["http://127.0.0.1:1".into(), busy, start(config(&database)).await];
    let directory = tempfile::tempdir().unwrap();
    let mut shipping = Shipping::start(directory.path(), &urls);
    for _ in 0..20 {
        shipping.add(3);
    }
    shipping.wait_until_shipped().await;
    assert_eq!((events(&database).await, count(&database, "batches").await), (60, 20));
    // The two that failed were asked once each.
    assert_eq!(shipping.metrics.attempts_failed.get(), 2);
    shipping.shutdown.cancel();
    shipping.task.await.unwrap();
}

#[tokio::test]
async fn a_revoked_collector_is_refused_and_keeps_what_it_has() {
    let database = TestDatabase::new("ship_revoked").await;
    let url = start(config(&database)).await;
    let directory = tempfile::tempdir().unwrap();
    let mut shipping = Shipping::start(directory.path(), &[url]);
    shipping.add(5);
    shipping.wait_until_shipped().await;
    let state = async || {
        let collectors = database.store.heard().await.unwrap();
        let ours = collectors.iter().find(|known| known.collector.collector_id == shipping.id.0).unwrap();
        ours.state(Timestamp::now())
    };
    assert_eq!(state().await, CollectorState::Sending);
    database.store.revoke_collector(shipping.id).await.unwrap();
    assert_eq!(state().await, CollectorState::Revoked);
    shipping.add(7);
    wait_until("it was refused twice", || shipping.metrics.attempts_failed.get() >= 2).await;
    assert_eq!((shipping.backlog(), shipping.metrics.batches_quarantined.get()), (1, 0));
    assert_eq!(events(&database).await, 5);
}

/// What goes wrong with a request.
#[derive(Clone, Copy, Debug)]
enum Wrong {
    /// It does not arrive.
    Unavailable,
    /// It is served, and its answer is another.
    AnswerLost,
    Unknown,
    /// The second of two overtakes the first.
    Overtakes,
    /// The second of two is refused.
    Refused,
}

/// An ingest behind something that does to every third request what is wrong, and the number of those that followed another.
async fn start_troubled(config: IngestConfig, wrong: Wrong) -> (String, Arc<AtomicUsize>) {
    let (requests, seconds) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counted = seconds.clone();
    let trouble = move |request: Request, next: Next| {
        let is_second = request.headers().contains_key("whence-follows-batch");
        counted.fetch_add(usize::from(is_second), Relaxed);
        let is_third = requests.fetch_add(1, Relaxed) % 3 == 2;
        async move {
            let problem = |status: StatusCode, code: &str| {
                let problem = json!({ "code": code, "message": "", "last_number": 0 });
                (status, Json(problem)).into_response()
            };
            match wrong {
                _ if request.uri().path() != "/v1/batches" => next.run(request).await,
                Wrong::Unavailable if is_third => problem(StatusCode::SERVICE_UNAVAILABLE, "stopping"),
                Wrong::AnswerLost if is_third => {
                    next.run(request).await;
                    problem(StatusCode::BAD_GATEWAY, "")
                }
                Wrong::Unknown if is_third => problem(StatusCode::UNAUTHORIZED, "unknown_collector"),
                Wrong::Overtakes if is_second => problem(StatusCode::CONFLICT, "out_of_order"),
                Wrong::Refused if is_second => problem(StatusCode::UNPROCESSABLE_ENTITY, "contents_changed"),
                _ => next.run(request).await,
            }
        }
    };
    let router = whence_ingest::router(config).layer(axum::middleware::from_fn(trouble));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(axum::serve(listener, router).into_future());
    (url, seconds)
}

#[tokio::test]
async fn a_backlog_goes_two_requests_at_a_time_and_once_whatever_goes_wrong() {
    let all = [Wrong::Unavailable, Wrong::AnswerLost, Wrong::Unknown, Wrong::Overtakes, Wrong::Refused];
    for wrong in all {
        let database = TestDatabase::new(&format!("ship_pairs_{wrong:?}").to_lowercase()).await;
        let (url, seconds) = start_troubled(config(&database), wrong).await;
        let directory = tempfile::tempdir().unwrap();
        let shipping = Shipping::start_with(directory.path(), &[url], 150, 2);
        shipping.wait_until_shipped().await;
        assert_eq!((events(&database).await, count(&database, "batches").await), (300, 150), "{wrong:?}");
        assert!(seconds.load(Relaxed) > 0, "{wrong:?}");
        // Nothing was declared missing, nothing given up.
        let lost = ship::lock(&shipping.spool).take_lost();
        assert_eq!((shipping.metrics.batches_quarantined.get(), lost), (0, vec![]), "{wrong:?}");
        let leaps = rows::<u64>(&database, "SELECT count() FROM claims WHERE leaps").await;
        assert_eq!(leaps, [0], "{wrong:?}");
    }
}
