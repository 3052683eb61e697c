//! Typed questions: each finds what it should, and nothing else.

use std::collections::HashSet;

use futures::TryStreamExt;
use whence_model::{
    Command, CoverageState, Event, EventKind, Gap, LossReason, Outcome, StatementClass, Timestamp,
};
use whence_store::Store;
use whence_store::read::{ClientFilter, EventFilter, Span, Window};
use whence_store::row::{EventView, FIELD_NAMES};
use whence_testkit::TestDatabase;

use crate::events::{COLLECTOR, HOSTILE, NOON, SECOND, barest, batch, coverage, fullest, query, server};

const HOUR: Window = Window { from: NOON, to: Timestamp(NOON.0 + 3600 * SECOND) };

trait PlusSeconds {
    fn plus_s(self, seconds: i64) -> Timestamp;
}

impl PlusSeconds for Timestamp {
    fn plus_s(self, seconds: i64) -> Timestamp {
        self.plus_ns(seconds * SECOND)
    }
}

async fn stored(test: &str, events: &[Event]) -> TestDatabase {
    let database = TestDatabase::new(test).await;
    let batch = batch(1, events, &[]);
    database.store.write_batch(&batch.manifest, &batch.events, &batch.coverage).await.unwrap();
    database
}

async fn found(store: &Store, filter: &EventFilter) -> Vec<u64> {
    let page = store.events_page(filter, 1000, None).await.unwrap();
    assert_eq!(store.count(filter).await.unwrap(), page.rows.len() as u64);
    let mut sequences: Vec<u64> = page.rows.iter().map(|row| row.sequence).collect();
    sequences.sort_unstable();
    sequences
}

fn filter() -> EventFilter {
    EventFilter::all(HOUR)
}

#[tokio::test]
async fn pages_show_every_event_once_when_times_are_equal() {
    let events: Vec<Event> =
        (1..=23).map(|n| query(n, NOON.plus_s(i64::try_from(n / 10).unwrap()))).collect();
    let database = stored("paging", &events).await;
    let mut cursor = None;
    let mut seen = Vec::new();
    loop {
        let page = database.store.events_page(&filter(), 4, cursor).await.unwrap();
        seen.extend(page.rows.iter().map(|row| row.sequence));
        // Through its text, as a browser gives it back.
        let Some(next) = page.next else { break };
        cursor = Some(next.to_string().parse().unwrap());
    }
    assert_eq!(seen, (1..=23).rev().collect::<Vec<u64>>());

    let streamed: Vec<u64> =
        database.store.stream_events(&filter()).map_ok(|row| row.sequence).try_collect().await.unwrap();
    assert_eq!(streamed, (1..=23).collect::<Vec<u64>>());
}

#[tokio::test]
async fn an_event_is_found_by_its_id() {
    let database = stored("by_id", &[query(1, NOON), barest(2)]).await;
    let row = database.store.event(query(2, NOON).id()).await.unwrap().unwrap();
    assert_eq!(row.to_event().unwrap(), barest(2));
    assert_eq!(database.store.event(query(3, NOON).id()).await.unwrap(), None);
}

