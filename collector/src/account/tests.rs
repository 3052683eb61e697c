use std::fs;

use uuid::Uuid;
use whence_testkit::sample::server;

use super::*;

const PROCESS: ProcessId = ProcessId { tgid: 7, start_ticks: 70 };

fn open(directory: &Path, newest: u64) -> Accounts {
    Accounts::open(directory, "boot:1", newest)
}

fn watch(accounts: &mut Accounts, since: i64, went_on: bool) -> Vec<Coverage> {
    accounts.watch(PROCESS, &server(), Provider::Functions, Timestamp(since), went_on)
}

#[test]
fn spans_follow_each_other_and_count_each_event_once() {
    let directory = tempfile::tempdir().unwrap();
    let mut accounts = open(directory.path(), 0);
    assert_eq!(watch(&mut accounts, 10, false), []);
    accounts.count_stored(7);
    let counters = Counters { seen: 3, submitted: 1, ring_full: 2, sql_cut: 1, ..Counters::default() };
    let flaws = Flaws { texts_cut: 1, ..Flaws::default() };
    assert_eq!(accounts.count(7, &counters), (vec![(LossReason::RingFull, 2)], flaws));
    assert_eq!(accounts.count(7, &counters), (vec![], Flaws::default()));
    let counters = Counters { ring_full: 5, table_full: 1, ..counters };
    let losses = vec![(LossReason::RingFull, 3), (LossReason::TableFull, 1)];
    assert_eq!(accounts.count(7, &counters), (losses, Flaws::default()));
    accounts.count_filtered(7, "pings");
    accounts.count_filtered(7, "pings");
    let first = accounts.checkpoint(Timestamp(20)).remove(0);
    assert_eq!((first.from, first.to), (Timestamp(10), Timestamp(20)));
    assert_eq!((first.seen, first.stored, first.filtered), (9, 1, 2));
    assert_eq!(first.detail.as_deref(), Some("texts_cut=1"));
    assert_eq!(first.filtered_by["pings"], 2);
    assert!(first.adds_up());
    let counts = |pings| BTreeMap::from([("pings".to_owned(), pings), ("other".to_owned(), 1)]);
    accounts.count_filtered_in_kernel(7, counts(40));
    accounts.count_filtered_in_kernel(7, counts(41));
    let kernel = accounts.checkpoint(Timestamp(25)).remove(0);
    assert_eq!((kernel.filtered_by, kernel.seen, kernel.detail), (counts(41), 42, None));
    accounts.count_filtered_in_kernel(7, counts(41));
    let second = accounts.ended(7, true, Timestamp(30)).unwrap();
    assert_eq!((second.from, second.to, second.seen), (Timestamp(25), Timestamp(30), 0));
    let third = accounts.checkpoint(Timestamp(40)).remove(0);
    assert_eq!((third.state, third.from), (CoverageState::NotRunning, Timestamp(30)));
}

#[test]
fn a_clock_that_is_set_makes_no_time_watched() {
    let directory = tempfile::tempdir().unwrap();
    let mut accounts = open(directory.path(), 0);
    watch(&mut accounts, 10, false);
    let mut spans = accounts.clock_was_set(Timestamp(20), Timestamp(1000));
    spans.extend(accounts.checkpoint(Timestamp(1010)));
    spans.extend(accounts.clock_was_set(Timestamp(1015), Timestamp(30)));
    spans.extend(accounts.checkpoint(Timestamp(40)));
    let spans: Vec<_> = spans.iter().map(|span| (span.from.0, span.to.0)).collect();
    assert_eq!(spans, [(10, 20), (1000, 1010), (1010, 1015), (30, 40)]);
}

#[test]
fn what_was_lost_of_nobody_is_told_once_whoever_collects() {
    let directory = tempfile::tempdir().unwrap();
    let lost = |events| Counters { table_full: events, ..Counters::default() };
    let told = |events| vec![(LossReason::TableFull, events)];
    let mut accounts = open(directory.path(), 0);
    assert_eq!(accounts.count_roomless(&lost(3)).0, told(3));
    accounts.save(1).unwrap();
    accounts.confirm();
    // Lost while no collector ran.
    let mut accounts = open(directory.path(), 1);
    assert_eq!(accounts.count_roomless(&lost(5)).0, told(2));
    accounts.save(2).unwrap();
    // That batch did not reach the spool.
    let mut accounts = open(directory.path(), 1);
    assert_eq!(accounts.count_roomless(&lost(5)).0, told(2));
    let mut other_ring = Accounts::open(directory.path(), "boot:2", 1);
    assert_eq!(other_ring.count_roomless(&lost(1)).0, told(1));
}

