//! `whence verify` on the real ClickHouse: what it prints, and how it ends.

use std::path::Path;

use secrecy::ExposeSecret;
use uuid::Uuid;
use whence_chain::SigningKey;
use whence_model::{
    CollectorId, Command, Event, EventKind, Outcome, Principal, Provider, Session, Statement, StatementClass,
    Text, Timestamp,
};
use whence_proof::export::{Content, Digest, ExportManifest};
use whence_proof::heads::{Added, DayHeads, S3Options, Target};
use whence_store::read::Window;
use whence_testkit::{MockS3, Sender, TestDatabase, sample};

use crate::whence;

fn event(sql: &str) -> Event {
    Event {
        collector: CollectorId(Uuid::nil()),
        sequence: 0,
        kind: EventKind::Command,
        provider: Provider::Usdt,
        started_at: Timestamp(1_795_435_200_000_000_000),
        duration_ns: Some(1),
        server: sample::server().into(),
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
        sampled_one_in: None,
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

/// The arguments that reach `database` as its owner.
fn reach(database: &TestDatabase, password: &Path) -> Vec<String> {
    let options = database.options();
    std::fs::write(password, options.password.expose_secret()).unwrap();
    vec![
        format!("--clickhouse-url={}", options.url),
        format!("--clickhouse-user={}", options.user),
        format!("--clickhouse-password-file={}", password.display()),
        format!("--clickhouse-database={}", options.database),
    ]
}

fn run(subcommand: &str, reach: &[String], more: &[&str]) -> (Option<i32>, String) {
    let reach = reach.iter().map(String::as_str);
    whence(&[subcommand].into_iter().chain(reach).chain(more.iter().copied()).collect::<Vec<_>>())
}

#[tokio::test]
async fn heads_are_kept_once_a_day_and_compared() {
    let database = TestDatabase::new("cli_heads").await;
    let mut sender = Sender::default();
    sender.enroll(&database.store).await;
    let days_ago = |days: i64| Timestamp::now().plus_ns(-days * 86_400_000_000_000);
    for days in [3, 2, 0] {
        let at = days_ago(days);
        let event = Event { started_at: at, ..event("SELECT 1") };
        sender.seal(vec![event], &[], at).write(&database.store).await;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let reach = reach(&database, &path("password"));
    let heads = path("heads.ndjson").display().to_string();
    let key = format!("--service-key-file={}", path("key").display());

    let (status, text) = run("heads", &reach, &["--to", &heads, &key]);
    assert!(status == Some(0) && text.contains("the heads of 2 days were written to "), "{text}");
    let written = std::fs::read_to_string(&heads).unwrap();
    let (status, text) = run("heads", &reach, &["--to", &heads, &key]);
    assert!(status == Some(0) && text.contains("the heads of 0 days"), "{text}");
    assert_eq!(std::fs::read_to_string(&heads).unwrap(), written);
    let line: serde_json::Value = serde_json::from_str(written.lines().next().unwrap()).unwrap();
    let day = days_ago(3).to_utc().date_naive().to_string();
    assert_eq!((&line["day"], &line["collectors"][0]["batch"]), (&day.clone().into(), &1.into()));
    let reads =
        database.store.reads(Window { from: Timestamp(0), to: Timestamp(i64::MAX) }, 10).await.unwrap();
    assert_eq!((reads[0].action.as_str(), reads[0].rows, reads.len()), ("heads", Some(2), 1));

    let (status, text) = run("verify", &reach, &["--heads", &heads]);
    assert_eq!(status, Some(0), "{text}");
    // Another key, and another history.
    let changed = written.replace(&hex::encode(sender.key.public().to_bytes()), &"0".repeat(64));
    std::fs::write(&heads, changed).unwrap();
    let (status, text) = run("verify", &reach, &["--heads", &heads]);
    assert!(status == Some(2) && text.contains(&format!("the heads of {day} are damaged")), "{text}");
    std::fs::write(&heads, written.replace("\"batch\":2", "\"batch\":9")).unwrap();
    let (status, text) = run("verify", &reach, &["--heads", &heads]);
    assert!(status == Some(1) && text.contains("FINDING: head missing: collector"), "{text}");
    let none = path("none").display().to_string();
    assert_eq!(run("verify", &reach, &["--heads", &none]).0, Some(2));
}

#[tokio::test]
async fn what_retention_removed_is_told_and_is_no_finding() {
    let database = TestDatabase::new("cli_retention").await;
    let mut sender = Sender::default();
    sender.enroll(&database.store).await;
    for days in [200, 100, 0] {
        let at = Timestamp::now().plus_ns(-days * 86_400_000_000_000);
        let event = Event { started_at: at, ..event("SELECT 1") };
        sender.seal(vec![event], &[], at).write(&database.store).await;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let reach = reach(&database, &path("password"));
    let key = format!("--service-key-file={}", path("key").display());
    let (status, text) = run("retention", &reach, &["--days=150", &key]);
    assert!(status == Some(0) && text.contains("1 spans expired"), "{text}");
    let (status, text) = run("verify", &reach, &[]);
    assert_eq!(status, Some(0), "{text}");
    assert!(text.contains("events and coverage of batches 1 to 1 (1 events, sealed before"), "{text}");
    assert!(
        text.ends_with("verified 2 events in 3 batches (1 of them expired) of 1 collectors: clean\n"),
        "{text}"
    );
    // To somebody who knows the right key, another's declaration is none.
    let (status, text) = run("verify", &reach, &["--key", &"ab".repeat(32)]);
    assert!(status == Some(64) || text.contains("FINDING: expiry forged"), "{text}");
}

#[tokio::test]
async fn a_file_is_verified_without_clickhouse() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).display().to_string();
    let key = SigningKey::generate();
    let mut digest = Digest::default();
    digest.row(b"{}\n");
    let facts = digest.finish();
    let manifest = ExportManifest {
        version: "0".into(),
        export_id: Uuid::nil(),
        exported_by: "ada".into(),
        exported_at: Timestamp(0),
        finished_at: Timestamp(0),
        file: "rows.ndjson".into(),
        content: Content::Ndjson,
        columns: vec![],
        filter: "user=\u{1b}[2J".into(),
        from: Timestamp(0),
        to: Timestamp(1),
        rows: facts.rows,
        bytes: facts.bytes,
        sha256: facts.sha256,
        gaps: vec![],
        unwatched: vec![],
        chains: vec![],
        rows_per_hash: facts.rows_per_hash,
        row_hashes: facts.row_hashes,
    };
    std::fs::write(path("rows.ndjson"), "{}\n").unwrap();
    std::fs::write(path("rows.ndjson.manifest.json"), whence_proof::sign(&manifest, &key).unwrap()).unwrap();
    let (file, public) = (path("rows.ndjson"), key.public().to_string());

    let (status, text) = whence(&["verify", &file, "--key", &public]);
    assert!(status == Some(0) && text.contains("verified 1 rows of "), "{text}");
    assert!(text.contains("by ada at") && !text.contains('\u{1b}'), "{text}");
    let (status, text) = whence(&["verify", &file]);
    assert!(status == Some(2) && text.contains("say with --key which key is Whence's"), "{text}");
    let other = SigningKey::generate().public().to_string();
    let (status, text) = whence(&["verify", &file, "--key", &other]);
    assert!(status == Some(1) && text.contains("FINDING: unknown key"), "{text}");
    std::fs::write(path("rows.ndjson"), "{ }\n").unwrap();
    let (status, text) = whence(&["verify", &file, "--key", &public]);
    assert!(
        status == Some(1) && text.contains("FINDING: rows changed: the first difference is in row 1"),
        "{text}"
    );
    let (status, text) = whence(&["verify", &path("other.ndjson"), "--key", &public]);
    assert!(status == Some(2) && text.contains("cannot read "), "{text}");
    assert_eq!(whence(&["verify", &file, "--key", "x"]).0, Some(64));
    assert_eq!(whence(&["verify"]).0, Some(64));
}

#[tokio::test]
async fn heads_in_a_bucket_are_never_replaced() {
    let database = TestDatabase::new("cli_bucket").await;
    let mut sender = Sender::default();
    sender.enroll(&database.store).await;
    for days in [3, 2, 0] {
        let at = Timestamp::now().plus_ns(-days * 86_400_000_000_000);
        let event = Event { started_at: at, ..event("SELECT 1") };
        sender.seal(vec![event], &[], at).write(&database.store).await;
    }
    let s3 = MockS3::start("heads").await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    std::fs::write(path("id"), "anybody").unwrap();
    std::fs::write(path("secret"), "anything").unwrap();
    let mut reach = reach(&database, &path("password"));
    reach.extend([
        format!("--s3-endpoint={}", s3.endpoint),
        "--s3-region=us-east-1".into(),
        format!("--s3-access-key-file={}", path("id").display()),
        format!("--s3-secret-key-file={}", path("secret").display()),
    ]);
    let (status, text) = run("heads", &reach, &["--to", "s3://heads/db1"]);
    assert!(
        status == Some(0) && text.contains("the heads of 2 days were written to s3://heads/db1"),
        "{text}"
    );
    let (status, text) = run("heads", &reach, &["--to", "s3://heads/db1"]);
    assert!(status == Some(0) && text.contains("the heads of 0 days"), "{text}");
    assert_eq!(run("verify", &reach, &["--heads", "s3://heads/db1"]).0, Some(0));

    // A second writer comes too late.
    let options = S3Options {
        endpoint: Some(s3.endpoint.clone()),
        region: Some("us-east-1".into()),
        access_key: Some("anybody".into()),
        secret_key: Some("anything".into()),
    };
    let target = Target::open("s3://heads/db1", &options).unwrap();
    let before = target.read().await.unwrap();
    assert_eq!((before.len(), before[0].collectors[0].batch), (2, 1));
    let other = DayHeads { collectors: vec![], ..before[0].clone() };
    assert_eq!(target.add(&other).await.unwrap(), Added::Before);
    assert_eq!(target.read().await.unwrap(), before);

    // No such bucket.
    let (status, text) = run("heads", &reach, &["--to", "s3://nowhere"]);
    assert!(status == Some(1) && text.contains("the bucket cannot be used"), "{text}");
}
