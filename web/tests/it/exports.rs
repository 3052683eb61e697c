//! Exports: all that matches, once, and visibly broken when they are not all.

use std::time::Duration;

use axum::http::StatusCode;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use whence_chain::PublicKey;
use whence_proof::export;
use whence_store::row::FIELD_NAMES;
use whence_web::{WebConfig, people};

use crate::events::{HOUR, by, gap, query, watched};
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
async fn an_export_has_a_signed_manifest() {
    let mut events: Vec<_> = (1..=40).map(|number| query(number, "SELECT '\"'\n, 2")).collect();
    events.push(gap(41, 7));
    let service = Service::new("web_manifest", &events, &[watched("db1", 600, 3600)]).await;
    let cookie = service.sign_in("auditor").await;
    let keys = service.get(&cookie, "/api/v1/keys").await.json();
    let key = PublicKey::parse(keys["keys"][0]["public_key"].as_str().unwrap()).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("export.zip");

    for format in ["csv", "ndjson"] {
        let file = service.get(&cookie, &format!("/export.{format}.zip?{HOUR}&user=shop_app")).await;
        assert_eq!(file.header("content-type"), "application/zip");
        std::fs::write(&path, &file.bytes).unwrap();
        let report = export::verify(&path, None, &[key], drop).unwrap();
        assert!(report.findings.is_empty(), "{:?}", report.findings);
        let manifest = report.manifest.unwrap();
        assert_eq!((manifest.rows, report.rows, manifest.exported_by.as_str()), (40, 40, "auditor"));
        assert!(manifest.filter.ends_with("user=shop_app"), "{}", manifest.filter);
        assert_eq!((manifest.gaps[0].events, manifest.gaps[0].host.as_str()), (7, "db1"));
        assert_eq!(manifest.unwatched.len(), 0);
        assert_eq!((manifest.chains[0].batch, manifest.chains.len()), (1, 1));

        // The same in two files.
        let plain = service.get(&cookie, &format!("/export.{format}?{HOUR}&user=shop_app")).await;
        let rows = directory.path().join("rows");
        std::fs::write(&rows, &plain.bytes).unwrap();
        let manifest = service.get(&cookie, &format!("/exports/{}", plain.header("x-request-id"))).await;
        std::fs::write(directory.path().join("rows.manifest.json"), &manifest.bytes).unwrap();
        assert!(export::verify(&rows, None, &[key], drop).unwrap().findings.is_empty());
        std::fs::write(&rows, plain.text.replacen("shop_app", "shop_apq", 1)).unwrap();
        let changed = export::verify(&rows, None, &[key], drop).unwrap();
        assert!(changed.findings[0].to_string().contains("the first difference is in row 1;"));
    }
    let unknown = service.get(&cookie, "/exports/0198c0de-0000-7000-8000-000000000000").await;
    assert_eq!(unknown.status, StatusCode::NOT_FOUND);
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
