//! Events for the tests.

use uuid::Uuid;
use whence_model::{
    BatchId, CollectorId, Coverage, CoverageState, Event, EventKind, Gap, LossReason, Outcome, Principal,
    Provider, Session, Timestamp,
};
use whence_store::Store;
use whence_store::row::{BatchRow, CoverageRow, EventRow};
use whence_testkit::sample;
pub use whence_testkit::sample::server_on as server;

pub const COLLECTOR: CollectorId = CollectorId(Uuid::from_u128(0x0198_c0de_0000_7000_8000_0000_0000_0001));
/// 2026-11-23T12:00:00Z.
pub const NOON: Timestamp = Timestamp(1_795_435_200_000_000_000);
pub const SECOND: i64 = 1_000_000_000;
/// The hour that begins at noon, as a query.
pub const HOUR: &str = "from=2026-11-23T12:00:00Z&to=2026-11-23T13:00:00Z";

/// A statement of `shop_app` from 10.0.0.7 on db1, one second after noon for each number of its sequence.
pub fn query(sequence: u64, sql: &str) -> Event {
    let at = NOON.plus_ns(i64::try_from(sequence).unwrap() * SECOND);
    Event { collector: COLLECTOR, sequence, ..sample::query(sql, at) }
}

/// The same by another account from another host.
pub fn by(user: &str, client: &str, event: Event) -> Event {
    let principal = Principal {
        user: Some(user.into()),
        client_host: Some(client.into()),
        client_ip: client.parse().ok(),
        ..event.principal.clone()
    };
    Event { principal, ..event }
}

/// A login that was refused.
pub fn failed_login(sequence: u64, user: &str) -> Event {
    let event = query(sequence, "");
    Event {
        kind: EventKind::ConnectFailed,
        principal: Principal { user: None, login_user: Some(user.into()), ..event.principal.clone() },
        command: None,
        statement: None,
        outcome: Some(Outcome::Error { code: Some(1045), sqlstate: Some("28000".into()), message: None }),
        ..event
    }
}

/// Events that were lost.
pub fn gap(sequence: u64, events: u64) -> Event {
    Event {
        kind: EventKind::Gap,
        provider: Provider::Collector,
        principal: Principal::default(),
        session: Session::default(),
        command: None,
        statement: None,
        outcome: None,
        gap: Some(Gap { reason: LossReason::RingFull, events }),
        ..query(sequence, "")
    }
}

/// db1 watched from `from` to `to` seconds after noon.
pub fn watched(host: &str, from: i64, to: i64) -> Coverage {
    Coverage {
        server: server(host),
        state: CoverageState::Watched,
        provider: Some(Provider::Functions),
        from: NOON.plus_ns(from * SECOND),
        to: NOON.plus_ns(to * SECOND),
        seen: 10,
        stored: 10,
        ..sample::span()
    }
}

/// Stores these as one batch.
pub async fn store_all(store: &Store, events: &[Event], coverage: &[Coverage]) {
    let id = BatchId::derive(COLLECTOR, 1);
    let received_at = NOON.plus_ns(SECOND);
    let rows: Vec<EventRow> =
        events.iter().map(|event| EventRow::new(event, id, received_at, [7; 32])).collect();
    let spans = (0..)
        .zip(coverage)
        .map(|(position, span)| CoverageRow::new(span, COLLECTOR, id, position, received_at));
    let spans: Vec<CoverageRow> = spans.collect();
    let batch = BatchRow {
        batch_id: id.0,
        collector_id: COLLECTOR.0,
        number: 1,
        first_sequence: 1,
        event_count: u32::try_from(events.len()).unwrap(),
        coverage_count: u32::try_from(coverage.len()).unwrap(),
        first_started_at: events.iter().map(|event| event.started_at).min(),
        last_started_at: events.iter().map(|event| event.started_at).max(),
        sealed_at: NOON,
        received_at,
        content_hash: [1; 32],
        previous_hash: [0; 32],
        batch_hash: [3; 32],
        signature: [0; 64],
    };
    store.write_batch(&batch, &rows, &spans).await.unwrap();
}
