//! Events of senders that sign nothing.

use std::io::Write as _;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use serde_json::{Value, json};
use whence_ingest::{IngestConfig, Sources};
use whence_store::verify::{Scope, Summary};
use whence_testkit::TestDatabase;
use whence_wire::Limits;

use crate::sender::{config, events, post, refusal, rows, send};

const TOKEN: &str = "0123456789abcdef-of-backup";

async fn service(test: &str) -> (TestDatabase, Router) {
    let database = TestDatabase::new(&format!("ingest_external_{test}")).await;
    let router = whence_ingest::router(with_source(&database));
    (database, router)
}

fn with_source(database: &TestDatabase) -> IngestConfig {
    let sources = Sources::parse(&format!("backup {TOKEN}\nother 0123456789abcdef-of-other")).unwrap();
    IngestConfig { sources, ..config(database) }
}

fn request(body: impl Into<Body>, headers: &[(&str, &str)]) -> Request<Body> {
    let mut request = Request::post("/v1/events").header("authorization", format!("Bearer {TOKEN}"));
    for (name, value) in [("content-type", "application/x-ndjson")].iter().chain(headers) {
        request = request.header(*name, *value);
    }
    request.body(body.into()).unwrap()
}

fn event(sql: &str) -> Value {
    json!({
        "kind": "command", "started_at": "2026-11-23T20:11:40.123456789Z", "duration_ns": 1500, "host": "db9",
        "product": "MySQL", "version": "8.0.36", "server_ip": "10.0.0.9", "server_port": 3306, "user": "report",
        "client_host": "app1", "client_ip": "10.1.2.3", "client_port": 50123, "transport": "tcp", "tls": true,
        "connection_id": 77, "database": "shop", "command": "Query", "sql_text": sql, "result": "error",
        "error_code": 1146, "sqlstate": "42S02", "error_message": "Table 'shop.x' doesn't exist", "login_user": null,
    })
}

fn lines(events: &[Value]) -> String {
    events.iter().map(Value::to_string).collect::<Vec<_>>().join("\n")
}

async fn verify(database: &TestDatabase) -> Summary {
    database.store.verify(&Scope::default(), |_| {}).await.unwrap()
}

#[tokio::test]
async fn an_event_is_stored_as_it_was_sent_and_marked() {
    let (database, router) = service("stored").await;
    let body = lines(&[event("CREATE USER a IDENTIFIED BY 'secret'"), event("SELECT 1")]);
    let (status, answer) = send(&router, request(body, &[])).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!((answer["events"].as_u64(), answer["stored"].as_str()), (Some(2), Some("new")));

    let sql = "SELECT signed, provider, ifNull(user, '-'), ifNull(sql_text, '-'), toString(started_at)
        FROM events ORDER BY sequence";
    let stored = rows::<(bool, String, String, String, String)>(&database, sql).await;
    let at = "2026-11-23 20:11:40.123456789";
    let row = |sql: &str| (false, "external".into(), "report".into(), sql.into(), at.into());
    assert_eq!(stored, [row("CREATE USER a IDENTIFIED BY '***'"), row("SELECT 1")]);

    let summary = verify(&database).await;
    assert_eq!((summary.unsigned, summary.findings), (2, 0));
}

#[tokio::test]
async fn a_request_that_comes_again_is_stored_once() {
    let (database, router) = service("again").await;
    let body = lines(&[event("SELECT 1"), event("SELECT 1")]);
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(body.as_bytes()).unwrap();
    let packed = packed.finish().unwrap();
    let gzip = [("content-encoding", "gzip")];
    let (one, two) =
        tokio::join!(send(&router, request(body.clone(), &[])), send(&router, request(packed, &gzip)));
    assert_eq!((one.0.as_u16(), two.0.as_u16()), (200, 200), "{one:?} {two:?}");
    let packed = zstd::encode_all(body.as_bytes(), 1).unwrap();
    let again = send(&router, request(packed, &[("content-encoding", "zstd")])).await;
    assert_eq!(again.1["stored"], "before");
    assert_eq!(events(&database).await, 2);

    // A key tells apart what is the same, and holds together what belongs together.
    let key = [("idempotency-key", "backup-17")];
    assert_eq!(send(&router, request(body.clone(), &key)).await.1["stored"], "new");
    assert_eq!(send(&router, request(body.clone(), &key)).await.1["stored"], "before");
    assert_eq!(events(&database).await, 4);
    let other = lines(&[event("SELECT 2")]);
    assert_eq!(refusal(&router, request(other, &key)).await, (422, "conflicting_key".into()));
    assert_eq!(rows::<u64>(&database, "SELECT uniqExact(event_id) FROM events").await, [4]);
}

