//! Every event once: retries at once, late, half-written, and from two writers.

use whence_model::{BatchId, CollectorId, CoverageState};
use whence_store::row::EventRow;
use whence_store::{ConnectOptions, Enrolment, StoreError, Written};
use whence_testkit::TestDatabase;

use crate::events::{Batch, COLLECTOR, NOON, SECOND, barest, batch, coverage, fullest, query};

async fn write(database: &TestDatabase, batch: &Batch) -> Result<Written, StoreError> {
    database.store.write_batch(&batch.manifest, &batch.events, &batch.coverage).await
}

/// A client without our code in between.
pub fn client(database: &TestDatabase) -> clickhouse::Client {
    use secrecy::ExposeSecret;

    let ConnectOptions { url, user, password, database } = database.options();
    let client = clickhouse::Client::default().with_url(url).with_user(user);
    client.with_password(password.expose_secret()).with_database(database)
}

async fn stored(database: &TestDatabase) -> Vec<EventRow> {
    let sql = "SELECT ?fields FROM events ORDER BY sequence";
    client(database).query(sql).fetch_all().await.unwrap()
}

#[tokio::test]
async fn every_field_comes_back_as_it_was() {
    let database = TestDatabase::new("every_field").await;
    let events = [query(1, NOON), barest(2), fullest(3)];
    let span = coverage("db1", NOON, NOON.plus_ns(SECOND), CoverageState::Watched);
    let batch = batch(1, &events, std::slice::from_ref(&span));
    assert_eq!(write(&database, &batch).await.unwrap(), Written::New);

    let rows = stored(&database).await;
    assert_eq!(rows, batch.events);
    for (row, event) in rows.iter().zip(&events) {
        assert_eq!(&row.to_event().unwrap(), event);
    }
    assert_eq!(
        database.store.find_batch(BatchId(batch.manifest.batch_id)).await.unwrap(),
        Some(batch.manifest.clone())
    );
    assert_eq!(database.store.last_batch(COLLECTOR).await.unwrap(), Some(batch.manifest));
    assert_eq!(batch.coverage[0].to_coverage().unwrap(), span);
}

#[tokio::test]
async fn a_batch_that_comes_again_is_stored_once() {
    let database = TestDatabase::new("comes_again").await;
    let batch = batch(1, &[query(1, NOON), query(2, NOON)], &[]);
    assert_eq!(write(&database, &batch).await.unwrap(), Written::New);
    assert_eq!(write(&database, &batch).await.unwrap(), Written::Before);
    assert_eq!(stored(&database).await.len(), 2);
}

#[tokio::test]
async fn another_batch_with_the_same_number_is_refused() {
    let database = TestDatabase::new("same_number").await;
    let mut batch = batch(1, &[query(1, NOON)], &[]);
    write(&database, &batch).await.unwrap();
    batch.manifest.batch_hash = [9; 32];
    assert!(matches!(write(&database, &batch).await, Err(StoreError::Rejected { .. })));
}

#[tokio::test]
async fn a_half_written_batch_is_completed() {
    let database = TestDatabase::new("half_written").await;
    // Two months, so that ClickHouse makes two parts, one of which may be there alone.
    let events = [query(1, NOON), query(2, NOON.plus_ns(40 * 86_400 * SECOND)), query(3, NOON)];
    let batch = batch(1, &events, &[]);
    // Long ago, without a token: the window of tokens is gone.
    let mut insert = client(&database).insert::<EventRow>("events").await.unwrap();
    insert.write(&batch.events[1]).await.unwrap();
    insert.end().await.unwrap();

    assert_eq!(write(&database, &batch).await.unwrap(), Written::New);
    assert_eq!(stored(&database).await, batch.events);
}

#[tokio::test]
async fn two_writers_of_one_batch_store_it_once() {
    let database = TestDatabase::new("two_writers").await;
    for number in 1..=10 {
        let batch = batch(number, &[query(number * 2, NOON), query(number * 2 + 1, NOON)], &[]);
        let writes = (0..4).map(|_| write(&database, &batch));
        for written in futures::future::join_all(writes).await {
            written.unwrap();
        }
    }
    assert_eq!(stored(&database).await.len(), 20);
}

#[tokio::test]
async fn a_wrong_password_is_not_a_reason_to_wait() {
    let database = TestDatabase::new("wrong_password").await;
    let store = whence_store::Store::connect(ConnectOptions {
        password: "wrong".to_owned().into(),
        ..database.options()
    });
    let refused = store.last_batch(COLLECTOR).await;
    assert!(matches!(refused, Err(StoreError::Misconfigured { .. })), "{refused:?}");
}

#[tokio::test]
async fn the_first_key_of_a_collector_counts() {
    let database = TestDatabase::new("first_key").await;
    let store = &database.store;
    assert_eq!(store.key_of(COLLECTOR).await.unwrap(), None);
    assert_eq!(store.enroll_collector(COLLECTOR, "db1", [1; 32]).await.unwrap(), Enrolment::New);
    assert_eq!(store.enroll_collector(COLLECTOR, "db1", [1; 32]).await.unwrap(), Enrolment::Before);
    let other = store.enroll_collector(COLLECTOR, "db1", [2; 32]).await;
    assert!(matches!(other, Err(StoreError::Rejected { .. })));
    assert_eq!(store.key_of(COLLECTOR).await.unwrap(), Some([1; 32]));

    store.revoke_collector(COLLECTOR).await.unwrap();
    assert_eq!(store.key_of(COLLECTOR).await.unwrap(), None);
    let again = store.enroll_collector(COLLECTOR, "db1", [1; 32]).await;
    assert!(matches!(again, Err(StoreError::Rejected { .. })));
    assert_eq!(store.list_collectors().await.unwrap().len(), 1);
    assert!(store.revoke_collector(CollectorId(uuid::Uuid::nil())).await.is_err());
}
