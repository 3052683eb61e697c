//! What is acknowledged is stored, once and as it was signed.

use axum::http::StatusCode;
use futures::future::join_all;
use whence_model::{BatchId, Timestamp};
use whence_store::row::EventRow;

use crate::sender::{
    Collector, SECOND, clickhouse, config, count, enrolled, events, post, query, refusal, rows, send, span,
};

const STORED: &str = "SELECT ?fields FROM events ORDER BY sequence";

#[tokio::test]
async fn a_batch_that_comes_three_times_is_stored_once() {
    let (database, router, mut collector) = enrolled("three_times").await;
    let batch = collector.seal(vec![query("SELECT 1"), query("SELECT 2")], vec![span(2, 2)]);
    for stored in ["new", "before", "before"] {
        let (status, answer) = send(&router, post(&batch)).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        assert_eq!(answer["stored"], stored);
    }
    let rows: Vec<EventRow> = rows(&database, STORED).await;
    let stored: Vec<_> = rows.iter().map(|row| row.to_event().unwrap()).collect();
    assert_eq!(stored, batch.events);
    assert_eq!((count(&database, "batches").await, count(&database, "coverage").await), (1, 1));
    let id = BatchId::derive(collector.id, 1);
    let row = database.store.find_batch(id).await.unwrap().unwrap();
    assert_eq!((row.batch_hash, row.signature), (batch.batch_hash, batch.signature));
    assert_eq!(row.last_started_at, Some(batch.events[1].started_at));
}

#[tokio::test]
async fn two_services_that_get_the_same_batch_at_once_store_it_once() {
    let (database, router, mut collector) = enrolled("two_services").await;
    let other = whence_ingest::router(config(&database));
    for _ in 0..5 {
        let batch = collector.batch(20);
        let sends = (0..6).map(|turn| send(if turn % 2 == 0 { &router } else { &other }, post(&batch)));
        for (status, answer) in join_all(sends).await {
            assert_eq!(status, StatusCode::OK, "{answer}");
        }
    }
    assert_eq!(events(&database).await, 100);
    assert_eq!(count(&database, "batches").await, 5);
}

#[tokio::test]
async fn a_wrong_clock_loses_nothing() {
    let (database, router, mut collector) = enrolled("wrong_clock").await;
    let now = Timestamp::now();
    let times =
        [now.plus_ns(400 * 86_400 * SECOND), now, Timestamp(0), Timestamp(i64::MAX), Timestamp(i64::MIN)];
    let at = |started_at| whence_model::Event { started_at, ..query("SELECT 1") };
    let mut batch = collector.seal(times.map(at).to_vec(), vec![]);
    batch.manifest.sealed_at = now.plus_ns(86_400 * SECOND);
    collector.sign(&mut batch);
    let (status, answer) = send(&router, post(&batch)).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    assert_eq!(send(&router, post(&batch)).await.1["stored"], "before");
    let rows: Vec<EventRow> = rows(&database, STORED).await;
    let stored: Vec<_> = rows.iter().map(|row| row.to_event().unwrap()).collect();
    assert_eq!(stored, batch.events);
    assert_eq!(metric(&router, "whence_ingest_batches_ahead_total").await, 1);
}

#[tokio::test]
async fn counts_that_do_not_add_up_are_stored_and_counted() {
    let (database, router, mut collector) = enrolled("adds_up").await;
    let batch =
        collector.seal(vec![query("SELECT 1")], vec![span(2, 1), span(u64::MAX, u64::MAX), span(0, 1)]);
    let (status, answer) = send(&router, post(&batch)).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    assert_eq!(metric(&router, "whence_ingest_coverage_mismatches_total").await, 2);
    assert_eq!((events(&database).await, count(&database, "coverage").await), (1, 3));
}

#[tokio::test]
async fn events_of_more_months_than_one_insert_takes_are_refused() {
    let (database, router, mut collector) = enrolled("months").await;
    let month = 31 * 86_400 * SECOND;
    let at = |number: i64| whence_model::Event { started_at: Timestamp(number * month), ..query("SELECT 1") };
    let batch = collector.seal((0..101).map(at).collect(), vec![]);
    assert_eq!(refusal(&router, post(&batch)).await, (422, "too_many_months".into()));
    assert_eq!(events(&database).await, 0);
    let mut collector =
        Collector { number: 1, sequence: 1, previous_hash: whence_chain::NO_BATCH, ..collector };
    let batch = collector.seal((0..100).map(at).collect(), vec![]);
    assert_eq!(send(&router, post(&batch)).await.0, StatusCode::OK);
}

#[tokio::test]
async fn a_store_that_cannot_be_used_is_no_reason_to_give_up_a_batch() {
    let (database, router, mut collector) = enrolled("no_store").await;
    let batch = collector.batch(1);
    clickhouse(&database).query("RENAME TABLE batches TO hidden").execute().await.unwrap();
    assert_eq!(refusal(&router, post(&batch)).await, (503, "store_misconfigured".into()));
    clickhouse(&database).query("RENAME TABLE hidden TO batches").execute().await.unwrap();
    assert_eq!(send(&router, post(&batch)).await.0, StatusCode::OK);

    let options = whence_store::ConnectOptions { url: "http://127.0.0.1:1".into(), ..database.options() };
    let config =
        whence_ingest::IngestConfig { store: whence_store::Store::connect(options), ..config(&database) };
    let answer = tower::ServiceExt::oneshot(whence_ingest::router(config), post(&batch)).await.unwrap();
    assert_eq!(answer.headers()["retry-after"], "1");
    let (status, problem) = crate::sender::read(answer).await;
    assert_eq!(
        (status, problem["code"].as_str().unwrap()),
        (StatusCode::SERVICE_UNAVAILABLE, "store_unavailable")
    );
}

pub async fn metric(router: &axum::Router, name: &str) -> u64 {
    let text = crate::health::metrics(router).await;
    let line = text.lines().find(|line| line.starts_with(name)).unwrap();
    line.rsplit(' ').next().unwrap().parse().unwrap()
}
