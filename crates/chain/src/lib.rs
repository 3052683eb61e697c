//! What makes the record provable: a hash per event, a hash per batch that holds the hash of the batch before,
//! and the collector's signature over it.
//!
//! ```text
//! event_hash   = H("event", canonical(event))
//! content_hash = H("content", event_hash … , coverage_hash …)
//! batch_hash   = H("batch", canonical(manifest))        the manifest holds content_hash and previous_hash
//! signature    = Ed25519(collector's key, batch_hash)
//! ```
//!
//! `H(context, data)` is BLAKE3 in its key derivation mode. The canonical encoding is in [`canonical`].

pub mod canonical;
mod expiry;
mod key;
mod tree;

pub use expiry::{Expired, Expiry};
pub use key::{KeyError, PublicKey, Signature, SigningKey};
pub use tree::{MAX_HASHES, RowTree};

use std::cell::RefCell;

use canonical::{Encoder, EventFields};
use whence_model::{CollectorId, Coverage, Event, Sequence, Timestamp};

/// A BLAKE3 hash.
pub type Hash = [u8; 32];

/// What the first batch of a collector names as the hash of the batch before it.
pub const NO_BATCH: Hash = [0; 32];

/// What a collector signs: a batch without its contents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    pub collector: CollectorId,
    /// 1, 2, 3 … within the collector.
    pub number: u64,
    /// Sequence number of its first event, or of the next event to come when it has none.
    pub first_sequence: Sequence,
    pub event_count: u32,
    pub coverage_count: u32,
    pub sealed_at: Timestamp,
    pub content_hash: Hash,
    /// `batch_hash` of batch `number - 1`; [`NO_BATCH`] for the first.
    pub previous_hash: Hash,
}

impl Manifest {
    /// The batch's hash.
    pub fn hash(&self) -> Hash {
        let mut encoder = Encoder::new("whence 2026-11-23 batch v1");
        encoder.uuid(self.collector.0);
        encoder.u64(self.number);
        encoder.u64(self.first_sequence);
        encoder.u32(self.event_count);
        encoder.u32(self.coverage_count);
        encoder.timestamp(self.sealed_at);
        encoder.hash(&self.content_hash);
        encoder.hash(&self.previous_hash);
        encoder.finish()
    }
}

/// The hash of an event.
pub fn event_hash(event: &Event) -> Hash {
    event_fields_hash(&event.into())
}

/// The same of an event that is no [`Event`].
pub fn event_fields_hash<T: AsRef<str>>(event: &EventFields<'_, T>) -> Hash {
    thread_local! {
        /// One for all: a chain has very many events.
        static ENCODER: RefCell<Encoder> = RefCell::new(Encoder::new("whence 2026-11-23 event v1"));
    }
    ENCODER.with_borrow_mut(|encoder| {
        encoder.restart();
        canonical::event(encoder, event);
        encoder.finish()
    })
}

/// The hash of a coverage span.
pub fn coverage_hash(coverage: &Coverage) -> Hash {
    let mut encoder = Encoder::new("whence 2026-11-23 coverage v1");
    canonical::coverage(&mut encoder, coverage);
    encoder.finish()
}

/// The hash of a batch's contents: of the hashes of its events, then of its coverage spans, in their order.
pub fn content_hash<'a>(
    events: impl IntoIterator<Item = &'a Hash>,
    coverage: impl IntoIterator<Item = &'a Hash>,
) -> Hash {
    let mut encoder = Encoder::new("whence 2026-11-23 content v1");
    for hash in events {
        encoder.hash(hash);
    }
    // The manifest holds both counts, so the border between the two needs no mark.
    for hash in coverage {
        encoder.hash(hash);
    }
    encoder.finish()
}

