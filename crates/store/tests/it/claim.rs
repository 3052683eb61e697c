//! Only one may write for a collector, and what others sent before comes into effect no more.

use whence_store::{GroupedBatch, StoreError};
use whence_testkit::TestDatabase;

use crate::events::{Batch, COLLECTOR, NOON, batch, query};

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
    assert!(store.claim(before, &[COLLECTOR]).await.unwrap().others.is_empty());
    store.write_group(before, std::slice::from_ref(&first)).await.unwrap();

    let after = store.open_writer().await.unwrap();
    assert_eq!(store.claim(after, &[COLLECTOR]).await.unwrap().others, [before]);
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
    assert!(store.claim(writer, &[COLLECTOR]).await.unwrap().leapt.is_empty());
    store.claim_leap(writer, COLLECTOR).await.unwrap();
    let later = store.open_writer().await.unwrap();
    assert_eq!(store.claim(later, &[COLLECTOR]).await.unwrap().leapt, [COLLECTOR]);
}