#[test]
fn a_killed_collector_goes_on_with_what_its_spool_holds() {
    let directory = tempfile::tempdir().unwrap();
    let mut accounts = open(directory.path(), 0);
    watch(&mut accounts, 10, false);
    accounts.count_stored(7);
    accounts.save(1).unwrap();
    accounts.confirm();
    accounts.count_stored(7);
    let between = Timestamp::now();
    accounts.save(2).unwrap();
    let sealed = Timestamp::now();
    // The second attempt, after a disk that was full, tells of nothing that happened since.
    accounts.save(2).unwrap();
    for (newest, stored, until) in [(1, 1, Timestamp(0)..between), (2, 2, between..sealed)] {
        let mut next = open(directory.path(), newest);
        assert!(until.contains(&next.recorded_since().unwrap()));
        let former = Former { process: PROCESS, provider: Provider::Functions, server: server() };
        assert_eq!(next.former_processes(), [former]);
        assert!(!next.is_open(PROCESS));
        assert_eq!(watch(&mut next, 50, true), []);
        let span = next.checkpoint(Timestamp(60)).remove(0);
        assert_eq!((span.from, span.stored), (Timestamp(10), stored), "batch {newest} in the spool");
    }
}

#[test]
fn what_is_read_before_anyone_looked_is_counted_too() {
    let directory = tempfile::tempdir().unwrap();
    let mut accounts = open(directory.path(), 0);
    watch(&mut accounts, 10, false);
    accounts.save(1).unwrap();
    // Started and told to stop at once: it reads the ring, and looks at no server.
    let mut next = open(directory.path(), 1);
    next.count_stored(7);
    next.save(2).unwrap();
    let mut third = open(directory.path(), 2);
    watch(&mut third, 50, true);
    let span = third.checkpoint(Timestamp(60)).remove(0);
    assert_eq!((span.from, span.stored), (Timestamp(10), 1));
}

#[test]
fn probes_that_did_not_go_on_leave_a_hole() {
    let directory = tempfile::tempdir().unwrap();
    let mut accounts = open(directory.path(), 0);
    watch(&mut accounts, 10, false);
    accounts.save(1).unwrap();
    let mut next = open(directory.path(), 1);
    let before = watch(&mut next, i64::MAX - 1, false).remove(0);
    assert_eq!(before.from, Timestamp(10));
    assert!(before.to < Timestamp(i64::MAX - 1));
}

#[test]
fn after_a_boot_no_process_is_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let mut accounts = open(directory.path(), 0);
    watch(&mut accounts, 10, false);
    accounts.save(1).unwrap();
    let mut next = Accounts::open(directory.path(), "another boot:1", 1);
    assert_eq!(next.former_processes(), []);
    assert_eq!(next.known_server(PROCESS), None);
    assert_eq!(next.looked_once(Timestamp(i64::MAX)).len(), 1);
    let span = next.checkpoint(Timestamp(i64::MAX)).pop();
    assert_eq!(span, None);
}

#[test]
fn a_server_that_restarted_meanwhile_does_not_hide_the_process_before() {
    let directory = tempfile::tempdir().unwrap();
    let mut accounts = open(directory.path(), 0);
    watch(&mut accounts, 10, false);
    accounts.save(1).unwrap();
    let mut next = open(directory.path(), 1);
    let successor = Server { process_id: 8, ..server() };
    let process = ProcessId { tgid: 8, start_ticks: 80 };
    assert_eq!(next.watch(process, &successor, Provider::Functions, Timestamp(50), true), []);
    let former = next.former_processes().remove(0);
    assert_eq!(former.process, PROCESS);
    watch(&mut next, 0, true);
    next.count_stored(7);
    let span = next.ended(7, true, Timestamp(60)).unwrap();
    assert_eq!((span.from, span.stored), (Timestamp(10), 1));
    assert_eq!(next.looked_once(Timestamp(60)), []);
    let states: Vec<_> =
        next.servers().iter().map(|(server, state, _)| (server.process_id, *state)).collect();
    assert_eq!(states, [(8, CoverageState::Watched)]);
}

#[test]
fn servers_that_are_away_are_forgotten_in_the_end() {
    let directory = tempfile::tempdir().unwrap();
    let mut accounts = open(directory.path(), 0);
    for number in 0..300 {
        let instance = InstanceId(Uuid::from_u128(number));
        accounts.watch(PROCESS, &Server { instance, ..server() }, Provider::Functions, Timestamp(1), false);
        accounts.ended(7, true, Timestamp(2));
    }
    assert_eq!(accounts.servers().len(), MOST_AWAY);
}

#[test]
fn what_the_newest_batch_settles_is_known_to_the_next_collector() {
    let directory = tempfile::tempdir().unwrap();
    let mut accounts = open(directory.path(), 0);
    accounts.settle(7);
    accounts.save(1).unwrap();
    assert_eq!(open(directory.path(), 0).settled_before(), [0; 0], "the batch did not get there");
    assert_eq!(open(directory.path(), 1).settled_before(), [7]);
    let other_maps = Accounts::open(directory.path(), "boot:2", 1);
    assert_eq!(other_maps.settled_before(), [0; 0]);
    assert_eq!(accounts.confirm(), [7]);
    accounts.save(2).unwrap();
    assert_eq!(open(directory.path(), 2).settled_before(), [0; 0]);
}

#[test]
fn damaged_accounts_are_no_accounts() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("accounts.json"), "{").unwrap();
    assert_eq!(open(directory.path(), 5).former_processes(), []);
}
