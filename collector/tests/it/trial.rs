//! A server whose offsets come out of the table: believed when they hold, refused when they do not.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use clap::Parser;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use whence_collector::offsets::{Table, learn};
use whence_collector::settings::Settings;
use whence_collector::spool::Spool;
use whence_collector::status::Status;
use whence_model::{Command, Coverage, CoverageState, Event, EventKind, LossReason};
use whence_testkit::{Client, DatabaseServer, MariaDb, Via};

use crate::offsets::copy_without_names;

const DEADLINE: Duration = Duration::from_mins(1);
/// How often the status is looked at meanwhile.
const POLL: Duration = Duration::from_millis(5);

#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    settings: Settings,
}

/// Where probes are pinned: taken off also when the test fails.
struct Pins(String);

impl Drop for Pins {
    fn drop(&mut self) {
        // A collector that has stopped took them off itself.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Everything that a collector with this table put into its spool about `server`, while `session` went on until the
/// collector said of it that it was in `state`, with the collector's words.
fn collect(
    server: &DatabaseServer,
    table: &Path,
    state: CoverageState,
) -> (Vec<Event>, Vec<Coverage>, String) {
    let directory = TempDir::new().unwrap();
    let [spool, status] = ["spool", "status.json"].map(|name| directory.path().join(name));
    let pins = Pins(format!("/sys/fs/bpf/whence-trial-{}-{}", std::process::id(), server.port()));
    let arguments = [
        "collect".to_owned(),
        "--ingest-url=http://127.0.0.1:1".to_owned(),
        format!("--spool-dir={}", spool.display()),
        format!("--status-file={}", status.display()),
        format!("--pin-dir={}", pins.0),
        format!("--offsets={}", table.display()),
    ];
    let settings = Arguments::parse_from(arguments).settings;
    let shutdown = CancellationToken::new();
    let until = shutdown.clone();
    let collector = std::thread::spawn(move || {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(whence_collector::run::run(settings, until)).unwrap();
    });

    let pid = server.pid().unwrap();
    let deadline = Instant::now() + DEADLINE;
    let said = |status: &Status| status.servers.iter().find(|server| server.process_id == pid).cloned();
    let wait = |wanted: CoverageState, act: &mut dyn FnMut()| loop {
        let found = Status::read(&status).ok().as_ref().and_then(said);
        if let Some(found) = found.filter(|found| found.state == wanted.as_str()) {
            break found.detail;
        }
        assert!(Instant::now() < deadline && !collector.is_finished(), "it did not become {wanted:?}");
        act();
        std::thread::sleep(POLL);
    };
    wait(CoverageState::Watched, &mut || {});
    let mut client = Client::open(&server.address(Via::Tcp), "root", "mysql").unwrap();
    let mut session = || {
        assert_eq!(client.query("SELECT 1 AS asked").unwrap().rows, Some(1));
        client.query("SELECT nothing").unwrap_err();
    };
    (0..20).for_each(|_| session());
    let detail = wait(state, &mut session);
    client.quit().unwrap();
    shutdown.cancel();
    collector.join().unwrap();

    let (mut spool, _) = Spool::open(&spool, 1 << 30).unwrap();
    let (mut events, mut coverage) = (Vec::new(), Vec::new());
    while let Some(waiting) = spool.oldest().unwrap() {
        let batch = whence_wire::decode(&waiting.bytes, &whence_wire::Limits::default()).unwrap();
        events.extend(batch.events.into_iter().filter(|event| event.server.process_id == pid));
        coverage.extend(batch.coverage.into_iter().filter(|span| span.server.process_id == pid));
        spool.confirm(waiting.number).unwrap();
    }
    (events, coverage, detail)
}

/// A server that does not tell its offsets by itself, and the right entry of the table for it.
fn server(directory: &Path) -> (DatabaseServer, String) {
    let program = MariaDb::program().unwrap();
    let copy = directory.join("mariadbd");
    copy_without_names(&program, &copy, &["thd_priv_user"]);
    let (entry, _) = learn(&program, None, &Table::load(None).unwrap()).unwrap();
    (MariaDb::start_program(copy, &[]).unwrap(), entry.text().unwrap())
}

#[test]
fn right_offsets_out_of_the_table_are_believed() {
    let directory = TempDir::new().unwrap();
    let (server, entry) = server(directory.path());
    let table = directory.path().join("table.toml");
    fs::write(&table, entry).unwrap();
    let (events, coverage, detail) = collect(&server, &table, CoverageState::Watched);
    assert!(detail.starts_with("functions dispatch_command"), "{detail}");
    assert!(coverage.iter().all(|span| span.lost.is_empty()), "{coverage:#?}");
    let asked: Vec<_> = events.iter().filter(|event| event.command == Some(Command::QUERY)).collect();
    assert_eq!(asked.len(), 40);
    for event in &events {
        assert_eq!(event.principal.login_user.as_deref(), Some("root"), "{event:#?}");
        assert_eq!(event.principal.user.as_deref(), Some("root"), "{event:#?}");
        assert!(event.principal.client_port.is_some(), "{event:#?}");
    }
    assert_eq!(events[0].kind, EventKind::Connect);
    assert_eq!(events.last().unwrap().kind, EventKind::Disconnect);
}

#[test]
fn wrong_offsets_out_of_the_table_store_nothing() {
    let directory = TempDir::new().unwrap();
    let (server, entry) = server(directory.path());
    let right: toml::Table = toml::from_str(&entry).unwrap();
    let layout = |table: &toml::Table| table["binary"][0]["layout"].as_table().unwrap().clone();
    let number = |key: &str| layout(&right)[key].as_integer().unwrap();
    let inline = toml::Table::from_iter([("inline".to_owned(), number("peer_port").into())]);
    let cases: [(&str, toml::Value, &str); 4] = [
        ("security_context", (number("security_context") + 8).into(), "client"),
        ("priv_user", inline.into(), "account"),
        ("status", (number("status") + 64).into(), "status"),
        ("peer_port", (number("peer_port") + 64).into(), "which no connection of the server is"),
    ];
    for (key, value, reason) in cases {
        let mut wrong = right.clone();
        let entry = wrong["binary"][0]["layout"].as_table_mut().unwrap();
        assert!(entry.insert(key.to_owned(), value).is_some());
        let table = directory.path().join(format!("{key}.toml"));
        fs::write(&table, wrong.to_string()).unwrap();

        let (events, coverage, detail) = collect(&server, &table, CoverageState::Unattachable);
        assert!(detail.starts_with("what was read of it could not be true: "), "{key}: {detail}");
        assert!(detail.contains(reason), "{key}: {detail}");
        let (gaps, made_up): (Vec<_>, Vec<_>) = events.into_iter().partition(|event| event.gap.is_some());
        assert!(made_up.is_empty(), "{key}: {made_up:#?}");
        let told: u64 = gaps.iter().filter_map(|event| event.gap).map(|gap| gap.events).sum();
        let lost: u64 = coverage.iter().filter_map(|span| span.lost.get(&LossReason::Undecodable)).sum();
        assert!(told > 0 && told == lost, "{key}: {gaps:#?} {coverage:#?}");
        assert!(coverage.iter().all(|span| span.stored == 0 && span.seen == span.lost.values().sum::<u64>()));
        assert_eq!(coverage.last().unwrap().state, CoverageState::Unattachable, "{key}");
    }
}
