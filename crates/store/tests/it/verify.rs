//! What was signed verifies as clean; whatever is changed afterwards is found, and named.

use std::ops::RangeInclusive;

use clickhouse::{Row, RowOwned, RowRead, RowWrite};
use secrecy::ExposeSecret;
use whence_model::{
    BatchId, CollectorId, Coverage, CoverageState, Event, EventKind, Gap, Life, LossReason, Provider,
    Timestamp,
};
use whence_store::read::Window;
use whence_store::verify::{Chain, Finding, Kind, Outside, Scope, Step, Summary};
use whence_store::{ConnectOptions, Store};
use whence_testkit::{Sender, TestDatabase};

use crate::events::{NOON, SECOND, barest, coverage, fullest, query};

/// Seconds between two batches of a collector.
const STEP_S: i64 = 10;
/// Events of each batch of [`Audit::new`].
pub const EVENTS: u64 = 4;
/// Batches of each of its two collectors.
pub const BATCHES: u64 = 5;

/// The chains of two collectors in a database, and a copy of it for putting things right again.
pub struct Audit {
    pub database: TestDatabase,
    pub senders: Vec<Sender>,
    client: clickhouse::Client,
}

/// What verification told.
pub struct Told {
    pub summary: Summary,
    pub findings: Vec<Finding>,
    pub chains: Vec<Chain>,
}

impl Told {
    /// Kind, batch and event of everything that is tampering.
    pub fn tampering(&self) -> Vec<(Kind, Option<u64>, Option<u64>)> {
        let findings = self.findings.iter().filter(|finding| finding.kind.is_tampering());
        findings.map(|finding| (finding.kind, finding.batch, finding.sequence)).collect()
    }

    pub fn notices(&self, kind: Kind) -> usize {
        self.findings.iter().filter(|finding| finding.kind == kind).count()
    }
}

pub async fn verify(store: &Store, scope: Scope) -> Told {
    verify_against(store, scope, &Outside::default()).await
}

pub async fn verify_against(store: &Store, scope: Scope, outside: &Outside) -> Told {
    let (mut findings, mut chains) = (Vec::new(), Vec::new());
    let summary = store
        .verify_against(&scope, outside, |step| match step {
            Step::Finding(finding) => findings.push(finding),
            Step::Chain(chain) => chains.push(chain),
            Step::Planned { .. } | Step::Events(_) => {}
        })
        .await
        .unwrap();
    Told { summary, findings, chains }
}

/// When batch `number` begins.
pub fn start(number: u64) -> Timestamp {
    NOON.plus_ns(i64::try_from(number).unwrap() * STEP_S * SECOND)
}

pub fn events(number: u64) -> Vec<Event> {
    let at = |ns| start(number).plus_ns(ns);
    let last = Event { started_at: at(3), ..barest(0) };
    vec![query(0, at(1)), query(0, at(0)), Event { gap: None, started_at: at(2), ..fullest(0) }, last]
}

pub fn spans(number: u64) -> Vec<Coverage> {
    let to = start(number + 1);
    ["db1", "db2"].map(|host| coverage(host, start(number), to, CoverageState::Watched)).into()
}

impl Audit {
    pub async fn new(test: &str) -> Self {
        let mut audit = Self::empty(test).await;
        let mut senders = vec![Sender::default(), Sender::default()];
        senders.sort_by_key(|sender| sender.id);
        for sender in &mut senders {
            sender.enroll(audit.store()).await;
            for number in 1..=BATCHES {
                let batch = sender.seal(events(number), &spans(number), start(number + 1));
                batch.write(audit.store()).await;
            }
        }
        audit.senders = senders;
        audit.keep().await;
        audit
    }

    /// Nothing yet.
    pub async fn empty(test: &str) -> Self {
        let database = TestDatabase::new(test).await;
        let ConnectOptions { url, user, password, database: name } = database.options();
        let client = clickhouse::Client::default().with_url(url).with_user(user);
        let client = client.with_password(password.expose_secret()).with_database(name);
        Self { database, senders: Vec::new(), client }
    }