#[tokio::test]
async fn every_filter_finds_its_own() {
    let mut other = query(2, NOON);
    other.principal.user = Some("other".into());
    other.principal.client_host = Some("web-1".into());
    other.principal.client_ip = None;
    other.server = server("db2").into();
    other.session.database = Some("payroll".into());
    other.session.connection_id = Some(18);
    other.command = Some(Command::INIT_DB);
    other.kind = EventKind::ConnectFailed;
    other.statement.as_mut().unwrap().class = StatementClass::Ddl;
    other.statement.as_mut().unwrap().sql.as_mut().unwrap().text = "DROP TABLE Straße".into();
    other.outcome = Some(Outcome::Unfinished);
    let mut late = query(3, HOUR.to);
    late.principal.user = Some("other".into());
    let database = stored("filters", &[query(1, NOON), other.clone(), late, fullest(4)]).await;
    let store = &database.store;

    let cases: Vec<(&str, EventFilter, &[u64])> = vec![
        ("window", filter(), &[1, 2, 4]),
        ("user", EventFilter { users: vec!["other".into()], ..filter() }, &[2]),
        ("users", EventFilter { users: vec!["other".into(), "shop_app".into()], ..filter() }, &[1, 2]),
        ("anonymous", EventFilter { users: vec![String::new()], ..filter() }, &[4]),
        ("hostile user", EventFilter { users: vec![HOSTILE.into(), "x".into()], ..filter() }, &[4]),
        ("injection", EventFilter { users: vec!["') OR 1=1 --".into()], ..filter() }, &[]),
        ("client", EventFilter { client: Some(ClientFilter::parse("web-1").unwrap()), ..filter() }, &[2]),
        (
            "hostile client",
            EventFilter { client: Some(ClientFilter::Host(HOSTILE.into())), ..filter() },
            &[4],
        ),
        ("instance", EventFilter { instance: Some(other.server.instance), ..filter() }, &[2]),
        ("host", EventFilter { host: Some("db2".into()), ..filter() }, &[2]),
        ("hostile host", EventFilter { host: Some(HOSTILE.into()), ..filter() }, &[4]),
        ("database", EventFilter { database: Some("payroll".into()), ..filter() }, &[2]),
        ("command", EventFilter { commands: vec!["Init_db".into()], ..filter() }, &[2]),
        ("class", EventFilter { classes: vec!["ddl".into(), "write".into()], ..filter() }, &[2]),
        ("kind", EventFilter { kinds: vec!["connect_failed".into()], ..filter() }, &[2]),
        ("result", EventFilter { result: Some("error".into()), ..filter() }, &[4]),
        ("text", EventFilter { text: Some("straße".into()), ..filter() }, &[2]),
        ("hostile text", EventFilter { text: Some(HOSTILE.into()), ..filter() }, &[4]),
        ("connection", EventFilter { connection_id: Some(18), ..filter() }, &[2]),
        ("process", EventFilter { server_started_at: Some(Timestamp(1)), ..filter() }, &[4]),
    ];
    for (name, filter, expected) in cases {
        assert_eq!(found(store, &filter).await, expected, "{name}");
    }
}

#[tokio::test]
async fn networks_of_both_families_are_matched() {
    let from = |sequence, host: &str, ip: Option<&str>| {
        let mut event = query(sequence, NOON);
        event.principal.client_host = Some(host.into());
        event.principal.client_ip = ip.map(|ip| ip.parse().unwrap());
        event
    };
    let events = [
        from(1, "web", Some("10.0.0.7")),
        from(2, "10.0.1.7", None),
        from(3, "db", Some("2001:db8::7")),
        from(4, "localhost", None),
    ];
    let database = stored("networks", &events).await;
    for (client, expected) in [
        ("10.0.0.0/8", vec![1, 2]),
        ("10.0.0.0/24", vec![1]),
        ("10.0.1.7", vec![2]),
        ("0.0.0.0/0", vec![1, 2]),
        ("2001:db8::/32", vec![3]),
        ("2001:db8::7", vec![3]),
        ("::/0", vec![1, 2, 3]),
        ("localhost", vec![4]),
    ] {
        let filter = EventFilter { client: Some(ClientFilter::parse(client).unwrap()), ..filter() };
        assert_eq!(found(&database.store, &filter).await, expected, "{client}");
    }
}

#[tokio::test]
async fn the_histogram_counts_everything_once_and_losses_for_everyone() {
    let mut failed = query(3, NOON.plus_s(3599));
    failed.outcome = Some(Outcome::Error { code: Some(1064), sqlstate: None, message: None });
    let mut gap = barest(4);
    gap.kind = EventKind::Gap;
    gap.gap = Some(Gap { reason: LossReason::RingFull, events: 5 });
    let database = stored("histogram", &[query(1, NOON), query(2, NOON.plus_s(1)), failed, gap]).await;
    for (users, ok, error) in [(vec![], 2, 1), (vec!["nobody".to_owned()], 0, 0)] {
        let filter = EventFilter { users, ..filter() };
        let bars = database.store.histogram(&filter, 60).await.unwrap();
        assert_eq!(bars.len(), 60);
        assert_eq!((bars[0].ok, bars[0].error, bars[0].gap), (ok, 0, 5));
        assert_eq!((bars[59].ok, bars[59].error, bars[59].gap), (0, error, 0));
    }
}

