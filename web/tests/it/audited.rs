//! The audit of the audit: every read is in it, and none takes place without.

use axum::http::{Method, StatusCode};
use whence_store::{ConnectOptions, Store};
use whence_web::{WebConfig, router};

use crate::events::{HOUR, query, watched};
use crate::harness::Service;

#[tokio::test]
async fn every_read_is_written_down() {
    let service = Service::new("web_audited", &[query(1, "SELECT 1")], &[watched("db1", 0, 3600)]).await;
    let cookie = service.sign_in("admin").await;
    let id = query(1, "").id();
    for address in [
        format!("/history?{HOUR}&user=shop_app"),
        format!("/history/results?{HOUR}"),
        format!("/events/{id}"),
        format!("/report?{HOUR}"),
        format!("/coverage?{HOUR}"),
        "/people".into(),
        "/reads".into(),
        format!("/api/v1/events?{HOUR}"),
        format!("/api/v1/events/{id}"),
        format!("/api/v1/histogram?{HOUR}"),
        format!("/api/v1/report?{HOUR}"),
        format!("/api/v1/coverage?{HOUR}"),
        "/api/v1/instances".into(),
        "/api/v1/keys".into(),
    ] {
        assert_eq!(service.get(&cookie, &address).await.status, StatusCode::OK, "{address}");
    }
    let reads = service.reads().await;
    let actions: Vec<&str> = reads.iter().map(|read| read.action.as_str()).collect();
    let expected = [
        "sign_in",
        "search",
        "live",
        "event",
        "report",
        "coverage",
        "people",
        "reads",
        "api_search",
        "api_event",
        "api_histogram",
        "api_report",
        "api_coverage",
        "api_instances",
        "signing_key",
        "api_keys",
    ];
    assert_eq!(actions, expected);
    assert_eq!(reads[1].rows, Some(1));
    assert!(reads[1].query.contains("user=shop_app"));
    let page = service.get(&cookie, "/reads").await;
    assert_eq!(page.texts("td[data-label=Action]").last().unwrap(), "sign in");
}

#[tokio::test]
async fn a_refused_token_is_written_down_and_cannot_fill_the_store() {
    let service = Service::new("web_refused", &[], &[]).await;
    for _ in 0..9 {
        let headers = [("authorization", "Bearer whence_wrong")];
        let answer = service.call(Method::GET, "/api/v1/events", &headers).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    }
    let reads = service.reads().await;
    let told: Vec<_> = reads.iter().map(|read| (read.action.as_str(), read.query.as_str())).collect();
    let refused = ["refused=1", "refused=2", "refused=4", "refused=8"];
    assert_eq!(told, refused.map(|query| ("token_refused", query)));
    assert!(!reads.iter().any(|read| read.query.contains("whence_wrong")));
}

#[tokio::test]
async fn without_the_audit_of_reads_nothing_is_shown() {
    let service = Service::new("web_unaudited", &[query(1, "SELECT 1")], &[]).await;
    let cookie = service.sign_in("admin").await;
    service.drop_table("audit_reads").await;
    for address in
        [format!("/history?{HOUR}"), format!("/export.csv?{HOUR}"), format!("/api/v1/events?{HOUR}")]
    {
        let answer = service.get(&cookie, &address).await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{address}");
        assert!(!answer.text.contains("SELECT 1") && !answer.text.contains("audit_reads"), "{address}");
    }
}

#[tokio::test]
async fn machines_learn_how_the_service_is() {
    let service = Service::new("web_health", &[], &[]).await;
    for (address, says) in [("/live", "live"), ("/ready", "ready"), ("/metrics", "whence_web_requests_total")]
    {
        let answer = service.call(Method::GET, address, &[]).await;
        assert_eq!(answer.status, StatusCode::OK);
        assert!(answer.text.contains(says), "{address}: {}", answer.text);
    }
    let options = ConnectOptions { url: "http://127.0.0.1:9".into(), ..service.database.options() };
    let service = Service { router: router(WebConfig::default(), Store::connect(options)), ..service };
    let answer = service.call(Method::GET, "/ready", &[]).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(answer.text.contains("ClickHouse cannot be reached."), "{}", answer.text);
    let answer = service.call(Method::GET, "/history", &[("cookie", "whence_session=x")]).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(!answer.text.contains("127.0.0.1:9"));
}