    /// Copies the tables as they are.
    pub async fn keep(&mut self) {
        for table in TABLES {
            self.run(&format!("DROP TABLE IF EXISTS {table}_kept SYNC")).await;
            self.run(&format!("CREATE TABLE {table}_kept AS {table}")).await;
            self.run(&format!("INSERT INTO {table}_kept SELECT * FROM {table}")).await;
        }
    }

    pub fn store(&self) -> &Store {
        &self.database.store
    }

    /// Does something to the tables, without our code in between.
    pub async fn run(&self, sql: &str) {
        let query = self.client.query(&sql.replace('?', "??"));
        let query = query.with_setting("mutations_sync", "1").with_setting("insert_deduplicate", "0");
        if let Err(error) = query.execute().await {
            panic!("{sql}: {error}");
        }
    }

    pub async fn columns(&self, table: &str) -> Vec<String> {
        // What is computed as it is read cannot be changed.
        let sql = "SELECT name FROM system.columns
            WHERE database = currentDatabase() AND table = {table:String} AND default_kind != 'ALIAS'";
        self.client.query(sql).param("table", table).fetch_all().await.unwrap()
    }

    /// Rows as they are stored.
    pub async fn rows<R: RowOwned + RowRead>(&self, table: &str, of: &str) -> Vec<R> {
        let sql = format!("SELECT ?fields FROM {table} WHERE {of}");
        self.client.query(&sql).fetch_all().await.unwrap()
    }

    /// Puts rows in, without our code in between.
    pub async fn insert<R>(&self, table: &str, rows: &[R])
    where
        R: for<'a> Row<Value<'a> = R> + RowOwned + RowWrite,
    {
        let insert = self.client.insert::<R>(table).await.unwrap();
        let mut insert = insert.with_setting("insert_deduplicate", "0");
        for row in rows {
            insert.write(row).await.unwrap();
        }
        insert.end().await.unwrap();
    }

    /// Makes the tables what they were.
    pub async fn restore(&self) {
        futures::future::join_all(TABLES.map(|table| self.restore_table(table))).await;
    }

    pub async fn restore_table(&self, table: &str) {
        self.run(&format!("TRUNCATE TABLE {table}")).await;
        self.run(&format!("INSERT INTO {table} SELECT * FROM {table}_kept")).await;
    }

    /// The numbers that a question is answered with.
    pub async fn numbers(&self, sql: &str) -> Vec<u64> {
        self.client.query(sql).fetch_all().await.unwrap()
    }

    pub async fn verify(&self) -> Told {
        verify(self.store(), Scope::default()).await
    }
}

const TABLES: [&str; 6] = ["events", "coverage", "batches", "collectors", "expiries", "service_keys"];

#[tokio::test]
async fn what_was_signed_is_clean() {
    let audit = Audit::new("verify_clean").await;
    let told = audit.verify().await;
    assert_eq!(told.tampering(), []);
    let (events, batches) = (2 * BATCHES * EVENTS, 2 * BATCHES);
    assert_eq!(
        (told.summary.events, told.summary.batches, told.summary.collectors, told.summary.findings),
        (events, batches, 2, 0)
    );
    let sender = &audit.senders[0];
    assert_eq!(
        told.chains[0],
        Chain {
            collector: sender.id,
            public_key: Some(sender.key.public().to_bytes()),
            first_batch: 1,
            last_batch: BATCHES,
            head: sender.previous_hash,
        }
    );
    // Nobody watches since.
    assert_eq!(told.notices(Kind::Unwatched), 2);
}

