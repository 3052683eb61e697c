//! Events for the tests.

use std::collections::BTreeMap;

use uuid::Uuid;
use whence_model::{
    BatchId, CollectorId, Command, Coverage, CoverageState, Event, EventKind, Gap, LossReason, Outcome,
    Principal, Provider, Server, Session, Statement, StatementClass, Text, Timestamp, Transport,
};
use whence_store::row::{BatchRow, CoverageRow, EventRow};
use whence_testkit::sample;
pub use whence_testkit::sample::server_on as server;

pub const COLLECTOR: CollectorId = CollectorId(Uuid::from_u128(0x0198_c0de_0000_7000_8000_0000_0000_0001));
/// 2026-11-23T12:00:00Z.
pub const NOON: Timestamp = Timestamp(1_795_435_200_000_000_000);
pub const SECOND: i64 = 1_000_000_000;
/// Strings that a stranger may send.
pub const HOSTILE: &str = "a'b\"c\\d`e\0f\ng\th?{x:String} -- <script>=1+1 密码 \u{202e}\u{1F600}";

/// A `SELECT 1` of `shop_app` from 10.0.0.7.
pub fn query(sequence: u64, at: Timestamp) -> Event {
    Event { collector: COLLECTOR, sequence, ..sample::query("SELECT 1", at) }
}

/// Everything that can be absent is absent.
pub fn barest(sequence: u64) -> Event {
    Event {
        kind: EventKind::Disconnect,
        duration_ns: None,
        server: Server { version: None, address: None, port: None, ..server("") }.into(),
        principal: Principal::default(),
        session: Session::default(),
        command: None,
        statement: None,
        outcome: None,
        ..query(sequence, NOON)
    }
}

/// Everything is there, at its largest, and hostile.
pub fn fullest(sequence: u64) -> Event {
    let text = Text { text: HOSTILE.repeat(1000), original_bytes: u64::MAX, truncated: true };
    Event {
        kind: EventKind::ChangeUser,
        duration_ns: Some(u64::MAX),
        server: Server {
            host: HOSTILE.into(),
            product: HOSTILE.into(),
            version: Some(HOSTILE.into()),
            address: Some("2001:db8::ffff".parse().unwrap()),
            port: Some(u16::MAX),
            process_id: u32::MAX,
            process_started_at: Timestamp(1),
            container_id: Some("3f1c9a52e7d84b60a1f2c3d4e5f60718293a4b5c6d7e8f901234567890abcdef".into()),
            ..server("db1")
        }
        .into(),
        principal: Principal {
            user: Some(String::new()),
            login_user: Some(HOSTILE.into()),
            client_host: Some(HOSTILE.into()),
            client_ip: Some("::".parse().unwrap()),
            client_port: Some(u16::MAX),
            transport: Some(Transport::Unix),
            tls: Some(true),
        },
        session: Session { connection_id: Some(u64::MAX), database: Some(HOSTILE.into()) },
        command: Some(Command(u32::MAX)),
        statement: Some(Statement {
            class: StatementClass::Unknown,
            sql: Some(text.clone()),
            fingerprint: Some(u64::MAX),
            tables: vec![String::new(), HOSTILE.into()],
        }),
        outcome: Some(Outcome::Error {
            code: Some(u32::MAX),
            sqlstate: Some(HOSTILE.into()),
            message: Some(text),
        }),
        gap: Some(Gap { reason: LossReason::RingFull, events: u64::MAX }),
        ..query(sequence, NOON.plus_ns(1))
    }
}

pub fn coverage(host: &str, from: Timestamp, to: Timestamp, state: CoverageState) -> Coverage {
    Coverage {
        server: server(host),
        state,
        provider: (state == CoverageState::Watched).then_some(Provider::Functions),
        from,
        to,
        seen: 10,
        stored: 7,
        filtered: 1,
        filtered_by: BTreeMap::from([("pings".into(), 1)]),
        lost: BTreeMap::from([(LossReason::RingFull, 2)]),
        detail: None,
    }
}

/// A batch of these events and spans, as ingest would write it.
pub struct Batch {
    pub manifest: BatchRow,
    pub events: Vec<EventRow>,
    pub coverage: Vec<CoverageRow>,
}

pub fn batch(number: u64, events: &[Event], coverage: &[Coverage]) -> Batch {
    let id = BatchId::derive(COLLECTOR, number);
    let received_at = NOON.plus_ns(SECOND);
    let rows = events.iter().map(|event| EventRow::new(event, id, received_at, [7; 32]));
    let spans = (0..)
        .zip(coverage)
        .map(|(position, span)| CoverageRow::new(span, COLLECTOR, id, position, received_at));
    Batch {
        manifest: BatchRow {
            batch_id: id.0,
            collector_id: COLLECTOR.0,
            number,
            first_sequence: events.first().map_or(1, |event| event.sequence),
            event_count: u32::try_from(events.len()).unwrap(),
            coverage_count: u32::try_from(coverage.len()).unwrap(),
            first_started_at: events.iter().map(|event| event.started_at).min(),
            last_started_at: events.iter().map(|event| event.started_at).max(),
            sealed_at: NOON,
            received_at,
            content_hash: [1; 32],
            previous_hash: [0; 32],
            batch_hash: [3; 32],
            signature: std::array::from_fn(|i| u8::try_from(i).unwrap()),
        },
        events: rows.collect(),
        coverage: spans.collect(),
    }
}
