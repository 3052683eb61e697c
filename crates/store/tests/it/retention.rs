//! Retention: what was declared verifies as expired, and nothing else does.

use whence_chain::SigningKey;
use whence_model::{CoverageState, Event, LossReason, Timestamp};
use whence_store::verify::{Kind, Outside, Scope};
use whence_store::{Retention, Store};
use whence_testkit::Sender;

use crate::events::{SECOND, coverage, query};
use crate::verify::{Audit, Told, copy, delete, gap, names_lost, update, verify_against};

const DAY: i64 = 86_400 * SECOND;
/// 2026-07-15, the day of the first batch; each month has one.
const FIRST: Timestamp = Timestamp(1_784_073_600_000_000_000);
/// 2026-11-20.
const NOW: Timestamp = Timestamp(1_795_132_800_000_000_000);
const BATCHES: u64 = 4;

/// Batches of July to October, with four events each. The second has its last event in the month after it.
pub async fn write_months(store: &Store) -> Sender {
    let mut sender = Sender::default();
    sender.enroll(store).await;
    for number in 0..BATCHES {
        let at = FIRST.plus_ns(i64::try_from(number).unwrap() * 31 * DAY);
        let later = if number == 1 { at.plus_ns(20 * DAY) } else { at.plus_ns(3) };
        let events: Vec<Event> = [at, at.plus_ns(1), at.plus_ns(2), later].map(|at| query(0, at)).into();
        let span = coverage("db1", at, at.plus_ns(SECOND), CoverageState::Watched);
        sender.seal(events, &[span], later.plus_ns(SECOND)).write(store).await;
    }
    sender
}

pub fn retention(key: &SigningKey, days: u32, batch_days: u32) -> Retention<'_> {
    Retention { days, batch_days, now: NOW, key, host: "here" }
}

fn pinned(key: &SigningKey) -> Outside {
    Outside { service_keys: vec![key.public()], heads: vec![] }
}

async fn verify(audit: &Audit, outside: &Outside) -> Told {
    verify_against(audit.store(), Scope::default(), outside).await
}

/// Months with their batches, in which retention kept 60 days: July has expired, and August has not, since it ends in
/// September.
async fn expired(test: &str, key: &SigningKey) -> (Audit, Sender) {
    let mut audit = Audit::empty(test).await;
    let sender = write_months(audit.store()).await;
    let retained = audit.store().retain(retention(key, 60, 60)).await.unwrap();
    assert_eq!((retained.declared.len(), retained.refused.len()), (2, 0));
    audit.keep().await;
    (audit, sender)
}

#[tokio::test]
async fn what_expired_was_declared_and_is_no_tampering() {
    let key = SigningKey::generate();
    let audit = Audit::empty("retention").await;
    write_months(audit.store()).await;
    // Only contents at first.
    let retained = audit.store().retain(retention(&key, 60, 1000)).await.unwrap();
    let declared = &retained.declared[0];
    assert_eq!(
        (retained.declared.len(), declared.first_batch, declared.last_batch, declared.events),
        (1, 1, 1, 4)
    );
    assert_eq!(
        audit.numbers("SELECT DISTINCT sequence FROM events ORDER BY sequence").await,
        (5..=16).collect::<Vec<_>>()
    );
    assert_eq!(audit.numbers("SELECT count() FROM coverage").await, [3]);
    let told = verify(&audit, &pinned(&key)).await;
    assert_eq!(told.tampering(), []);
    assert_eq!((told.summary.events, told.summary.batches, told.summary.expired), (12, 4, 1));
    assert_eq!(told.notices(Kind::Expired), 1);
    // Nothing is declared twice.
    assert_eq!(audit.store().retain(retention(&key, 60, 1000)).await.unwrap().declared, []);

    // Then the batches' rows, and later all but the newest.
    audit.store().retain(retention(&key, 60, 60)).await.unwrap();
    assert_eq!(audit.numbers("SELECT number FROM batches ORDER BY number").await, [2, 3, 4]);
    assert_eq!(verify(&audit, &pinned(&key)).await.tampering(), []);
    let all = Retention { now: NOW.plus_ns(400 * DAY), ..retention(&key, 30, 30) };
    audit.store().retain(all).await.unwrap();
    assert_eq!(audit.numbers("SELECT number FROM batches").await, [BATCHES]);
    assert_eq!(audit.numbers("SELECT count() FROM events").await, [0]);
    let told = verify(&audit, &pinned(&key)).await;
    assert_eq!(told.tampering(), []);
    assert_eq!((told.summary.batches, told.summary.expired, told.notices(Kind::Expired)), (1, 1, 4));
}