#[tokio::test]
async fn a_part_is_verified_with_its_links() {
    let audit = Audit::new("verify_part").await;
    let window = Window { from: start(2), to: start(3).plus_ns(SECOND) };
    let scope = Scope { window: Some(window), ..Scope::default() };
    let told = verify(audit.store(), scope).await;
    assert_eq!(told.tampering(), []);
    // Batch 1 was sealed in it.
    assert_eq!((told.summary.batches, told.summary.events), (6, 6 * EVENTS));
    assert_eq!(told.notices(Kind::Unwatched), 0);

    let one = Scope { collector: Some(audit.senders[0].id), ..Scope::default() };
    assert_eq!(verify(audit.store(), one).await.summary.batches, BATCHES);
    let nobody = Scope { collector: Some(CollectorId(uuid::Uuid::nil())), ..Scope::default() };
    assert_eq!(verify(audit.store(), nobody).await.summary, Summary::default());
    let instance = Some(coverage("db1", NOON, NOON, CoverageState::Watched).instance());
    assert_eq!(verify(audit.store(), Scope { instance, ..scope }).await.summary.batches, 6);

    // Another row before the window is none of its business; one that hides in it is.
    audit.run("ALTER TABLE events UPDATE user = 'x' WHERE sequence = 20").await;
    assert_eq!(verify(audit.store(), scope).await.tampering(), []);
    audit.run("ALTER TABLE events UPDATE user = 'x' WHERE sequence = 9").await;
    assert_eq!(verify(audit.store(), scope).await.summary.findings, 2);
    // Its row claims that it has no event in the window.
    audit.restore().await;
    let far = "ALTER TABLE batches UPDATE first_started_at = '2020-01-01 00:00:00', \
        last_started_at = '2020-01-01 00:00:00', sealed_at = '2020-01-01 00:00:00' WHERE number = 3";
    audit.run(far).await;
    assert!(verify(audit.store(), scope).await.summary.findings > 0);
    // All that was in it is gone.
    audit.restore().await;
    let gone = Window { from: start(3).plus_ns(1), to: start(4) };
    for table in ["batches", "events", "coverage"] {
        let batches = "SELECT batch_id FROM batches_kept WHERE number BETWEEN 2 AND 4";
        audit.run(&delete(table, &format!("batch_id IN ({batches})"))).await;
    }
    let told = verify(audit.store(), Scope { window: Some(gone), ..Scope::default() }).await;
    assert_eq!(told.tampering(), [(Kind::BatchesMissing, Some(2), None); 2]);
    // The link at the end of the window.
    audit.restore().await;
    audit.run("ALTER TABLE batches UPDATE previous_hash = content_hash WHERE number = 4").await;
    let found = verify(audit.store(), scope).await;
    assert_eq!(found.tampering(), [(Kind::ManifestChanged, Some(4), None); 2]);
}

/// Statements that change something, and what must be found: kind, batch, event.
type Case = (Vec<String>, Vec<(Kind, Option<u64>, Option<u64>)>);

pub fn update(table: &str, set: &str, of: &str) -> String {
    format!("ALTER TABLE {table} UPDATE {set} WHERE {of}")
}

pub fn delete(table: &str, of: &str) -> String {
    format!("ALTER TABLE {table} DELETE WHERE {of}")
}

/// Inserts rows as they were once more, but for a change.
pub fn copy(table: &str, change: &str, of: &str) -> String {
    format!("INSERT INTO {table} SELECT * REPLACE({change}) FROM (SELECT * FROM {table}_kept WHERE {of})")
}

async fn each_is_found(audit: &Audit, cases: Vec<Case>) {
    for (statements, expected) in cases {
        for sql in &statements {
            audit.run(sql).await;
        }
        let told = audit.verify().await;
        assert_eq!(told.tampering(), expected, "{statements:#?}: {:#?}", told.findings);
        audit.restore().await;
    }
    assert_eq!(audit.verify().await.tampering(), []);
}

#[tokio::test]
async fn a_changed_event_is_named() {
    let audit = Audit::new("verify_event").await;
    let of = format!("collector_id = '{}' AND sequence = 10", audit.senders[0].id);
    let cases = [
        ("user = 'nobody'", Kind::EventChanged),
        ("sql_text = NULL", Kind::EventChanged),
        ("tls = true", Kind::EventChanged),
        ("event_hash = reverse(event_hash)", Kind::EventChanged),
        ("event_id = generateUUIDv4()", Kind::ColumnChanged),
        ("command = 'Ping'", Kind::ColumnChanged),
        ("error_code = 1", Kind::ColumnChanged),
        ("gap_events = 7", Kind::ColumnChanged),
        ("received_at = received_at + 1", Kind::ColumnChanged),
        ("kind = 'x'", Kind::Unreadable),
        ("user = unhex('ff')", Kind::Unreadable),
        ("container_id = unhex('ff')", Kind::Unreadable),
    ];
    let case = |(set, kind)| (vec![update("events", set, &of)], vec![(kind, Some(3), Some(10))]);
    each_is_found(&audit, cases.map(case).into()).await;
}

