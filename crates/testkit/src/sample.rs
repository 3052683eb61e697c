//! What tests and benchmarks tell of: a server, a span of it, events as a busy shop makes them.

use std::collections::BTreeMap;
use std::sync::Arc;

use uuid::Uuid;
use whence_model::{
    CollectorId, Command, Coverage, CoverageState, Event, EventKind, InstanceId, Outcome, Principal,
    Provider, Server, Session, Statement, StatementClass, Text, Timestamp, Transport,
};

/// A server of which little is known.
pub fn server() -> Server {
    Server {
        host: "db1".into(),
        instance: InstanceId::derive("db1", "127.0.0.1:3306", "/var/lib/mysql"),
        product: "MariaDB".into(),
        version: None,
        address: None,
        port: Some(3306),
        process_id: 7,
        process_started_at: Timestamp(1),
        container_id: None,
    }
}

/// A span in which that server did not run.
pub fn span() -> Coverage {
    Coverage {
        server: server(),
        state: CoverageState::NotRunning,
        provider: None,
        from: Timestamp(0),
        to: Timestamp(1),
        seen: 0,
        stored: 0,
        filtered: 0,
        filtered_by: BTreeMap::new(),
        lost: BTreeMap::new(),
        detail: None,
    }
}

/// A server on this host, of which all is known.
pub fn server_on(host: &str) -> Server {
    Server {
        host: host.into(),
        instance: InstanceId::derive(host, "127.0.0.1:3306", "/var/lib/mysql"),
        version: Some("10.11.19".into()),
        address: Some([127, 0, 0, 1].into()),
        process_id: 4242,
        process_started_at: Timestamp(1_795_431_600_000_000_000),
        ..server()
    }
}

/// A statement of `shop_app` from 10.0.0.7 on db1. The collector and the sequence number are set by who seals it.
pub fn query(sql: &str, started_at: Timestamp) -> Event {
    Event {
        collector: CollectorId(Uuid::nil()),
        sequence: 0,
        kind: EventKind::Command,
        provider: Provider::Functions,
        started_at,
        duration_ns: Some(1_240_000),
        server: server_on("db1").into(),
        principal: Principal {
            user: Some("shop_app".into()),
            login_user: None,
            client_host: Some("10.0.0.7".into()),
            client_ip: Some([10, 0, 0, 7].into()),
            client_port: Some(40_000),
            transport: Some(Transport::Tcp),
            tls: None,
        },
        session: Session { connection_id: Some(17), database: Some("shop".into()) },
        command: Some(Command::QUERY),
        statement: Some(Statement {
            class: StatementClass::Read,
            sql: Some(Text::from_source(sql.as_bytes(), sql.len() as u64)),
            fingerprint: Some(7),
            tables: vec!["orders".into()],
        }),
        outcome: Some(Outcome::Ok { rows_sent: Some(1), rows_affected: None }),
        gap: None,
        sampled_one_in: None,
    }
}

/// A point query of one of several accounts, each from some hosts. The collector and the sequence number are set by who
/// seals it.
pub fn shop_query(number: u64, started_at: Timestamp) -> Event {
    let sql = format!(
        "SELECT id, customer_id, state, total FROM orders WHERE customer_id = {} ORDER BY id DESC LIMIT 20",
        number % 9973
    );
    let below = |modulus: u8| (number % u64::from(modulus)).to_le_bytes()[0];
    Event {
        collector: CollectorId(Uuid::nil()),
        sequence: 0,
        kind: EventKind::Command,
        provider: Provider::Functions,
        started_at,
        duration_ns: Some(200_000 + number % 70_000),
        server: Arc::new(Server {
            host: "db1.example".into(),
            instance: InstanceId::derive("db1.example", "10.0.0.1:3306", "/var/lib/mysql"),
            product: "MariaDB".into(),
            version: Some("10.11.19-MariaDB".into()),
            address: Some([10, 0, 0, 1].into()),
            port: Some(3306),
            process_id: 4242,
            process_started_at: Timestamp(1_795_400_000_000_000_000),
            container_id: None,
        }),
        principal: Principal {
            user: Some(format!("shop_app{}", number % 7)),
            login_user: None,
            client_host: Some(format!("10.0.3.{}", below(40))),
            client_ip: Some([10, 0, 3, below(40)].into()),
            client_port: Some(40_000 + u16::from(below(200))),
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