#[tokio::test]
async fn the_documented_request_is_taken() {
    let (_database, router) = service("documented").await;
    let document = include_str!("../../../docs/events.md");
    let line = document.lines().find(|line| line.starts_with('{')).unwrap();
    let (status, answer) = send(&router, request(line, &[])).await;
    assert_eq!((status.as_u16(), &answer["events"]), (200, &json!(1)), "{answer}");
}

#[tokio::test]
async fn every_bad_line_is_named_and_nothing_is_stored() {
    let (database, router) = service("bad").await;
    let with = |field: &str, value: Value| {
        let mut event = event("SELECT 1");
        event[field] = value;
        event.to_string()
    };
    let bad = [
        ("{".to_owned(), ""),
        ("[]".to_owned(), ""),
        ("\u{feff}{}".to_owned(), ""),
        ("{}".to_owned(), "kind"),
        (with("kind", json!("gap")), "kind"),
        (with("kind", json!("dance")), "kind"),
        (with("started_at", json!("yesterday")), "started_at"),
        (with("started_at", json!(1_763_928_700)), "started_at"),
        (with("started_at", json!("1969-01-01T00:00:00Z")), "started_at"),
        (with("host", Value::Null), "host"),
        (with("client_ip", json!("10.0.0")), "client_ip"),
        (with("client_port", json!(70_000)), "client_port"),
        (with("duration_ns", json!(-1)), "duration_ns"),
        (with("tls", json!("yes")), "tls"),
        (with("command", json!("Dance")), "command"),
        (with("command_code", json!(14)), "command_code"),
        (with("user", json!("u".repeat(5000))), "user"),
        (with("tables", json!("t")), "tables"),
        (with("fingerprint", json!("12")), "fingerprint"),
        (with("sqlstate", json!("42")), "sqlstate"),
        (with("rows_sent", json!(1)), "rows_sent"),
        (with("event_hash", json!("00")), "event_hash"),
        (with("signed", json!(true)), "signed"),
        (with("collector_id", json!("x")), "collector_id"),
        (with("usr", json!("x")), "usr"),
    ];
    let body = bad.iter().map(|(line, _)| format!("{}\n\n{line}\r\n", event("SELECT 1")));
    let (status, problem) = send(&router, request(body.collect::<String>(), &[])).await;
    assert_eq!((status.as_u16(), &problem["code"]), (422, &json!("bad_lines")));
    let told: Vec<(u64, &str)> = problem["lines"]
        .as_array()
        .unwrap()
        .iter()
        .map(|told| {
            assert!(told["message"].as_str().is_some_and(|message| !message.is_empty()), "{told}");
            (told["line"].as_u64().unwrap(), told["field"].as_str().unwrap())
        })
        .collect();
    let expected: Vec<(u64, &str)> =
        (1..).map(|number| number * 3).zip(bad.iter().map(|(_, field)| *field)).collect();
    assert_eq!(told, expected);
    assert_eq!(events(&database).await, 0);
}