#[tokio::test]
async fn an_event_that_went_came_or_moved_is_named() {
    let audit = Audit::new("verify_moved").await;
    let first = audit.senders[0].id;
    let [second, third] = [2, 3].map(|number| BatchId::derive(first, number));
    let place = |sequence: u64| format!("collector_id = '{first}' AND sequence = {sequence}");
    let event = place(10);
    let cases = vec![
        (vec![delete("events", &event)], vec![(Kind::EventMissing, Some(3), Some(11))]),
        (
            vec![delete("events", &format!("batch_id = '{third}'"))],
            vec![(Kind::EventMissing, Some(3), Some(9))],
        ),
        (vec![copy("events", "user AS user", &event)], vec![(Kind::EventDuplicated, Some(3), Some(10))]),
        (
            vec![copy("events", "toUInt64(77) AS sequence", &event)],
            vec![(Kind::EventInserted, Some(3), Some(77)); 2],
        ),
        (
            vec![copy("events", "generateUUIDv4() AS batch_id", &event)],
            vec![(Kind::EventInserted, None, Some(10))],
        ),
        (
            vec![
                delete("events", &event),
                copy("events", "started_at + toIntervalDay(1) AS started_at", &event),
            ],
            vec![(Kind::EventMissing, Some(3), Some(11)), (Kind::EventInserted, Some(3), Some(10))],
        ),
        (
            // Two change places.
            vec![
                delete("events", &place(10)),
                delete("events", &place(11)),
                copy("events", "toUInt64(11) AS sequence", &place(10)),
                copy("events", "toUInt64(10) AS sequence", &place(11)),
            ],
            vec![(Kind::EventChanged, Some(3), Some(10))],
        ),
        (
            vec![update("events", &format!("batch_id = '{second}'"), &event)],
            vec![
                (Kind::EventInserted, Some(2), Some(10)),
                (Kind::EventMissing, Some(3), Some(11)),
                (Kind::EventInserted, Some(2), Some(10)),
            ],
        ),
    ];
    each_is_found(&audit, cases).await;
}

#[tokio::test]
async fn a_changed_batch_is_named() {
    let audit = Audit::new("verify_batch").await;
    let [first, second] = [0, 1].map(|place: usize| audit.senders[place].id);
    let of = format!("collector_id = '{first}' AND number = 3");
    let contents = format!("batch_id = '{}'", BatchId::derive(first, 3));
    let change = |set: &str| vec![update("batches", set, &of)];
    let other = format!("collector_id = '{second}'");
    let key = format!("(SELECT any(public_key) FROM collectors_kept WHERE collector_id = '{first}')");
    let all = |kind| (1..=BATCHES).map(|number| (kind, Some(number), None)).collect();
    let cases = vec![
        (
            change("event_count = 3"),
            vec![
                (Kind::ManifestChanged, Some(3), None),
                (Kind::BrokenLink, Some(4), None),
                (Kind::EventInserted, Some(3), Some(12)),
            ],
        ),
        (change("sealed_at = received_at"), vec![(Kind::ManifestChanged, Some(3), None)]),
        (change("signature = reverse(signature)"), vec![(Kind::WrongSignature, Some(3), None)]),
        (change("first_started_at = first_started_at - 1"), vec![(Kind::ManifestChanged, Some(3), None)]),
        (
            vec![copy("batches", "coverage_count + 1 AS coverage_count", &of)],
            vec![(Kind::ManifestConflict, Some(3), None)],
        ),
        (
            vec![delete("batches", &of)],
            vec![
                (Kind::BatchesMissing, Some(3), None),
                (Kind::EventInserted, None, Some(9)),
                (Kind::CoverageInserted, None, None),
            ],
        ),
        (
            vec![delete("batches", &of), delete("events", &contents), delete("coverage", &contents)],
            vec![(Kind::BatchesMissing, Some(3), None)],
        ),
        (vec![delete("collectors", &other)], all(Kind::UnknownKey)),
        (
            vec![delete("collectors", &other), copy("collectors", &format!("{key} AS public_key"), &other)],
            all(Kind::WrongSignature),
        ),
    ];
    each_is_found(&audit, cases).await;
}