#[tokio::test]
async fn the_report_says_who_came_from_where() {
    let mut failed = query(3, NOON.plus_s(2));
    failed.kind = EventKind::ConnectFailed;
    failed.principal.user = None;
    failed.principal.login_user = Some("intruder".into());
    failed.outcome = Some(Outcome::Error { code: Some(1045), sqlstate: None, message: None });
    let database = stored("report", &[query(1, NOON), query(2, NOON.plus_s(1)), failed]).await;
    let report = database.store.access_report(&filter()).await.unwrap();
    assert!(!report.cut_off);
    assert_eq!(report.rows.len(), 2);
    let row = &report.rows[0];
    assert_eq!(row.user.as_deref(), Some("shop_app"));
    assert_eq!((row.first, row.last), (NOON, NOON.plus_s(1)));
    assert_eq!((row.events, row.failures, row.reads, row.writes), (2, 0, 2, 0));
    assert_eq!(report.failed_logins.len(), 1);
    let failed = &report.failed_logins[0];
    assert_eq!(
        (failed.user.as_deref(), failed.error_code, failed.attempts),
        (Some("intruder"), Some(1045), 1)
    );
    let totals = report.totals;
    assert_eq!((totals.events, totals.failures, totals.failed_logins, totals.instances), (3, 1, 1, 1));

    let scope = EventFilter { users: vec!["intruder".into()], ..filter() };
    assert_eq!(database.store.access_report(&scope).await.unwrap().totals.events, 1);
    let facets = database.store.facets(HOUR).await.unwrap();
    assert_eq!(facets.users, ["shop_app"]);
    assert_eq!((facets.hosts, facets.commands), (vec!["db1".to_owned()], vec!["Query".to_owned()]));
}

#[tokio::test]
async fn a_time_that_no_one_watched_is_named() {
    let database = TestDatabase::new("coverage").await;
    let store = &database.store;
    // A year ago, so that all of it is settled.
    let start = NOON.plus_s(-365 * 86_400);
    let at = |minutes: i64| start.plus_s(minutes * 60);
    let span = |from, to, state| coverage("db1", at(from), at(to), state);
    let spans = [
        span(0, 10, CoverageState::Watched),
        span(10, 20, CoverageState::Watched),
        span(25, 30, CoverageState::NotRunning),
        span(30, 40, CoverageState::Watched),
        span(40, 45, CoverageState::Unattachable),
    ];
    let batch = batch(1, &[], &spans);
    // Sent twice: counted once.
    store.write_batch(&batch.manifest, &batch.events, &batch.coverage).await.unwrap();
    store.write_batch(&batch.manifest, &batch.events, &batch.coverage).await.unwrap();

    let window = Window { from: at(-60), to: at(50) };
    let found = store.coverage(window, None).await.unwrap();
    assert_eq!(found.len(), 1);
    let span = |from, to| Span { from: at(from), to: at(to) };
    assert_eq!(found[0].first_known, at(0));
    assert_eq!(found[0].watched, [span(0, 20), span(30, 40)]);
    assert_eq!(found[0].not_running, [span(25, 30)]);
    assert_eq!(found[0].unwatched, [span(20, 25), span(40, 50)]);
    assert_eq!(
        (found[0].seen, found[0].stored, found[0].filtered, found[0].lost["ring_full"]),
        (50, 35, 5, 10)
    );

    let inner = store.coverage(Window { from: at(12), to: at(18) }, Some(found[0].instance)).await.unwrap();
    assert_eq!((inner[0].watched.clone(), inner[0].unwatched.clone()), (vec![span(12, 18)], vec![]));
    let after = store.coverage(Window { from: at(50), to: at(60) }, None).await.unwrap();
    assert_eq!(after[0].unwatched, [span(50, 60)]);
    assert_eq!(store.coverage(Window { from: at(-60), to: at(-50) }, None).await.unwrap(), []);

    let instances = store.instances().await.unwrap();
    assert_eq!(instances.len(), 1);
    assert_eq!((instances[0].state.as_str(), instances[0].last_seen), ("unattachable", at(45)));
    store.enroll_collector(COLLECTOR, "db1", [1; 32]).await.unwrap();
    let collectors = store.heard().await.unwrap();
    assert_eq!((collectors[0].batches, collectors[0].last_seen), (1, Some(batch.manifest.received_at)));
}

#[tokio::test]
async fn a_view_is_flat_and_has_every_field() {
    let row = batch(1, &[fullest(1)], &[]).events.remove(0);
    let view = EventView(&row);
    let json = serde_json::to_value(view).unwrap();
    let names: HashSet<&str> = json.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(names, FIELD_NAMES.iter().copied().collect());
    assert_eq!(names.len(), 48);
    assert_eq!(json["started_at"], "2026-11-23T12:00:00.000000001Z");
    assert_eq!(json["fingerprint"], "ffffffffffffffff");
    assert_eq!(view.texts().len(), FIELD_NAMES.len());

    let row = batch(1, &[query(1, NOON)], &[]).events.remove(0);
    let json = serde_json::to_string(&EventView(&row)).unwrap();
    assert!(json.starts_with(r#"{"event_id":"#), "{json}");
    assert!(json.contains(r#""client_ip":"10.0.0.7""#), "{json}");
    assert!(json.contains(r#""login_user":null"#), "{json}");
}
