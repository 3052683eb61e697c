//! What is left of a batch that its collector lost on the way is no tampering, and is said to be unproven.

use whence_model::{BatchId, Event, LossReason};
use whence_store::verify::Kind;
use whence_testkit::Sender;

use crate::verify::{Audit, EVENTS, copy, delete, events, gap, spans, start, update};

/// Batches 2 and 3 were lost after their events, and the spans of 2, had been written. Batch 1 is there.
async fn half_written(test: &str) -> (Audit, Sender) {
    let audit = Audit::empty(test).await;
    let mut sender = Sender::default();
    sender.enroll(audit.store()).await;
    sender.seal(events(1), &spans(1), start(2)).write(audit.store()).await;
    for number in 2..=3 {
        let batch = sender.seal(events(number), &spans(number), start(number + 1));
        audit.insert("events", &batch.events).await;
        if number == 2 {
            audit.insert("coverage", &batch.coverage).await;
        }
    }
    (audit, sender)
}

fn lost(events: u64) -> Vec<Event> {
    vec![gap(LossReason::SpoolCorrupt, events)]
}

const INSERTED: [(Kind, Option<u64>, Option<u64>); 3] = [
    (Kind::EventInserted, None, Some(5)),
    (Kind::EventInserted, None, Some(9)),
    (Kind::CoverageInserted, None, None),
];

#[tokio::test]
async fn rows_of_a_batch_that_was_declared_lost_are_unproven() {
    let (audit, mut sender) = half_written("unproven").await;
    // Nothing came since.
    assert_eq!(audit.verify().await.tampering(), INSERTED);
    // Not all of it is declared.
    sender.seal(lost(EVENTS), &[], start(5)).write(audit.store()).await;
    let told = audit.verify().await.tampering();
    assert_eq!((told[0], &told[1..]), ((Kind::BatchesMissing, Some(2), None), &INSERTED[..]));

    sender.seal(lost(EVENTS), &[], start(6)).write(audit.store()).await;
    let told = audit.verify().await;
    assert_eq!(told.tampering(), []);
    let unproven = told.findings.iter().filter(|finding| finding.kind == Kind::Unproven);
    let unproven: Vec<_> =
        unproven.map(|found| (found.batch, found.sequence, found.found.as_str())).collect();
    let lost = "which its collector lost on the way: nothing proves them";
    let counted = "and the gap that counts them as lost says so much too much";
    let expected = [
        (Some(2), Some(5), format!("4 events of batch 2, {lost}, {counted}")),
        (Some(3), Some(9), format!("4 events of batch 3, {lost}, {counted}")),
        (Some(2), None, format!("2 coverage spans of batch 2, {lost}")),
    ];
    assert_eq!(unproven, expected.each_ref().map(|(batch, event, text)| (*batch, *event, text.as_str())));
}

#[tokio::test]
async fn other_rows_in_the_place_of_lost_batches_are_tampering() {
    let (mut audit, mut sender) = half_written("unproven_tampering").await;
    sender.seal(lost(2 * EVENTS), &[], start(5)).write(audit.store()).await;
    audit.keep().await;
    let [first, second] = [1, 2].map(|number| BatchId::derive(sender.id, number));
    let (of, span) = ("sequence = 12", format!("batch_id = '{second}' AND position = 1"));
    let event = |first| vec![(Kind::EventInserted, None, Some(first))];
    let coverage = || vec![(Kind::CoverageInserted, None, None)];
    let again = "received_at + toIntervalSecond(1) AS received_at";
    let cases = vec![
        // A part of one is there, or two ingest servers wrote the same span.
        (delete("events", "sequence IN (5, 10)"), vec![]),
        (copy("coverage", again, &span), vec![]),
        // One event twice.
        (copy("events", again, of), event(9)),
        // Of no batch.
        (update("events", "batch_id = generateUUIDv4()", of), event(12)),
        // Outside of the hole: of the batch before, or behind.
        (copy("events", "toUInt64(4) AS sequence", of), event(4)),
        (copy("events", "toUInt64(13) AS sequence", of), event(9)),
        // Behind the events of the next batch.
        (update("events", &format!("batch_id = '{second}'"), of), event(9)),
        // Of a batch that is there.
        (
            update("events", &format!("batch_id = '{first}'"), of),
            vec![(Kind::EventInserted, Some(1), Some(12)); 2],
        ),
        (copy("coverage", "'x' AS host", &span), coverage()),
        (update("coverage", "lost = map('ring_full', 9, 'ring_full', 2)", &span), coverage()),
        (copy("coverage", "generateUUIDv4() AS batch_id", &span), coverage()),
    ];
    for (sql, expected) in cases {
        audit.run(&sql).await;
        let told = audit.verify().await;
        assert_eq!(told.tampering(), expected, "{sql}: {:#?}", told.findings);
        audit.restore().await;
    }
    assert_eq!(audit.verify().await.tampering(), []);
}