#[tokio::test]
async fn a_changed_coverage_span_is_named() {
    let audit = Audit::new("verify_coverage").await;
    let of = format!("batch_id = '{}' AND position = 1", BatchId::derive(audit.senders[0].id, 3));
    let change = |set: &str| vec![update("coverage", set, &of)];
    let in_third = |kind| vec![(kind, Some(3), None)];
    let cases = vec![
        (change("stored = stored + 1"), in_third(Kind::Unaccounted)),
        (change("seen = seen + 1, stored = stored + 1"), in_third(Kind::ContentChanged)),
        (change("detail = unhex('ff')"), in_third(Kind::Unreadable)),
        (change("container_id = unhex('ff')"), in_third(Kind::Unreadable)),
        (change("lost = map('ring_full', 9, 'ring_full', 2)"), in_third(Kind::CoverageInserted)),
        (vec![delete("coverage", &of)], in_third(Kind::CoverageMissing)),
        (
            vec![
                delete("coverage", &of),
                copy("coverage", "received_at + toIntervalSecond(1) AS received_at", &of),
            ],
            in_third(Kind::ColumnChanged),
        ),
        (vec![copy("coverage", "'x' AS host", &of)], in_third(Kind::CoverageInserted)),
        (
            vec![copy("coverage", "toUInt32(2) AS position", &of)],
            vec![(Kind::CoverageInserted, Some(3), None); 2],
        ),
    ];
    each_is_found(&audit, cases).await;
}

#[tokio::test]
async fn what_retries_leave_is_no_tampering() {
    let audit = Audit::new("verify_retries").await;
    // Two ingest servers had the same batch; ClickHouse has not merged what both wrote.
    for table in ["batches", "coverage"] {
        let again = "SELECT * REPLACE(received_at + toIntervalMillisecond(3) AS received_at)";
        audit.run(&format!("INSERT INTO {table} {again} FROM {table}_kept")).await;
    }
    assert_eq!(audit.verify().await.tampering(), []);
    audit.run("OPTIMIZE TABLE batches FINAL").await;
    let told = audit.verify().await;
    assert_eq!(told.tampering(), []);
    assert_eq!(told.notices(Kind::WrittenInParts), 10);

    // The rows of a batch whose own row is still on its way.
    let mut sender = Sender::default();
    let batch = sender.seal(events(9), &spans(9), Timestamp::now());
    audit.insert("events", &batch.events).await;
    let told = audit.verify().await;
    assert_eq!((told.tampering().len(), told.notices(Kind::Unfinished)), (0, 1));
}

pub fn gap(reason: LossReason, events: u64) -> Event {
    Event { kind: EventKind::Gap, gap: Some(Gap { reason, events }), started_at: start(4), ..barest(0) }
}

#[tokio::test]
async fn a_loss_that_was_signed_is_no_tampering() {
    let database = TestDatabase::new("verify_loss").await;
    let mut sender = Sender::default();
    sender.enroll(&database.store).await;
    sender.seal(events(1), &[], start(2)).write(&database.store).await;
    // The spool had no room: batches 2 and 3 were given up.
    sender.seal(events(2), &[], start(3));
    sender.seal(events(3), &[], start(4));
    sender.seal(vec![gap(LossReason::SpoolFull, EVENTS)], &[], start(5)).write(&database.store).await;
    // So far only half of it is declared.
    let told = verify(&database.store, Scope::default()).await;
    assert_eq!(told.tampering(), [(Kind::BatchesMissing, Some(2), None)]);
    sender.seal(vec![gap(LossReason::SpoolFull, EVENTS)], &[], start(6)).write(&database.store).await;
    let told = verify(&database.store, Scope::default()).await;
    assert_eq!(told.tampering(), []);
    assert_eq!((told.notices(Kind::BatchesLost), told.notices(Kind::EventsLost)), (1, 2));
    assert_eq!(told.notices(Kind::Unwatched), 0);
}

