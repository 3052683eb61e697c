//! Only one may write for a collector, and what others sent before comes into effect no more.

use whence_store::{GroupedBatch, StoreError};
use whence_testkit::TestDatabase;

use crate::events::{Batch, COLLECTOR, NOON, batch, query};
use crate::write::client;

fn grouped(batch: &Batch) -> GroupedBatch {
    GroupedBatch {
        batch: batch.manifest.clone(),
        events: batch.events.clone(),
        coverage: batch.coverage.clone(),
    }
}

#[tokio::test]
async fn a_writer_that_was_displaced_writes_nothing() {
    let database = TestDatabase::new("displaced").await;
    let store = &database.store;
    let [first, second, third] = [1, 2, 3].map(|number| grouped(&batch(number, &[query(number, NOON)], &[])));
    let before = store.open_writer().await.unwrap();
    assert!(store.claim(before, &[COLLECTOR]).await.unwrap().is_empty());
    store.write_group(before, std::slice::from_ref(&first)).await.unwrap();

    let after = store.open_writer().await.unwrap();
    assert_eq!(store.claim(after, &[COLLECTOR]).await.unwrap(), [before]);
    assert!(store.close_writer(before).await.unwrap());
    let newest = store.last_batches(&[COLLECTOR]).await.unwrap().remove(&COLLECTOR);
    assert_eq!(newest, Some(first.batch));

    // What it had sent comes late.
    let late = store.write_group(before, std::slice::from_ref(&second)).await;
    assert!(matches!(late, Err(StoreError::SessionEnded)), "{late:?}");
    store.write_group(after, &[second, third]).await.unwrap();
    let newest = store.last_batch(COLLECTOR).await.unwrap().unwrap();
    assert_eq!(newest.number, 3);
    assert!(store.close_writer(before).await.unwrap(), "to close it again is harmless");
}

#[tokio::test]
async fn a_leap_is_told_to_all_who_come_later() {
    let database = TestDatabase::new("leap").await;
    let store = &database.store;
    let writer = store.open_writer().await.unwrap();
    store.claim(writer, &[COLLECTOR]).await.unwrap();
    assert!(store.leapt(&[COLLECTOR]).await.unwrap().is_empty());
    store.claim_leap(writer, COLLECTOR).await.unwrap();
    assert_eq!(store.leapt(&[COLLECTOR]).await.unwrap(), [COLLECTOR].into());
}

#[tokio::test]
async fn a_claim_from_elsewhere_waits_for_a_person() {
    let database = TestDatabase::new("claimed_elsewhere").await;
    let store = &database.store;
    let sql = "INSERT INTO claims (collector_id, writer_id, server, leaps)
        SELECT {id:UUID}, generateUUIDv4(), generateUUIDv4(), false";
    client(&database).query(sql).param("id", COLLECTOR.0.to_string()).execute().await.unwrap();
    let writer = store.open_writer().await.unwrap();
    let refused = store.claim(writer, &[COLLECTOR]).await.unwrap_err();
    assert!(refused.to_string().contains("one account and one server"), "{refused}");
}