/// The hash of a document that is signed as it is, byte by byte.
pub fn document_hash(document: &str) -> Hash {
    let mut encoder = Encoder::new("whence 2026-11-25 document v1");
    encoder.bytes(document.as_bytes());
    encoder.finish()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::collections::HashSet;
    use std::net::IpAddr;
    use std::sync::Arc;

    use uuid::Uuid;
    use whence_model::{
        Command, CoverageState, EventKind, Gap, InstanceId, LossReason, Outcome, Principal, Provider, Server,
        Session, Statement, StatementClass, Text, Transport,
    };

    use super::*;

    fn event() -> Event {
        Event {
            collector: CollectorId(Uuid::from_u128(1)),
            sequence: 7,
            kind: EventKind::Command,
            provider: Provider::Functions,
            started_at: Timestamp(1_700_000_000_000_000_001),
            duration_ns: Some(5),
            server: server().into(),
            principal: Principal {
                user: Some("app".into()),
                login_user: None,
                client_host: Some("web1".into()),
                client_ip: Some(IpAddr::from([10, 0, 0, 1])),
                client_port: Some(4000),
                transport: Some(Transport::Tcp),
                tls: None,
            },
            session: Session { connection_id: Some(3), database: Some("shop".into()) },
            command: Some(Command::QUERY),
            statement: Some(Statement {
                class: StatementClass::Read,
                sql: Some(Text { text: "SELECT 1".into(), original_bytes: 8, truncated: false }),
                fingerprint: Some(9),
                tables: vec!["a".into(), "b".into()],
            }),
            outcome: Some(Outcome::Ok { rows_sent: Some(1), rows_affected: None }),
            gap: None,
            sampled_one_in: None,
        }
    }

    fn server() -> Server {
        Server {
            host: "db1".into(),
            instance: InstanceId(Uuid::from_u128(2)),
            product: "MariaDB".into(),
            version: Some("10.11.19".into()),
            address: Some(IpAddr::from([127, 0, 0, 1])),
            port: Some(3306),
            process_id: 42,
            process_started_at: Timestamp(1_600_000_000_000_000_000),
            container_id: None,
        }
    }

    fn server_of(event: &mut Event) -> &mut Server {
        Arc::make_mut(&mut event.server)
    }

    /// Every way to change one field of an event.
    const CHANGES: &[fn(&mut Event)] = &[
        |e| e.collector = CollectorId(Uuid::from_u128(3)),
        |e| e.sequence += 1,
        |e| e.kind = EventKind::Connect,
        |e| e.provider = Provider::Usdt,
        |e| e.started_at = e.started_at.plus_ns(1),
        |e| e.duration_ns = None,
        |e| e.duration_ns = Some(6),
        |e| server_of(e).host.push('x'),
        |e| server_of(e).instance = InstanceId(Uuid::from_u128(9)),
        |e| server_of(e).product.push('x'),
        |e| server_of(e).version = None,
        |e| server_of(e).version = Some(String::new()),
        |e| server_of(e).address = None,
        |e| server_of(e).port = Some(3307),
        |e| server_of(e).process_id += 1,
        |e| server_of(e).process_started_at = Timestamp(0),
        |e| server_of(e).container_id = Some("3f1c".into()),
        |e| server_of(e).container_id = Some(String::new()),
        |e| e.principal.user = None,
        |e| e.principal.login_user = Some("app".into()),
        |e| e.principal.client_host = Some(String::new()),
        |e| e.principal.client_ip = Some(IpAddr::from([10, 0, 0, 2])),
        |e| e.principal.client_port = None,
        |e| e.principal.transport = Some(Transport::Unix),
        |e| e.principal.tls = Some(false),
        |e| e.session.connection_id = Some(4),
        |e| e.session.database = None,
        |e| e.command = Some(Command::QUIT),
        |e| e.statement = None,
        |e| e.statement.as_mut().unwrap().class = StatementClass::Write,
        |e| e.statement.as_mut().unwrap().sql = None,
        |e| e.statement.as_mut().unwrap().sql.as_mut().unwrap().text.push(' '),
        |e| e.statement.as_mut().unwrap().sql.as_mut().unwrap().original_bytes = 9,
        |e| e.statement.as_mut().unwrap().sql.as_mut().unwrap().truncated = true,
        |e| e.statement.as_mut().unwrap().fingerprint = None,
        |e| e.statement.as_mut().unwrap().tables = vec!["ab".into()],
        |e| e.statement.as_mut().unwrap().tables.reverse(),
        |e| e.outcome = None,
        |e| e.outcome = Some(Outcome::Unfinished),
        |e| e.outcome = Some(Outcome::Ok { rows_sent: None, rows_affected: Some(1) }),
        |e| e.outcome = Some(Outcome::Error { code: Some(1), sqlstate: None, message: None }),
        |e| e.outcome = Some(Outcome::Error { code: Some(1), sqlstate: Some("HY000".into()), message: None }),
        |e| {
            let message = Some(Text { text: "no".into(), original_bytes: 2, truncated: false });
            e.outcome = Some(Outcome::Error { code: Some(1), sqlstate: None, message });
        },
        |e| e.gap = Some(Gap { reason: LossReason::RingFull, events: 1 }),
        |e| e.gap = Some(Gap { reason: LossReason::RingFull, events: 2 }),
        |e| e.gap = Some(Gap { reason: LossReason::TableFull, events: 1 }),
    ];

    #[test]
    fn a_change_of_any_field_changes_the_hash() {
        let mut hashes = HashSet::from([event_hash(&event())]);
        for (number, change) in CHANGES.iter().enumerate() {
            let mut changed = event();
            change(&mut changed);
            assert!(
                hashes.insert(event_hash(&changed)),
                "change {number} is not in the hash, or is like another"
            );
        }
    }

    #[test]
    fn the_encoding_stays_what_it_was() {
        // A stored hash must be the same for ever: a new encoding needs a new version.
        let expected = include_str!("golden_event_hash.txt").trim();
        assert_eq!(hex::encode(event_hash(&event())), expected);
    }

    #[test]
    fn a_change_of_any_coverage_field_changes_the_hash() {
        let span = Coverage {
            server: server(),
            state: CoverageState::Watched,
            provider: Some(Provider::Functions),
            from: Timestamp(1),
            to: Timestamp(2),
            seen: 3,
            stored: 3,
            filtered: 0,
            filtered_by: BTreeMap::new(),
            lost: BTreeMap::new(),
            detail: None,
        };
        let changes: &[fn(&mut Coverage)] = &[
            |c| c.server.port = None,
            |c| c.server.container_id = Some("3f1c".into()),
            |c| c.state = CoverageState::NotRunning,
            |c| c.provider = None,
            |c| c.from = Timestamp(0),
            |c| c.to = Timestamp(3),
            |c| c.seen = 4,
            |c| c.stored = 4,
            |c| c.filtered = 1,
            |c| c.lost = BTreeMap::from([(LossReason::RingFull, 1)]),
            |c| c.detail = Some(String::new()),
        ];
        let mut hashes = HashSet::from([coverage_hash(&span)]);
        for (number, change) in changes.iter().enumerate() {
            let mut changed = span.clone();
            change(&mut changed);
            assert!(hashes.insert(coverage_hash(&changed)), "change {number} is not in the hash");
        }
    }

    #[test]
    fn a_signature_holds_for_its_hash_and_key_only() {
        let key = SigningKey::generate();
        let signature = key.sign(&[7; 32]);
        assert!(key.public().verify(&[7; 32], &signature));
        assert!(!key.public().verify(&[8; 32], &signature));
        assert!(!SigningKey::generate().public().verify(&[7; 32], &signature));
    }

    #[test]
    fn a_key_is_kept() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        let made = SigningKey::load_or_create(&path).unwrap();
        assert_eq!(SigningKey::load_or_create(&path).unwrap().public(), made.public());
        std::fs::write(&path, "not a key").unwrap();
        assert!(matches!(SigningKey::load_or_create(&path), Err(KeyError::Malformed { .. })));
    }
}