/// The collector's own span, which tells that these batches are lost.
pub fn names_lost(lost_batches: Vec<RangeInclusive<u64>>) -> Coverage {
    let detail = Some(Life { lost_batches, ..Life::default() }.to_string());
    let span = coverage("db1", start(0), start(1), CoverageState::Watched);
    Coverage { provider: Some(Provider::Collector), detail, ..span }
}

#[tokio::test]
async fn lost_batches_that_their_collector_named_are_no_tampering_and_only_those() {
    let audit = Audit::empty("verify_named_loss").await;
    let mut sender = Sender::default();
    sender.enroll(audit.store()).await;
    sender.seal(events(1), &[], start(2)).write(audit.store()).await;
    // Batches 2, 5 and 7 held coverage alone, and 6 events too.
    sender.seal(vec![], &spans(2), start(3));
    sender.seal(vec![], &spans(3), start(4)).write(audit.store()).await;
    sender.seal(events(4), &spans(4), start(5)).write(audit.store()).await;
    for number in 5..=7 {
        let events = if number == 6 { events(6) } else { vec![] };
        sender.seal(events, &spans(number), start(number + 1));
    }
    let counted = vec![gap(LossReason::SpoolFull, EVENTS)];
    sender.seal(counted, &[names_lost(vec![2..=2, 5..=6])], start(9)).write(audit.store()).await;
    // All events are counted, and yet the last batch may have been removed.
    let told = audit.verify().await;
    assert_eq!(told.tampering(), [(Kind::BatchesMissing, Some(5), None)]);
    assert_eq!(told.notices(Kind::BatchesLost), 1);
    sender.seal(vec![], &[names_lost(vec![7..=7])], start(10)).write(audit.store()).await;
    let told = audit.verify().await;
    assert_eq!((told.tampering(), told.notices(Kind::BatchesLost)), (vec![], 2));

    // One beside them that held coverage alone.
    audit.run(&delete("batches", "number = 3")).await;
    audit.run(&delete("coverage", &format!("batch_id = '{}'", BatchId::derive(sender.id, 3)))).await;
    assert_eq!(audit.verify().await.tampering(), [(Kind::BatchesMissing, Some(2), None)]);
}

#[tokio::test]
async fn batches_beside_a_loss_that_was_signed_are_not_excused_by_other_losses() {
    let mut audit = Audit::empty("verify_beside_loss").await;
    let mut sender = Sender::default();
    sender.enroll(audit.store()).await;
    sender.seal(events(1), &[], start(2)).write(audit.store()).await;
    // Batch 2 was lost, with a gap among its events, which is told again and counted too.
    let mut lost = events(2);
    lost.push(gap(LossReason::RingFull, 7));
    sender.seal(lost, &[], start(3));
    sender.seal(events(3), &[], start(4)).write(audit.store()).await;
    let told = vec![gap(LossReason::SpoolFull, EVENTS + 1), gap(LossReason::RingFull, 7)];
    sender.seal(told, &[], start(5)).write(audit.store()).await;
    for number in 5..15 {
        let other = vec![gap(LossReason::RingFull, 100)];
        sender.seal(other, &[], start(number + 1)).write(audit.store()).await;
    }
    audit.keep().await;
    let told = audit.verify().await;
    assert_eq!((told.tampering(), told.notices(Kind::BatchesLost)), (vec![], 1));

    let neighbour = format!("batch_id = '{}'", BatchId::derive(sender.id, 3));
    audit.run(&delete("batches", "number = 3")).await;
    audit.run(&delete("events", &neighbour)).await;
    assert_eq!(audit.verify().await.tampering(), [(Kind::BatchesMissing, Some(2), None)]);
}
