//! What machines ask: is it alive, can it be used, what did it count.

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode};
use tower::ServiceExt;
use whence_testkit::TestDatabase;

use crate::sender::{config, enrolled, refusal, send};

fn get(path: &str) -> Request<Body> {
    Request::get(path).body(Body::empty()).unwrap()
}

/// All of `/metrics`.
pub async fn metrics(router: &Router) -> String {
    let answer = router.clone().oneshot(get("/metrics")).await.unwrap();
    assert_eq!(answer.headers()["content-type"], whence_service::metrics::CONTENT_TYPE);
    let body = to_bytes(answer.into_body(), usize::MAX).await.unwrap();
    String::from_utf8(body.to_vec()).unwrap()
}

#[tokio::test]
async fn a_service_with_its_schema_is_ready() {
    let (_database, router, _) = enrolled("ready").await;
    for path in ["/live", "/ready"] {
        assert_eq!(send(&router, get(path)).await.0, StatusCode::OK, "{path}");
    }
    assert!(metrics(&router).await.contains("whence_ingest_collectors_enrolled_total 1"));
}

#[tokio::test]
async fn a_missing_schema_is_named() {
    let database = TestDatabase::empty("ingest_no_schema").await;
    let router = whence_ingest::router(config(&database));
    assert_eq!(send(&router, get("/live")).await.0, StatusCode::OK);
    let (status, problem) = send(&router, get("/ready")).await;
    assert_eq!((status, problem["code"].as_str().unwrap()), (StatusCode::SERVICE_UNAVAILABLE, "not_ready"));
    let message = problem["message"].as_str().unwrap();
    assert!(message.contains("whence migrate") && !message.contains("DB::Exception"), "{message}");
    let batch = crate::sender::Collector::new().batch(1);
    assert_eq!(refusal(&router, crate::sender::post(&batch)).await, (503, "store_misconfigured".into()));
}

#[tokio::test]
async fn other_paths_and_methods_get_an_answer_like_any_other() {
    let (_database, router, _) = enrolled("paths").await;
    assert_eq!(refusal(&router, get("/")).await, (404, "not_found".into()));
    assert_eq!(refusal(&router, get("/v1/batches")).await, (405, "method_not_allowed".into()));
}
