//! Batches of many collectors share their inserts, and each is stored once all the same.

use std::time::{Duration, Instant};

use axum::Router;
use axum::http::StatusCode;
use futures::future::{join_all, select};
use whence_wire::Batch;

use crate::sender::{
    Collector, TOKEN, clickhouse, config, count, enrolled, events, post, refusal, rows, send,
};

const DEADLINE: Duration = Duration::from_mins(1);

async fn enrol(router: &Router) -> Collector {
    let collector = Collector::new();
    assert_eq!(send(router, collector.enrolment(TOKEN)).await.0, StatusCode::CREATED);
    collector
}

/// Sends as a collector does: again, when it is asked to.
async fn store(router: &Router, batch: &Batch) {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let (status, answer) = send(router, post(batch)).await;
        if status == StatusCode::OK {
            return;
        }
        let is_later = matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS);
        assert!(is_later && Instant::now() < deadline, "{status} {answer}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn collectors_that_change_between_two_services_are_stored_once() {
    let (database, router, first) = enrolled("crowd_changes").await;
    let services = [router, whence_ingest::router(config(&database))];
    let mut collectors = vec![first];
    for _ in 1..12 {
        collectors.push(enrol(&services[0]).await);
    }
    for round in 0..4 {
        let batches: Vec<Batch> = collectors.iter_mut().map(|collector| collector.batch(3)).collect();
        // Each goes to one service and to the other in turn, and every third to both.
        let sends = batches.iter().enumerate().map(async |(place, batch)| {
            let one = store(&services[(place + round) % 2], batch);
            if place % 3 > 0 {
                return one.await;
            }
            futures::join!(one, store(&services[(place + round + 1) % 2], batch));
        });
        join_all(sends).await;
    }
    assert_eq!(events(&database).await, 12 * 4 * 3);
    assert_eq!(rows::<u64>(&database, "SELECT count() FROM batches").await, [12 * 4]);
    let twice =
        "SELECT count() FROM (SELECT collector_id, sequence FROM events GROUP BY ALL HAVING count() > 1)";
    assert_eq!(rows::<u64>(&database, twice).await, [0]);
}

#[tokio::test]
async fn one_that_hangs_up_and_sends_again_is_stored_once() {
    let (database, router, mut collector) = enrolled("crowd_hangs_up").await;
    let other = whence_ingest::router(config(&database));
    for patience in 0..24 {
        let batch = collector.batch(2);
        let hang_up = async {
            for _ in 0..patience * 4 {
                tokio::task::yield_now().await;
            }
        };
        let sent = select(Box::pin(send(&router, post(&batch))), Box::pin(hang_up)).await;
        drop(sent);
        store(if patience % 8 == 7 { &other } else { &router }, &batch).await;
    }
    assert_eq!((events(&database).await, count(&database, "batches").await), (48, 24));
}

#[tokio::test]
async fn a_group_that_was_cut_off_is_completed_by_whoever_gets_it() {
    let (database, router, mut one) = enrolled("crowd_cut_off").await;
    let other = whence_ingest::router(config(&database));
    let mut two = enrol(&router).await;
    store(&router, &one.batch(2)).await;
    store(&router, &two.batch(2)).await;

    // Its events are stored, and then it fails: as when ingest is killed, or never hears that it worked.
    let (first, second) = (one.batch(3), two.batch(3));
    clickhouse(&database).query("RENAME TABLE batches TO hidden").execute().await.unwrap();
    let (answer, _) = futures::join!(refusal(&router, post(&first)), refusal(&router, post(&second)));
    assert_eq!(answer, (503, "store_misconfigured".into()));
    assert!(events(&database).await > 4);
    clickhouse(&database).query("RENAME TABLE hidden TO batches").execute().await.unwrap();

    futures::join!(store(&other, &first), store(&router, &second));
    assert_eq!((events(&database).await, count(&database, "batches").await), (10, 4));
    // Long after, to one that knows nothing of all this.
    let third = whence_ingest::router(config(&database));
    for batch in [&first, &second] {
        assert_eq!(send(&third, post(batch)).await.1["stored"], "before");
    }
    assert_eq!(events(&database).await, 10);
}