#[tokio::test]
async fn a_run_that_was_killed_is_completed() {
    let key = SigningKey::generate();
    let mut audit = Audit::empty("retention_killed").await;
    write_months(audit.store()).await;
    audit.keep().await;
    audit.store().retain(retention(&key, 60, 60)).await.unwrap();
    // Declared, and nothing removed.
    for table in ["events", "coverage", "batches"] {
        audit.restore_table(table).await;
    }
    assert_eq!(verify(&audit, &pinned(&key)).await.tampering(), []);
    // Some of it removed, long ago: who knows by whom.
    audit.run(&delete("events", "sequence = 2")).await;
    assert_eq!(verify(&audit, &pinned(&key)).await.tampering(), [(Kind::EventMissing, Some(1), Some(3))]);
    audit.store().retain(retention(&key, 60, 60)).await.unwrap();
    assert_eq!(verify(&audit, &pinned(&key)).await.tampering(), []);
    assert_eq!(audit.numbers("SELECT min(number) FROM batches").await, [2]);
}

#[tokio::test]
async fn what_does_not_verify_is_not_removed() {
    let key = SigningKey::generate();
    let audit = Audit::empty("retention_refused").await;
    write_months(audit.store()).await;
    audit.run(&update("events", "user = 'nobody'", "sequence = 2")).await;
    let retained = audit.store().retain(retention(&key, 60, 60)).await.unwrap();
    assert_eq!((retained.declared.len(), retained.refused[0].kind), (0, Kind::EventChanged));
    assert_eq!(audit.numbers("SELECT count() FROM events").await, [16]);
}

#[tokio::test]
async fn a_loss_on_the_way_is_still_known_when_what_told_of_it_expired() {
    let key = SigningKey::generate();
    let mut audit = Audit::empty("retention_lost").await;
    let mut sender = Sender::default();
    sender.enroll(audit.store()).await;
    let at = |seconds| FIRST.plus_ns(seconds * SECOND);
    let four = |from: Timestamp| (0..4).map(|ns| query(0, from.plus_ns(ns))).collect::<Vec<Event>>();
    let span = |from: Timestamp| [coverage("db1", from, from.plus_ns(SECOND), CoverageState::Watched)];
    // Batch 2 was lost when its events and spans had been written; 3 held spans alone, and was lost before.
    for number in 1..=3 {
        let events = if number < 3 { four(at(number)) } else { Vec::new() };
        let batch = sender.seal(events, &span(at(number)), at(number + 1));
        if number == 1 {
            batch.write(audit.store()).await;
        } else if number == 2 {
            audit.insert("events", &batch.events).await;
            audit.insert("coverage", &batch.coverage).await;
        }
    }
    let gap = Event { started_at: at(5), ..gap(LossReason::SpoolCorrupt, 4) };
    sender.seal(vec![gap], &[names_lost(vec![2..=3])], at(6)).write(audit.store()).await;
    // Batches 5 to 7, of August to October.
    for month in 1..BATCHES {
        let at = FIRST.plus_ns(i64::try_from(month).unwrap() * 31 * DAY);
        sender.seal(four(at), &span(at), at.plus_ns(SECOND)).write(audit.store()).await;
    }
    let told = verify(&audit, &pinned(&key)).await;
    assert_eq!((told.tampering(), told.notices(Kind::Unproven)), (vec![], 2));

    let retained = audit.store().retain(retention(&key, 60, 1000)).await.unwrap();
    assert_eq!((retained.declared.len(), retained.refused.len()), (1, 0));
    let declared = &retained.declared[0];
    assert_eq!((declared.last_batch, &declared.lost_batches), (5, &vec![(2, 3)]));
    // What nothing proves went with the rest.
    assert_eq!(audit.numbers("SELECT min(sequence) FROM events").await, [14]);
    assert_eq!(audit.numbers("SELECT count() FROM coverage").await, [2]);
    let told = verify(&audit, &pinned(&key)).await;
    assert_eq!(told.tampering(), []);
    assert_eq!((told.notices(Kind::BatchesLost), told.notices(Kind::Unproven)), (1, 0));

    audit.keep().await;
    let longer = update("expiries", "lost_batches = [(2, 4)]", "what = 'contents'");
    for (sql, kind) in [(delete("batches", "number = 4"), Kind::BatchesMissing), (longer, Kind::ExpiryForged)]
    {
        audit.run(&sql).await;
        let told = verify(&audit, &pinned(&key)).await;
        assert!(told.tampering().iter().any(|(found, ..)| *found == kind), "{sql}: {:#?}", told.findings);
        audit.restore().await;
    }

    // It stands in the way of no later run, and goes with the batches' rows.
    let later = Retention { now: NOW.plus_ns(31 * DAY), ..retention(&key, 60, 60) };
    let retained = audit.store().retain(later).await.unwrap();
    assert_eq!((retained.declared.len(), retained.refused.len()), (2, 0));
    assert_eq!(audit.numbers("SELECT number FROM batches ORDER BY number").await, [7]);
    assert_eq!(verify(&audit, &pinned(&key)).await.tampering(), []);
}