#[tokio::test]
async fn strangers_and_floods_are_refused() {
    let (database, router) = service("refused").await;
    let line = lines(&[event("SELECT 1")]);
    let with_token = |token: &str| {
        let request = Request::post("/v1/events").header("content-type", "application/x-ndjson");
        request.header("authorization", token).body(Body::from(line.clone())).unwrap()
    };
    assert_eq!(refusal(&router, with_token("Bearer wrong")).await, (401, "wrong_token".into()));
    assert_eq!(refusal(&router, with_token(TOKEN)).await, (401, "wrong_token".into()));
    let closed = whence_ingest::router(config(&database));
    assert_eq!(refusal(&closed, request(line.clone(), &[])).await, (403, "no_sources".into()));

    let wrong = [("content-encoding", "br")];
    assert_eq!(refusal(&router, request(line.clone(), &wrong)).await, (415, "unsupported_media_type".into()));
    let not_gzip = [("content-encoding", "gzip")];
    assert_eq!(refusal(&router, request(line.clone(), &not_gzip)).await, (400, "malformed".into()));
    let key = [("idempotency-key", "")];
    assert_eq!(refusal(&router, request(line.clone(), &key)).await, (400, "invalid_key".into()));

    let limits = Limits { decompressed_bytes: 10_000, events: 3, ..Limits::default() };
    let small = whence_ingest::router(IngestConfig { limits, body_bytes: 5000, ..with_source(&database) });
    let bomb = zstd::encode_all(&vec![b' '; 1 << 20][..], 1).unwrap();
    let packed = [("content-encoding", "zstd")];
    assert_eq!(refusal(&small, request(bomb, &packed)).await, (413, "too_large".into()));
    assert_eq!(refusal(&small, request(vec![b' '; 6000], &[])).await, (413, "too_large".into()));
    let four = lines(&["a", "b", "c", "d"].map(event));
    assert_eq!(refusal(&small, request(four, &[])).await, (413, "too_large".into()));
    assert_eq!(events(&database).await, 0);
}

#[tokio::test]
async fn hostile_lines_are_named_and_take_no_memory() {
    let (database, router) = service("hostile").await;
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let escaped = event(&"\u{1}".repeat(2 << 20)).to_string();
    let bad: Vec<Vec<u8>> = vec![
        b"{\"kind\": \"\xff\xfe\"}".to_vec(),
        b"\0\0\0".to_vec(),
        deep.clone().into_bytes(),
        format!("{{\"tables\": {deep}}}").into_bytes(),
        format!("{{\"tables\": [{}0]}}", "0,".repeat(30 << 20)).into_bytes(),
        escaped.into_bytes(),
        event(&"x".repeat((1 << 20) + 1)).to_string().into_bytes(),
        b"{\"kind\": \"command\", \"duration_ns\": 1e400}".to_vec(),
        br#"{"kind": "\ud800"}"#.to_vec(),
    ];
    let body = zstd::encode_all(bad.join(&b'\n').as_slice(), 1).unwrap();
    let (status, problem) = send(&router, request(body, &[("content-encoding", "zstd")])).await;
    assert_eq!((status.as_u16(), &problem["code"]), (422, &json!("bad_lines")), "{problem}");
    let told = problem["lines"].as_array().unwrap();
    assert_eq!(told.len(), bad.len());
    for (line, number) in told.iter().zip(1..) {
        assert_eq!(line["line"], number);
        assert!(line["message"].as_str().unwrap().len() < 300, "{line}");
    }
    assert!(told[4]["message"].as_str().unwrap().contains("at most 8388608 are allowed"), "{}", told[4]);

    // What is hostile to those who read it is kept as it is.
    let mut hostile = event("SELECT '\u{202e}<script>\0\x1b[2J'");
    hostile["user"] = json!("=cmd|'/C calc'!A0\u{0}");
    assert_eq!(send(&router, request(lines(&[hostile]), &[])).await.0, 200);
    let user = rows::<String>(&database, "SELECT ifNull(user, '-') FROM events").await;
    assert_eq!(user, ["=cmd|'/C calc'!A0\0"]);
    // Neither an empty request nor one of blank lines is an error, or stores anything.
    for empty in ["", "\n\n \r\n"] {
        assert_eq!(send(&router, request(empty, &[])).await.1["events"], 0);
    }
    assert_eq!(events(&database).await, 1);
}

#[tokio::test]
async fn unsigned_events_cannot_pass_as_signed() {
    let (database, router, mut collector) = crate::sender::enrolled("external_signed").await;
    let mut batch = collector.batch(3);
    assert_eq!(send(&router, post(&batch)).await.0, 200);
    // Signed, but told as another's.
    batch = collector.batch(1);
    batch.events[0].provider = whence_model::Provider::External;
    collector.sign(&mut batch);
    assert_eq!(refusal(&router, post(&batch)).await, (501, "unknown_value".into()));

    // The owner of ClickHouse turns a signed event into an unsigned one, or adds one under a collector's name.
    let change =
        "ALTER TABLE events UPDATE provider = 'external' WHERE sequence = 2 SETTINGS mutations_sync = 1";
    crate::sender::clickhouse(&database).query(change).execute().await.unwrap();
    assert!(verify(&database).await.findings > 0);
}
