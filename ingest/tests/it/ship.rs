//! The collector's shipping against real services: in order to one of several, and what a revocation does.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

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

use crate::sender::{TOKEN, config, count, events, hex, query};

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
        let id = CollectorId(Uuid::now_v7());
        let key = SigningKey::generate();
        let public_key = hex(&key.public().to_bytes());
        let enrolment = Enrolment { collector_id: id, public_key, host: "db1".into() };
        let client = Client::new(urls, &Transport::default(), enrolment, Some(TOKEN.into())).unwrap();
        let spool = Arc::new(Mutex::new(Spool::open(directory, 1 << 30).unwrap().0));
        let (metrics, shutdown) = (Metrics::default(), CancellationToken::new());
        let task = tokio::spawn(ship::run(spool.clone(), client, metrics.clone(), shutdown.clone()));
        Self { id, sealer: Sealer::new(id, key, Link::FIRST), spool, metrics, shutdown, task }
    }

    /// Puts one more batch into the spool.
    fn add(&mut self, events: usize) {
        for _ in 0..events {
            self.sealer.event(query("SELECT 1"));
        }
        let batch = self.sealer.seal().unwrap().unwrap();
        ship::lock(&self.spool).append(&batch, None).unwrap();
    }

    fn backlog(&self) -> usize {
        ship::lock(&self.spool).backlog().0
    }

    async fn wait_until_shipped(&self) {
        wait_until("everything is shipped", || self.backlog() == 0).await;
    }
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