#[tokio::test]
async fn nothing_else_expires() {
    let key = SigningKey::generate();
    let (audit, sender) = expired("retention_forged", &key).await;
    let expiries = "what IN ('contents', 'batches')";
    for (statements, kind) in [
        (vec![delete("expiries", expiries)], Kind::BatchesMissing),
        (
            vec![
                copy("expiries", "toUInt64(2) AS last_batch", expiries),
                delete("expiries", "last_batch = 1"),
            ],
            Kind::ExpiryForged,
        ),
        (vec![update("expiries", "reason = 'because'", expiries)], Kind::ExpiryForged),
        (vec![update("expiries", "head = reverse(head)", expiries)], Kind::ExpiryForged),
        (vec![update("expiries", "public_key = reverse(public_key)", expiries)], Kind::ExpiryForged),
        (vec![delete("events", "sequence <= 8")], Kind::EventMissing),
        (vec![delete("batches", "number = 2"), delete("events", "sequence <= 8")], Kind::BatchesMissing),
        (vec![update("batches", "previous_hash = content_hash", "number = 2")], Kind::ManifestChanged),
        (vec![copy("events", "toUInt64(1) AS sequence", "sequence = 5")], Kind::EventInserted),
    ] {
        for sql in &statements {
            audit.run(sql).await;
        }
        let told = verify(&audit, &pinned(&key)).await;
        assert!(
            told.tampering().iter().any(|(found, ..)| *found == kind),
            "{statements:?}: {:#?}",
            told.findings
        );
        audit.restore().await;
    }
    assert_eq!(verify(&audit, &pinned(&key)).await.tampering(), []);

    // Who owns ClickHouse makes a key of his own known, and declares all but the newest batch expired.
    let forger = SigningKey::generate();
    let later = Retention { now: NOW.plus_ns(400 * DAY), ..retention(&forger, 30, 30) };
    audit.store().retain(later).await.unwrap();
    // The store alone believes it; who knows the key does not.
    assert_eq!(verify(&audit, &Outside::default()).await.tampering(), []);
    let told = verify(&audit, &pinned(&key)).await;
    assert!(told.tampering().iter().any(|(kind, ..)| *kind == Kind::ExpiryForged), "{:#?}", told.findings);
    assert!(told.chains.iter().any(|chain| chain.collector == sender.id));
}
