//! The chain: each batch follows the one before, and what is missing is declared.

use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use whence_ingest::IngestConfig;
use whence_testkit::TestDatabase;
use whence_wire::Batch;

use crate::sender::{Collector, TOKEN, config, count, enrolled, events, post, query, refusal, send};
use crate::store::metric;

fn post_declaring(batch: &Batch, missing: &str) -> Request<Body> {
    let mut request = post(batch);
    request.headers_mut().insert("whence-missing-batches", missing.parse().unwrap());
    request
}

#[tokio::test]
async fn a_gap_must_be_declared_exactly() {
    let (database, router, mut collector) = enrolled("gap").await;
    assert_eq!(send(&router, post(&collector.batch(2))).await.0, StatusCode::OK);
    let (second, third) = (collector.batch(1), collector.batch(1));
    let fourth = collector.batch(1);
    let (status, problem) = send(&router, post(&fourth)).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert_eq!(
        (problem["code"].as_str().unwrap(), &problem["last_number"], &problem["next_sequence"]),
        ("out_of_order", &1.into(), &3.into())
    );
    assert!(problem["message"].as_str().unwrap().contains("whence-missing-batches: 2-3"), "{problem}");
    for wrong in ["1-3", "2-2", "3-3", "2-4", "x", "2", "-", "18446744073709551616-1"] {
        let answer = refusal(&router, post_declaring(&fourth, wrong)).await;
        assert_eq!(answer, (409, "out_of_order".into()), "{wrong}");
    }
    let declared = || post_declaring(&fourth, "2-3");
    assert_eq!(send(&router, declared()).await.1["stored"], "new");
    assert_eq!(send(&router, declared()).await.1["stored"], "before");
    assert_eq!(metric(&router, "whence_ingest_batches_missing_total").await, 2);
    let fifth = collector.batch(1);
    assert_eq!(send(&router, post_declaring(&fifth, "2-3")).await.0, StatusCode::OK);

    // What was declared missing may turn up, but only where it belongs.
    let mut forged = third.clone();
    forged.events[0] = whence_model::Event { sequence: 4, collector: collector.id, ..query("DROP TABLE x") };
    collector.sign(&mut forged);
    assert_eq!(refusal(&router, post(&forged)).await, (422, "broken_chain".into()));
    for late in [third, second] {
        assert_eq!(send(&router, post(&late)).await.1["stored"], "new");
    }
    assert_eq!((events(&database).await, count(&database, "batches").await), (6, 5));
    assert_eq!(metric(&router, "whence_ingest_batches_late_total").await, 2);
}

#[tokio::test]
async fn the_first_batches_may_be_missing_too() {
    let (_database, router, mut collector) = enrolled("first_missing").await;
    collector.batch(3);
    collector.batch(3);
    let third = collector.batch(1);
    let (status, problem) = send(&router, post(&third)).await;
    assert_eq!((status, problem["last_number"].as_u64()), (StatusCode::CONFLICT, Some(0)));
    assert_eq!(send(&router, post_declaring(&third, "1-2")).await.0, StatusCode::OK);
}

#[tokio::test]
async fn a_broken_link_is_refused() {
    let (database, router, mut collector) = enrolled("broken").await;
    assert_eq!(send(&router, post(&collector.batch(2))).await.0, StatusCode::OK);
    let changes: &[fn(&mut Batch)] = &[
        |batch| batch.manifest.previous_hash = [9; 32],
        |batch| move_to(batch, 2),
        |batch| move_to(batch, 4),
    ];
    let second = collector.batch(1);
    for change in changes {
        let mut broken = second.clone();
        change(&mut broken);
        collector.sign(&mut broken);
        assert_eq!(refusal(&router, post(&broken)).await, (422, "broken_chain".into()));
    }
    assert_eq!(send(&router, post(&second)).await.0, StatusCode::OK);
    assert_eq!(events(&database).await, 3);
}

fn move_to(batch: &mut Batch, sequence: u64) {
    batch.manifest.first_sequence = sequence;
    for (event, sequence) in batch.events.iter_mut().zip(sequence..) {
        event.sequence = sequence;
    }
}

#[tokio::test]
async fn another_batch_of_a_stored_number_waits_for_a_person() {
    let (database, router, collector) = enrolled("conflict").await;
    let mut collector = collector;
    let first = collector.batch(1);
    assert_eq!(send(&router, post(&first)).await.0, StatusCode::OK);
    // As after the restore of an old image of the host.
    let mut restored =
        Collector { number: 1, sequence: 1, previous_hash: whence_chain::NO_BATCH, ..collector };
    let (status, problem) = send(&router, post(&restored.batch(5))).await;
    assert_eq!((status, problem["code"].as_str().unwrap()), (StatusCode::CONFLICT, "conflicting_batch"));
    assert_eq!(problem["last_number"], 1);
    assert_eq!(events(&database).await, 1);
}

#[tokio::test]
async fn one_that_follows_another_waits_for_it_and_for_so_long() {
    let database = TestDatabase::new("ingest_follows").await;
    let router = whence_ingest::router(config(&database));
    let impatient = IngestConfig { follow_timeout: Duration::from_millis(1), ..config(&database) };
    let mut collector = Collector::new();
    assert_eq!(send(&router, collector.enrolment(TOKEN)).await.0, StatusCode::CREATED);
    let (first, second) = (collector.batch(1), collector.batch(1));
    let follows = |batch: &Batch, before: u64| {
        let mut request = post(batch);
        request.headers_mut().insert("whence-follows-batch", before.into());
        request
    };
    let answer = refusal(&whence_ingest::router(impatient), follows(&second, 1)).await;
    assert_eq!(answer, (409, "not_following".into()));
    assert_eq!(events(&database).await, 0);
    // Whatever comes first.
    let (second, first) = futures::join!(send(&router, follows(&second, 1)), send(&router, post(&first)));
    assert_eq!((first.0, second.0), (StatusCode::OK, StatusCode::OK), "{} {}", first.1, second.1);
    // One that is stored is waited for no longer.
    let third = collector.batch(1);
    assert_eq!(send(&router, follows(&third, 1)).await.1["number"], 3);
    assert_eq!((events(&database).await, count(&database, "batches").await), (3, 3));
}
