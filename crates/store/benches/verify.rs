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
use whence_model::{Event, Timestamp};
use whence_store::verify::Scope;
use whence_testkit::sample::shop_query;
use whence_testkit::{Sender, TestDatabase};

const BATCH_EVENTS: u64 = 4000;
const ROUNDS: u32 = 3;

/// The event, and when it began: one each 50 µs.
fn event(number: u64) -> Event {
    let started_at = Timestamp(1_795_435_200_000_000_000).plus_ns(i64::try_from(number * 50_000).unwrap());
    shop_query(number, started_at)
}

/// Seconds that ClickHouse takes, on two threads, to hash every column of every row.
async fn scan(database: &TestDatabase) -> f64 {
    let options = database.options();
    let client = clickhouse::Client::default().with_url(options.url).with_user(options.user);
    let client = client.with_password(options.password.expose_secret()).with_database(options.database);
    let mut best = f64::MAX;
    for _ in 0..ROUNDS {
        let began = Instant::now();
        let sql = "SELECT assumeNotNull(groupBitXor(cityHash64(*))) FROM events";
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
