//! Several batches of one collector in one request.

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use serde_json::{Value, json};
use whence_model::Timestamp;
use whence_wire::Batch;

use crate::sender::{
    Collector, SECOND, clickhouse, config, count, enrolled, events, post_bytes, query, refusal, send,
};

fn post_run<'a>(run: impl IntoIterator<Item = &'a Batch>) -> Request<Body> {
    let batches: Vec<Vec<u8>> = run.into_iter().map(|batch| whence_wire::encode(batch).unwrap()).collect();
    post_bytes(batches.concat())
}

async fn stored<'a>(router: &Router, run: impl IntoIterator<Item = &'a Batch>) -> Value {
    let (status, answer) = send(router, post_run(run)).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    answer
}

fn batches(collector: &mut Collector, count: usize) -> Vec<Batch> {
    (0..count).map(|_| collector.batch(2)).collect()
}

#[tokio::test]
async fn all_are_stored_and_the_last_is_named() {
    let (database, router, mut collector) = enrolled("run_all").await;
    let run = batches(&mut collector, 5);
    assert_eq!(stored(&router, &run[..3]).await, json!({ "number": 3, "stored": "new" }));
    assert_eq!(stored(&router, &run[1..]).await, json!({ "number": 5, "stored": "new" }));
    assert_eq!(stored(&router, &run).await, json!({ "number": 5, "stored": "before" }));
    assert_eq!((events(&database).await, count(&database, "batches").await), (10, 5));
}

#[tokio::test]
async fn what_follows_one_that_cannot_be_stored_is_left_out() {
    let (database, router, mut collector) = enrolled("run_in_part").await;
    let run = batches(&mut collector, 4);
    // One that is missing, one that was changed, bytes that are no batch, one of another collector with the same key.
    assert_eq!(stored(&router, [&run[0], &run[2]]).await["number"], 1);
    let mut changed = run[2].clone();
    changed.events[0].duration_ns = Some(7);
    assert_eq!(stored(&router, [&run[1], &changed, &run[3]]).await["number"], 2);
    let mut bytes = whence_wire::encode(&run[2]).unwrap();
    bytes.extend(b"no batch");
    assert_eq!(send(&router, post_bytes(bytes)).await.1["number"], 3);
    let mut other = Collector::new();
    std::mem::swap(&mut other.key, &mut collector.key);
    let foreign = other.batch(1);
    std::mem::swap(&mut other.key, &mut collector.key);
    assert_eq!(stored(&router, [&run[3], &foreign]).await["number"], 4);
    assert_eq!((events(&database).await, count(&database, "batches").await), (8, 4));

    // What is refused is the first one.
    let run = batches(&mut collector, 2);
    assert_eq!(refusal(&router, post_run([&changed, &run[0]])).await, (422, "contents_changed".into()));
    assert_eq!(refusal(&router, post_run([&run[1], &run[0]])).await, (409, "out_of_order".into()));
}

#[tokio::test]
async fn those_of_two_months_are_stored_one_after_the_other() {
    let (database, router, mut collector) = enrolled("run_months").await;
    let mut of = |days: i64| {
        let mut event = query("SELECT 1");
        event.started_at = Timestamp::now().plus_ns(-days * 86_400 * SECOND);
        collector.seal(vec![event], vec![])
    };
    let run = [of(65), of(65), of(0), of(0)];
    assert_eq!(stored(&router, &run).await["number"], 2);
    assert_eq!(stored(&router, &run[2..]).await["number"], 4);
    assert_eq!(events(&database).await, 4);
}

#[tokio::test]
async fn a_run_that_was_cut_off_is_completed_in_any_parts() {
    let (database, router, mut collector) = enrolled("run_cut_off").await;
    let run = batches(&mut collector, 6);
    stored(&router, &run[..1]).await;
    let break_off = async |router: &Router, run: &[Batch]| {
        clickhouse(&database).query("RENAME TABLE batches TO hidden").execute().await.unwrap();
        assert_eq!(refusal(router, post_run(run)).await.0, 503);
        clickhouse(&database).query("RENAME TABLE hidden TO batches").execute().await.unwrap();
    };
    // Known to be the next, and then with one that only ClickHouse knows.
    break_off(&router, &run[1..4]).await;
    assert_eq!((events(&database).await, count(&database, "batches").await), (8, 1));
    let other = whence_ingest::router(config(&database));
    assert_eq!(stored(&other, &run[1..2]).await["number"], 2);
    assert_eq!(stored(&other, &run[2..3]).await["number"], 3);
    break_off(&other, &run[3..5]).await;
    let third = whence_ingest::router(config(&database));
    assert_eq!(stored(&third, &run[3..]).await["number"], 6);
    assert_eq!((events(&database).await, count(&database, "batches").await), (12, 6));
}
