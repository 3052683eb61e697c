//! `whence spool`: what it says of a spool, whole, in use and damaged, and what it changes.

use std::fs;
use std::path::Path;

use serde_json::Value;
use uuid::Uuid;
use whence_chain::SigningKey;
use whence_collector::seal::{Link, Sealer};
use whence_collector::spool::Spool;
use whence_model::{
    CollectorId, Command, Event, EventKind, Outcome, Principal, Provider, Session, Timestamp,
};
use whence_testkit::sample;

use crate::whence;

fn event(sequence: u64) -> Event {
    Event {
        collector: CollectorId(Uuid::from_u128(1)),
        sequence,
        kind: EventKind::Command,
        provider: Provider::Functions,
        started_at: Timestamp(5),
        duration_ns: Some(1),
        server: sample::server().into(),
        principal: Principal { user: Some("app".into()), ..Principal::default() },
        session: Session::default(),
        command: Some(Command(14)),
        statement: None,
        outcome: Some(Outcome::Ok { rows_sent: None, rows_affected: None }),
        gap: None,
        sampled_one_in: None,
    }
}

/// Three batches of two events; the first is confirmed.
fn fill(directory: &Path) -> Spool {
    let (mut spool, _) = Spool::open(directory, 1 << 30).unwrap();
    let mut sealer =
        Sealer::new(CollectorId(Uuid::from_u128(1)), SigningKey::generate(), Link::FIRST).unwrap();
    for number in 0..3 {
        sealer.event(event(2 * number + 1));
        sealer.event(event(2 * number + 2));
        spool.append(&sealer.seal().unwrap().unwrap(), None).unwrap();
    }
    spool.confirm(1).unwrap();
    spool
}

fn command(verb: &str, directory: &Path) -> (Option<i32>, String) {
    whence(&["spool", verb, &format!("--spool-dir={}", directory.display())])
}

#[test]
fn a_spool_is_listed_and_exported_while_a_collector_uses_it() {
    let directory = tempfile::tempdir().unwrap();
    let spool = fill(directory.path());
    let (status, text) = command("list", directory.path());
    assert_eq!(status, Some(0), "{text}");
    assert!(text.contains("batches 1 to 3, 6 events, partly confirmed"), "{text}");
    assert!(text.contains("confirmed up to 1; 2 batches with 4 events wait"), "{text}");
    assert!(text.contains("a collector uses it") && text.ends_with("all of it is whole\n"), "{text}");

    let (status, text) = command("repair", directory.path());
    assert_eq!(status, Some(1));
    assert!(text.contains("a collector uses"), "{text}");

    drop(spool);
    let file = directory.path().join("events");
    let to = format!("--to={}", file.display());
    let export = ["spool", "export", &format!("--spool-dir={}", directory.path().display()), &to];
    assert_eq!(whence(&export), (Some(0), "4 events that are not confirmed were written\n".into()));
    let lines = fs::read_to_string(&file).unwrap();
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let sequences: Vec<&Value> = lines.iter().map(|line| &line["sequence"]).collect();
    assert_eq!(sequences, [3, 4, 5, 6]);
    assert_eq!((&lines[0]["user"], &lines[0]["received_at"]), (&Value::from("app"), &Value::Null));
    // It is never written over.
    assert_eq!(whence(&export).0, Some(1));
}

#[test]
fn damage_is_shown_and_repaired_and_stays_to_be_counted() {
    let directory = tempfile::tempdir().unwrap();
    drop(fill(directory.path()));
    let path = directory.path().join("00000000000000000001.spool");
    let mut bytes = fs::read(&path).unwrap();
    // In the second batch, and half a record at the end.
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    bytes.extend([7; 50]);
    fs::write(&path, &bytes).unwrap();

    let (status, text) = command("list", directory.path());
    assert_eq!(status, Some(1), "{text}");
    assert!(text.contains("damaged: bytes "), "{text}");
    assert!(text.contains("missing: batches 2 to 2 with 2 events; the collector counts them"), "{text}");
    assert_eq!(fs::read(&path).unwrap(), bytes, "listing changes nothing");

    let (status, text) = command("repair", directory.path());
    assert_eq!(status, Some(0), "{text}");
    assert!(text.contains("50 bytes that hold no batch were cut off"), "{text}");
    assert!(text.contains("2 events were damaged; the collector counts them"), "{text}");
    assert!(text.contains("the next batch is 4"), "{text}");
    // The collector counts them too.
    let (mut spool, _) = Spool::open(directory.path(), 1 << 30).unwrap();
    spool.declare_missing(2, 2, None);
    assert_eq!(spool.take_lost().len(), 1);
}

#[test]
fn a_directory_that_is_none_is_named() {
    let (status, text) = command("list", Path::new("/nonexistent/spool"));
    assert_eq!((status, text.as_str()), (Some(1), "whence: there is no spool at /nonexistent/spool\n"));
}
