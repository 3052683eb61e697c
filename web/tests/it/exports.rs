//! Exports: all that matches, once, and visibly broken when they are not all.

use std::time::Duration;

use axum::http::StatusCode;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use whence_store::row::FIELD_NAMES;
use whence_web::{WebConfig, people};

use crate::events::{HOUR, by, query};
use crate::harness::Service;

#[tokio::test]
async fn an_export_holds_every_event_that_matches_once() {
    let mut events: Vec<_> = (1..=1500).map(|number| query(number, "SELECT 1\n, 2")).collect();
    events.push(by("other", "10.0.1.9", query(1501, "SELECT 2")));
    let service = Service::new("web_export", &events, &[]).await;
    let cookie = service.sign_in("auditor").await;

    let file = service.get(&cookie, &format!("/export.csv?{HOUR}&user=shop_app")).await;
    assert_eq!(file.status, StatusCode::OK);
    let name = "attachment; filename=\"whence-events-20261123T120000Z-20261123T130000Z.csv\"";
    assert_eq!(file.header("content-disposition"), name);
    let mut reader = csv::Reader::from_reader(file.text.as_bytes());
    assert_eq!(reader.headers().unwrap().iter().collect::<Vec<_>>(), FIELD_NAMES);
    let sequences: Vec<u64> =
        reader.records().map(|record| record.unwrap().get(2).unwrap().parse().unwrap()).collect();
    assert_eq!(sequences, (1..=1500).collect::<Vec<u64>>());

    let file = service.get(&cookie, &format!("/export.ndjson?{HOUR}")).await;
    let lines: Vec<serde_json::Value> =
        file.text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 1501);
    assert_eq!(lines[1500]["user"], "other");

    let reads = service.reads().await;
    let exports: Vec<_> = reads.iter().filter(|read| read.action == "export").collect();
    let ends: Vec<_> = exports.iter().map(|read| (read.result.as_str(), read.rows)).collect();
    assert_eq!(ends, [("started", None), ("ok", Some(1500)), ("started", None), ("ok", Some(1501))]);
    assert_eq!(exports[0].request_id, exports[1].request_id);
    assert!(exports[0].query.ends_with("user=shop_app"));
}

#[tokio::test]
async fn an_export_that_is_cut_off_breaks_and_is_recorded() {
    let events: Vec<_> = (1..=3000).map(|number| query(number, &"x".repeat(20_000))).collect();
    let service = Service::new("web_cut_off", &events, &[]).await;
    let token = people::issue_token(&service.store, "auditor", "test").await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let served =
        tokio::spawn(whence_web::serve(WebConfig::default(), service.store.clone(), listener, stop.clone()));
    let url = format!("http://{address}/export.ndjson?{HOUR}");
    let mut answer = reqwest::Client::new().get(url).bearer_auth(token).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert!(answer.chunk().await.unwrap().is_some());
    stop.cancel();
    let rest = async {
        while answer.chunk().await?.is_some() {}
        Ok::<(), reqwest::Error>(())
    };
    let rest = tokio::time::timeout(Duration::from_secs(20), rest).await.unwrap();
    assert!(rest.is_err(), "a part looked like all");
    served.await.unwrap().unwrap();
    let reads = service.reads().await;
    let last = reads.iter().rfind(|read| read.action == "export").unwrap();
    assert_eq!(last.result, "cut_off");
    assert!(last.rows.unwrap() < 3000);
}
