//! Enrolment: who may send at all.

use axum::body::Body;
use axum::http::{Request, StatusCode};
use serde_json::json;

use crate::sender::{Collector, TOKEN, config, enrolled, enrolment, hex, post, refusal, send};

#[tokio::test]
async fn a_collector_enrols_with_the_token_and_keeps_its_key() {
    let (database, router, mut collector) = enrolled("enrols").await;
    let (status, answer) = send(&router, collector.enrolment(TOKEN)).await;
    assert_eq!((status, answer["enrolled"].as_str().unwrap()), (StatusCode::OK, "before"));
    let known = database.store.collector(collector.id).await.unwrap().unwrap();
    assert_eq!((known.host.as_str(), known.public_key), ("db1", collector.key.public().to_bytes()));

    collector.key = whence_chain::SigningKey::generate();
    assert_eq!(refusal(&router, collector.enrolment(TOKEN)).await, (409, "enrolment_refused".into()));
    database.store.revoke_collector(collector.id).await.unwrap();
    assert_eq!(refusal(&router, collector.enrolment(TOKEN)).await, (409, "enrolment_refused".into()));
}

#[tokio::test]
async fn a_wrong_token_is_refused() {
    let (database, router, _) = enrolled("token").await;
    let collector = Collector::new();
    for wrong in ["", "let-me-i", "let-me-in!", "LET-ME-IN"] {
        assert_eq!(
            refusal(&router, collector.enrolment(wrong)).await,
            (401, "wrong_token".into()),
            "{wrong}"
        );
    }
    for header in ["let-me-in", "Basic let-me-in", "Bearer", "Bearerlet-me-in"] {
        let request =
            Request::post("/v1/enroll").header("authorization", header).body(Body::empty()).unwrap();
        assert_eq!(refusal(&router, request).await, (401, "wrong_token".into()), "{header}");
    }
    let request = Request::post("/v1/enroll").body(Body::empty()).unwrap();
    let answer = tower::ServiceExt::oneshot(router.clone(), request).await.unwrap();
    assert_eq!(answer.headers()["www-authenticate"], "Bearer");
    assert!(database.store.collector(collector.id).await.unwrap().is_none());
}

#[tokio::test]
async fn what_a_collector_says_of_itself_is_checked() {
    let (_database, router, collector) = enrolled("says").await;
    let key = hex(&collector.key.public().to_bytes());
    let id = collector.id;
    for wrong in [
        json!({}),
        json!([]),
        json!({ "collector_id": "x", "public_key": key, "host": "db1" }),
        json!({ "collector_id": id, "public_key": key[1..], "host": "db1" }),
        json!({ "collector_id": id, "public_key": "z".repeat(64), "host": "db1" }),
        // Not on the curve.
        json!({ "collector_id": id, "public_key": format!("02{}", "0".repeat(62)), "host": "db1" }),
        json!({ "collector_id": id, "public_key": key, "host": " " }),
        json!({ "collector_id": id, "public_key": key, "host": "a\nb" }),
        json!({ "collector_id": id, "public_key": key, "host": "h".repeat(256) }),
    ] {
        let answer = refusal(&router, enrolment(TOKEN, &wrong)).await;
        assert_eq!(answer, (422, "invalid_enrolment".into()), "{wrong}");
    }
    let long = json!({ "host": "h".repeat(20_000) });
    assert_eq!(refusal(&router, enrolment(TOKEN, &long)).await, (413, "too_large".into()));
}

#[tokio::test]
async fn of_two_keys_at_once_one_counts() {
    let (database, router, _) = enrolled("two_keys").await;
    let other = whence_ingest::router(config(&database));
    for second_router in [&router, &other] {
        let id = Collector::new().id;
        let [mut first, mut second] = [(); 2].map(|()| Collector { id, ..Collector::new() });
        let (_, at_second) = futures::join!(
            send(&router, first.enrolment(TOKEN)),
            send(second_router, second.enrolment(TOKEN))
        );
        let known = database.store.collector(id).await.unwrap().unwrap();
        let (winner, loser) = if known.public_key == first.key.public().to_bytes() {
            (&mut first, &mut second)
        } else {
            (&mut second, &mut first)
        };
        if std::ptr::eq(second_router, &raw const router) {
            assert_eq!(at_second.0, StatusCode::CONFLICT, "{}", at_second.1);
        }
        // Two services may have welcomed both; only one can send.
        assert_eq!(send(&router, post(&winner.batch(1))).await.0, StatusCode::OK);
        let refused = refusal(&router, post(&loser.batch(1))).await;
        assert_eq!(refused, (401, "wrong_signature".into()));
        assert_eq!(refusal(&router, loser.enrolment(TOKEN)).await, (409, "enrolment_refused".into()));
    }
}
