//! `whence verify` on the real ClickHouse: what it prints, and how it ends.

use std::path::Path;

use secrecy::ExposeSecret;
use uuid::Uuid;
use whence_model::{
    CollectorId, Command, Event, EventKind, InstanceId, Outcome, Principal, Provider, Server, Session,
    Statement, StatementClass, Text, Timestamp,
};
use whence_testkit::{Sender, TestDatabase};

use crate::whence;

fn event(sql: &str) -> Event {
    Event {
        collector: CollectorId(Uuid::nil()),
        sequence: 0,
        kind: EventKind::Command,
        provider: Provider::Usdt,
        started_at: Timestamp(1_795_435_200_000_000_000),
        duration_ns: Some(1),
        server: Server {
            host: "db1".into(),
            instance: InstanceId::derive("db1", "127.0.0.1:3306", "/var/lib/mysql"),
            product: "MySQL".into(),
            version: None,
            address: None,
            port: None,
            process_id: 1,
            process_started_at: Timestamp(1_795_400_000_000_000_000),
        },
        principal: Principal { user: Some("app".into()), ..Principal::default() },
        session: Session::default(),
        command: Some(Command::QUERY),
        statement: Some(Statement {
            class: StatementClass::Read,
            sql: Some(Text::from_source(sql.as_bytes(), sql.len() as u64)),
            fingerprint: None,
            tables: vec![],
        }),
        outcome: Some(Outcome::Ok { rows_sent: None, rows_affected: None }),
        gap: None,
    }
}

/// The arguments that reach `database`.
fn verify(database: &TestDatabase, password: &Path, more: &[&str]) -> (Option<i32>, String) {
    let options = database.options();
    std::fs::write(password, options.password.expose_secret()).unwrap();
    let mut arguments = vec!["verify", "--clickhouse-url", &options.url, "--clickhouse-user", &options.user];
    let password = password.display().to_string();
    arguments.extend(["--clickhouse-password-file", &password, "--clickhouse-database", &options.database]);
    arguments.extend(more);
    whence(&arguments)
}

#[tokio::test]
async fn verification_says_what_it_found() {
    let database = TestDatabase::new("cli_verify").await;
    let mut sender = Sender::default();
    sender.enroll(&database.store).await;
    let at = event("").started_at.plus_ns(1_000_000_000);
    let (first, second) = (event("SELECT 1"), event("SELECT 2"));
    sender.seal(vec![first, second], &[], at).write(&database.store).await;
    let mut unsigned = sender.seal(vec![event("DROP TABLE \x1b[2J")], &[], at);
    let directory = tempfile::tempdir().unwrap();
    let password = directory.path().join("password");

    let (status, text) = verify(&database, &password, &[]);
    assert_eq!(status, Some(0), "{text}");
    assert!(text.ends_with("verified 2 events in 1 batches of 1 collectors: clean\n"), "{text}");
    assert!(text.contains(&format!("chain: collector {} batches 1 to 1, key ", sender.id)), "{text}");

    unsigned.events[0].kind = "\x1b[2J".into();
    unsigned.write(&database.store).await;
    let (status, text) = verify(&database, &password, &[]);
    assert_eq!(status, Some(1), "{text}");
    let finding = format!("FINDING: unreadable: collector {} batch 2 event 3: expected", sender.id);
    assert!(text.contains(&finding) && text.ends_with("of 1 collectors: 1 finding\n"), "{text}");
    assert!(!text.contains('\x1b'), "{text}");

    let (status, text) = verify(&database, &password, &["--json"]);
    assert_eq!(status, Some(1), "{text}");
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&lines[0]["kind"], &lines[0]["batch"]), (&"unreadable".into(), &2.into()));
    assert_eq!(lines.last().unwrap()["summary"]["findings"], 1);

    let nobody = ["--collector", "0198c0de-0000-7000-8000-000000000000"];
    assert_eq!(verify(&database, &password, &nobody).0, Some(2));
    let backwards = ["--from", "2026-11-24", "--to", "2026-11-23"];
    assert_eq!(verify(&database, &password, &backwards).0, Some(64));
    assert_eq!(verify(&database, &password, &["--from", "2026-11-24"]).0, Some(64));
}
