//! Batches that no collector of ours would send.

use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::http::{Request, StatusCode};
use prost::Message;
use whence_ingest::IngestConfig;
use whence_model::{CollectorId, Event, Outcome, Principal, Session, Text};
use whence_store::row::EventRow;
use whence_wire::message;

use crate::sender::{
    Collector, config, enrolled, events, post, post_bytes, query, refusal, rows, send, span,
};
use crate::store::metric;

#[tokio::test]
async fn what_is_no_batch_is_refused() {
    let (database, router, mut collector) = enrolled("no_batch").await;
    let good = whence_wire::encode(&collector.batch(3)).unwrap();
    for length in [0, 1, 4, good.len() / 2, good.len() - 1] {
        let answer = refusal(&router, post_bytes(good[..length].to_vec())).await;
        assert_eq!(answer, (400, "malformed".into()), "the first {length} bytes");
    }
    for garbage in [b"\x1b[2J<script>".to_vec(), vec![0; 4096], good[4..].to_vec()] {
        assert_eq!(refusal(&router, post_bytes(garbage)).await, (400, "malformed".into()));
    }
    let not_protobuf = zstd::encode_all(&b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"[..], 1).unwrap();
    assert_eq!(refusal(&router, post_bytes(not_protobuf)).await, (400, "malformed".into()));
    assert_eq!(events(&database).await, 0);
    assert_eq!(metric(&router, "whence_ingest_refusals_total{code=\"malformed\"}").await, 9);
}

#[tokio::test]
async fn every_byte_that_is_flipped_is_noticed() {
    let (database, router, mut collector) = enrolled("flipped").await;
    let batch = collector.seal(vec![query("SELECT 1")], vec![span(1, 1)]);
    let good = zstd::decode_all(whence_wire::encode(&batch).unwrap().as_slice()).unwrap();
    for position in 0..good.len() {
        let mut changed = good.clone();
        changed[position] ^= 1;
        let (status, problem) =
            send(&router, post_bytes(zstd::encode_all(changed.as_slice(), 1).unwrap())).await;
        assert_ne!(status, StatusCode::OK, "byte {position}: {problem}");
    }
    assert_eq!(events(&database).await, 0);
    assert_eq!(send(&router, post(&batch)).await.0, StatusCode::OK);
}

#[tokio::test]
async fn bodies_that_grow_are_stopped() {
    let (_database, router, _) = enrolled("bombs").await;
    // A gigabyte of zeros.
    let zeros = std::io::Read::take(std::io::repeat(0), 1 << 30);
    let bomb = zstd::encode_all(zeros, 1).unwrap();
    // Events, servers or tables that take two bytes each.
    let empty_events = zstd::encode_all([0x52, 0].repeat(30 << 20).as_slice(), 1).unwrap();
    let empty_servers = zstd::encode_all([0x4a, 0].repeat(30 << 20).as_slice(), 1).unwrap();
    let statement = message::Statement { tables: vec![vec![]; 10 << 20], ..message::Statement::default() };
    let event = message::Event { statement: Some(statement), ..message::Event::default() };
    let batch = message::Batch { events: vec![event], ..message::Batch::default() };
    let tables = zstd::encode_all(batch.encode_to_vec().as_slice(), 1).unwrap();
    drop(batch);
    for body in [bomb, empty_events, empty_servers, tables] {
        assert_eq!(refusal(&router, post_bytes(body)).await, (413, "too_large".into()));
    }
    // Decoded, any of them would take many times as much.
    let peak = peak_memory_bytes();
    assert!(peak < 1 << 30, "memory grew to {} MiB", peak >> 20);
}

/// `VmHWM` of this process.
fn peak_memory_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap() << 10
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_refused() {
    let (database, _, mut collector) = enrolled("oversize").await;
    let router = whence_ingest::router(IngestConfig { body_bytes: 1000, ..config(&database) });
    let batch = collector.batch(1);
    assert!(whence_wire::encode(&batch).unwrap().len() < 1000);
    assert_eq!(send(&router, post(&batch)).await.0, StatusCode::OK);
    let answer = refusal(&router, post_bytes(vec![7; 1001])).await;
    assert_eq!(answer, (413, "too_large".into()));
}

#[tokio::test]
async fn a_slow_sender_is_cut_off() {
    let (database, _, _) = enrolled("slow").await;
    let body_timeout = Duration::from_millis(50);
    let router = whence_ingest::router(IngestConfig { body_timeout, ..config(&database) });
    let never = Body::from_stream(futures::stream::pending::<Result<Bytes, std::io::Error>>());
    let began = Instant::now();
    assert_eq!(refusal(&router, post_bytes(never)).await, (408, "body_timeout".into()));
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn more_requests_than_there_is_room_for_are_asked_to_come_again() {
    let (database, _, mut collector) = enrolled("busy").await;
    let router = whence_ingest::router(IngestConfig { in_flight_bytes: 16 << 20, ..config(&database) });
    let (sender, receiver) = tokio::sync::oneshot::channel::<()>();
    let body = futures::stream::once(async {
        receiver.await.ok();
        Ok::<_, std::io::Error>(Bytes::from_static(b"garbage"))
    });
    let first = send(&router, post_bytes(Body::from_stream(body)));
    let batch = collector.batch(1);
    let second = async {
        let answer = tower::ServiceExt::oneshot(router.clone(), post(&batch)).await.unwrap();
        assert_eq!(answer.headers()["retry-after"], "1");
        sender.send(()).unwrap();
        crate::sender::read(answer).await
    };
    let (first, second) = futures::join!(first, second);
    assert_eq!((first.0.as_u16(), second.0.as_u16()), (400, 429));
    assert_eq!(second.1["code"], "busy");
    assert_eq!(send(&router, post(&batch)).await.0, StatusCode::OK);
}

#[tokio::test]
async fn other_content_types_are_refused() {
    let (_database, router, _) = enrolled("content_type").await;
    let request = |content_type: &str, encoding: Option<&str>| {
        let request = Request::post("/v1/batches").header("content-type", content_type);
        let request = encoding
            .into_iter()
            .fold(request, |request, encoding| request.header("content-encoding", encoding));
        request.body(Body::empty()).unwrap()
    };
    for (content_type, encoding) in [
        ("application/json", Some("zstd")),
        ("application/x-protobuf", Some("gzip")),
        ("application/x-protobuf", None),
        ("", Some("zstd")),
    ] {
        let answer = refusal(&router, request(content_type, encoding)).await;
        assert_eq!(answer, (415, "unsupported_media_type".into()), "{content_type} {encoding:?}");
    }
    let right = request("Application/X-Protobuf; charset=binary", Some("ZSTD"));
    assert_eq!(refusal(&router, right).await, (400, "malformed".into()));
}

#[tokio::test]
async fn only_the_enrolled_key_signs() {
    let (database, router, mut collector) = enrolled("signature").await;
    let mut batch = collector.batch(1);
    Collector::new().sign(&mut batch);
    assert_eq!(refusal(&router, post(&batch)).await, (401, "wrong_signature".into()));
    batch.signature = [0; 64];
    assert_eq!(refusal(&router, post(&batch)).await, (401, "wrong_signature".into()));
    collector.sign(&mut batch);
    batch.events[0].principal.user = Some("root".into());
    assert_eq!(refusal(&router, post(&batch)).await, (422, "contents_changed".into()));
    collector.sign(&mut batch);
    batch.manifest.sealed_at = batch.manifest.sealed_at.plus_ns(1);
    assert_eq!(refusal(&router, post(&batch)).await, (422, "contents_changed".into()));
    assert_eq!(events(&database).await, 0);
}

#[tokio::test]
async fn strangers_and_revoked_collectors_are_turned_away() {
    let (database, router, mut collector) = enrolled("revoked").await;
    let mut stranger = Collector::new();
    assert_eq!(refusal(&router, post(&stranger.batch(1))).await, (401, "unknown_collector".into()));
    assert_eq!(send(&router, post(&collector.batch(1))).await.0, StatusCode::OK);
    // A key may be used for a while after it was revoked, and no longer.
    let key_lifetime = Duration::from_millis(200);
    let caching = whence_ingest::router(IngestConfig { key_lifetime, ..config(&database) });
    assert_eq!(send(&caching, post(&collector.batch(1))).await.0, StatusCode::OK);
    database.store.revoke_collector(collector.id).await.unwrap();
    let third = collector.batch(1);
    assert_eq!(refusal(&router, post(&third)).await, (403, "revoked".into()));
    let deadline = Instant::now() + Duration::from_secs(5);
    while send(&caching, post(&third)).await.0 == StatusCode::OK {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(refusal(&caching, post(&third)).await, (403, "revoked".into()));
}

#[tokio::test]
async fn a_value_of_a_newer_collector_is_kept_for_a_newer_ingest() {
    let (_database, router, collector) = enrolled("newer").await;
    let event = message::Event { kind: "teleport".into(), ..message::Event::default() };
    let CollectorId(id) = collector.id;
    let batch = message::Batch {
        collector: id.as_bytes().to_vec(),
        number: 1,
        first_sequence: 1,
        events: vec![event],
        ..message::Batch::default()
    };
    let body = zstd::encode_all(batch.encode_to_vec().as_slice(), 1).unwrap();
    assert_eq!(refusal(&router, post_bytes(body)).await, (501, "unknown_value".into()));
}

#[tokio::test]
async fn hostile_names_are_stored_as_they_are() {
    const HOSTILE: [&str; 5] = [
        "<script>alert(1)</script>",
        "=HYPERLINK(\"http://x\",1)",
        "a\0b\x1b[31m\r\n\t\u{7f}",
        "a'b\"c\\d`e {x:String} -- ? /* */",
        "密码 \u{202e}\u{1F600}",
    ];
    let (database, router, mut collector) = enrolled("names").await;
    let hostile = |text: &str| Event {
        principal: Principal {
            user: Some(text.into()),
            login_user: Some(text.into()),
            client_host: Some(text.into()),
            ..Principal::default()
        },
        session: Session { connection_id: None, database: Some(text.into()) },
        outcome: Some(Outcome::Error {
            code: Some(1045),
            sqlstate: Some(text.into()),
            message: Some(Text::from_source(text.as_bytes(), 1000)),
        }),
        ..query(text)
    };
    let batch = collector.seal(HOSTILE.map(hostile).to_vec(), vec![]);
    let (status, answer) = send(&router, post(&batch)).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    let stored: Vec<EventRow> = rows(&database, "SELECT ?fields FROM events ORDER BY sequence").await;
    let stored: Vec<_> = stored.iter().map(|row| row.to_event().unwrap()).collect();
    assert_eq!(stored, batch.events);
}
