//! How fast verification is: `cargo bench -p whence-store --bench verify [-- EVENTS]`.
//!
//! Writes signed batches of real-looking events into the embedded ClickHouse and verifies them. Ends with
//! `events_per_second X per_core Y scan_per_second Z`: by the clock, by the processor time of this process (ClickHouse is
//! another), and how fast ClickHouse itself hashes all columns of the same rows, which proves nothing.

#![expect(clippy::unwrap_used, reason = "a benchmark ends at its first surprise")]
#![expect(clippy::cast_precision_loss, reason = "rates are rough")]

use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};
use secrecy::ExposeSecret;
use whence_model::{
    CollectorId, Command, Event, EventKind, InstanceId, Outcome, Principal, Provider, Server, Session,
    Statement, StatementClass, Text, Timestamp, Transport,
};
use whence_store::verify::Scope;
use whence_testkit::{Sender, TestDatabase};

const BATCH_EVENTS: u64 = 4000;
const ROUNDS: u32 = 3;

/// A point query of a shop, one of several accounts, each from some hosts.
fn event(number: u64) -> Event {
    let sql = format!(
        "SELECT id, customer_id, state, total FROM orders WHERE customer_id = {} ORDER BY id DESC LIMIT 20",
        number % 9973
    );
    let place = |modulus: u64| u8::try_from(number % modulus).unwrap();
    Event {
        collector: CollectorId(uuid::Uuid::nil()),
        sequence: 0,
        kind: EventKind::Command,
        provider: Provider::Functions,
        started_at: Timestamp(1_795_435_200_000_000_000).plus_ns(i64::try_from(number * 50_000).unwrap()),
        duration_ns: Some(200_000 + number % 70_000),
        server: Server {
            host: "db1.example".into(),
            instance: InstanceId::derive("db1.example", "10.0.0.1:3306", "/var/lib/mysql"),
            product: "MariaDB".into(),
            version: Some("10.11.19-MariaDB".into()),
            address: Some([10, 0, 0, 1].into()),
            port: Some(3306),
            process_id: 4242,
            process_started_at: Timestamp(1_795_400_000_000_000_000),
            container_id: None,
        },
        principal: Principal {
            user: Some(format!("shop_app{}", number % 7)),
            login_user: None,
            client_host: Some(format!("10.0.3.{}", number % 40)),
            client_ip: Some([10, 0, 3, place(40)].into()),
            client_port: Some(40_000 + u16::from(place(200))),
            transport: Some(Transport::Tcp),
            tls: None,
        },
        session: Session { connection_id: Some(1000 + number % 200), database: Some("shop".into()) },
        command: Some(Command::QUERY),
        statement: Some(Statement {
            class: StatementClass::Read,
            sql: Some(Text::from_source(sql.as_bytes(), sql.len() as u64)),
            fingerprint: Some(0x9b1d_7c44_0a3e_5511),
            tables: vec!["orders".into()],
        }),
        outcome: Some(Outcome::Ok { rows_sent: Some(number % 20), rows_affected: None }),
        gap: None,
        sampled_one_in: None,
    }
}

/// Seconds that ClickHouse takes, on two threads, to hash every column of every row.
async fn scan(database: &TestDatabase) -> f64 {
    let options = database.options();
    let client = clickhouse::Client::default().with_url(options.url).with_user(options.user);
    let client = client.with_password(options.password.expose_secret()).with_database(options.database);
    let mut best = f64::MAX;
    for _ in 0..ROUNDS {
        let began = Instant::now();
        let sql = "SELECT groupBitXor(cityHash64(*)) FROM events";
        let query = client.query(sql).with_setting("max_threads", "2");
        query.fetch_one::<u64>().await.unwrap();
        best = best.min(began.elapsed().as_secs_f64());
    }
    best
}

fn processor_time() -> Duration {
    clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).unwrap().into()
}

#[tokio::main]
async fn main() {
    let events = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(300_000_u64);
    let database = TestDatabase::new("verify_bench").await;
    let mut sender = Sender::default();
    sender.enroll(&database.store).await;
    let mut numbers = (0..events).peekable();
    while let Some(&first) = numbers.peek() {
        let some: Vec<Event> =
            numbers.by_ref().take(usize::try_from(BATCH_EVENTS).unwrap()).map(event).collect();
        let sealed_at = event(first + BATCH_EVENTS).started_at;
        sender.seal(some, &[], sealed_at).write(&database.store).await;
    }
    let mut best = (f64::MAX, f64::MAX);
    for _ in 0..ROUNDS {
        let (began, used) = (Instant::now(), processor_time());
        let summary = database.store.verify(&Scope::default(), drop).await.unwrap();
        let (took, used) =
            (began.elapsed().as_secs_f64(), processor_time().saturating_sub(used).as_secs_f64());
        assert_eq!((summary.events, summary.findings), (events, 0));
        println!("{events} events in {took:.2} s, with {used:.2} s of processor time");
        best = (best.0.min(took), best.1.min(used));
    }
    let scan = scan(&database).await;
    let rate = |seconds: f64| events as f64 / seconds;
    println!(
        "events_per_second {:.0} per_core {:.0} scan_per_second {:.0}",
        rate(best.0),
        rate(best.1),
        rate(scan)
    );
}
