//! Heads that were kept outside: a history that was rewritten as a whole, or cut off, is found.

use std::collections::BTreeMap;

use chrono::NaiveDate;
use whence_model::CollectorId;
use whence_store::row::{BatchRow, CoverageRow, EventRow};
use whence_store::verify::{Kind, KnownHead, Outside, Scope};
use whence_store::{Head, Store};
use whence_testkit::Sender;

use crate::retention::write_months;
use crate::verify::{Audit, BATCHES, Told, delete, verify_against};

/// The newest heads of all collectors.
pub async fn outside(store: &Store) -> Outside {
    let heads = store.heads().await.unwrap();
    Outside { heads: heads.iter().map(known).collect(), ..Outside::default() }
}

fn known(head: &Head) -> KnownHead {
    KnownHead {
        source: "head".into(),
        collector: CollectorId(head.batch.collector_id),
        public_key: head.public_key,
        batch: head.batch.number,
        batch_hash: head.batch.batch_hash,
    }
}

async fn verify(audit: &Audit, outside: &Outside) -> Told {
    verify_against(audit.store(), Scope::default(), outside).await
}

/// Another history of a collector in the place of the stored one, all of it signed with a new key.
pub async fn rewrite(audit: &Audit, old: &Sender) {
    let new = Sender::new(old.id);
    let own = format!("collector_id = '{}'", old.id);
    let mut batches: Vec<BatchRow> = audit.rows("batches", &format!("{own} ORDER BY number")).await;
    let mut events: Vec<EventRow> = audit.rows("events", &format!("{own} ORDER BY sequence")).await;
    let spans: Vec<CoverageRow> = audit.rows("coverage", &format!("{own} ORDER BY position")).await;
    if let Some(event) = events.first_mut() {
        event.user = Some("innocent".into());
        event.event_hash = whence_chain::event_hash(&event.to_event().unwrap());
    }
    let mut previous = batches[0].previous_hash;
    for batch in &mut batches {
        let id = batch.batch_id;
        let of = |row: &&EventRow| row.batch_id == id;
        let events: Vec<EventRow> = events.iter().filter(of).cloned().collect();
        let spans: Vec<CoverageRow> = spans.iter().filter(|row| row.batch_id == id).cloned().collect();
        batch.previous_hash = previous;
        new.reseal(batch, &events, &spans, true);
        previous = batch.batch_hash;
    }
    for table in ["batches", "events", "collectors"] {
        audit.run(&delete(table, &own)).await;
    }
    audit.insert("batches", &batches).await;
    audit.insert("events", &events).await;
    new.enroll(audit.store()).await;
}

#[tokio::test]
async fn a_history_that_was_rewritten_as_a_whole_is_found() {
    let audit = Audit::new("heads_rewritten").await;
    let outside = outside(audit.store()).await;
    assert_eq!(verify(&audit, &outside).await.tampering(), []);
    rewrite(&audit, &audit.senders[0]).await;
    assert_eq!(verify(&audit, &Outside::default()).await.tampering(), []);
    let told = verify(&audit, &outside).await;
    assert_eq!(
        told.tampering(),
        [(Kind::KeyChanged, Some(BATCHES), None), (Kind::HeadChanged, Some(BATCHES), None)]
    );

    // The end, or all, of a collector is cut off.
    for first in [BATCHES, 1] {
        audit.restore().await;
        let of = format!("collector_id = '{}'", audit.senders[1].id);
        let batches =
            format!("batch_id IN (SELECT batch_id FROM batches_kept WHERE {of} AND number >= {first})");
        for table in ["events", "coverage", "batches"] {
            audit.run(&delete(table, &batches)).await;
        }
        assert_eq!(verify(&audit, &Outside::default()).await.tampering(), []);
        assert_eq!(verify(&audit, &outside).await.tampering(), [(Kind::HeadMissing, Some(BATCHES), None)]);
    }
}

#[tokio::test]
async fn each_day_has_the_last_batch_before_its_end() {
    let audit = Audit::empty("heads_days").await;
    let sender = write_months(audit.store()).await;
    let day = |text: &str| text.parse::<NaiveDate>().unwrap();
    let days = |from, to| async move {
        let days = audit.store().day_heads(from, to).await.unwrap();
        let number = |heads: Vec<Head>| heads.iter().map(|head| head.batch.number).collect::<Vec<_>>();
        days.into_iter().map(|(day, heads)| (day, number(heads))).collect::<BTreeMap<_, _>>()
    };
    let all = days(None, day("2026-10-16")).await;
    let expected = [("2026-07-15", 1), ("2026-09-04", 2), ("2026-09-15", 3)];
    assert_eq!(all, expected.map(|(at, number)| (day(at), vec![number])).into());
    drop(sender);
}
