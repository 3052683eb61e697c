//! Who gets in, how, and what is written down about it.

use axum::http::{Method, StatusCode};
use whence_web::people;

use crate::events::HOUR;
use crate::harness::{PASSWORD, Service};

#[tokio::test]
async fn a_person_signs_in_reads_and_signs_out() {
    let service = Service::new("web_sign_in", &[], &[]).await;
    let refused = service.call(Method::GET, &format!("/history?{HOUR}"), &[]).await;
    assert_eq!(refused.status, StatusCode::SEE_OTHER);
    assert!(refused.header("location").starts_with("/sign-in?next=%2Fhistory%3Ffrom%3D"));

    let form = service.call(Method::GET, refused.header("location"), &[]).await;
    assert_eq!(form.attribute("input[name=next]", "value").unwrap(), format!("/history?{HOUR}"));

    let answer = service.try_sign_in("viewer", PASSWORD, "10.9.9.9").await;
    assert_eq!((answer.status, answer.header("location")), (StatusCode::SEE_OTHER, "/history?user=a"));
    let set = answer.header("set-cookie");
    assert!(set.contains("; HttpOnly; SameSite=Strict; Max-Age=43200") && !set.contains("Secure"), "{set}");
    let cookie = answer.cookie().unwrap();
    assert_eq!(service.get(&cookie, &format!("/history?{HOUR}")).await.status, StatusCode::OK);

    let secret = cookie.split_once('=').unwrap().1;
    let hash: [u8; 32] =
        sha2::Digest::finalize(sha2::Digest::chain_update(<sha2::Sha256 as sha2::Digest>::new(), secret))
            .into();
    let stored = service.store.credential(hash).await.unwrap().unwrap();
    assert!(
        stored.kind == "session" && stored.expires_at.is_some() && !format!("{stored:?}").contains(secret)
    );

    let headers = [("cookie", cookie.as_str()), ("sec-fetch-site", "same-origin")];
    let answer = service.call(Method::POST, "/sign-out", &headers).await;
    assert!(answer.header("set-cookie").contains("Max-Age=0"));
    assert_eq!(service.get(&cookie, "/history").await.status, StatusCode::SEE_OTHER);

    let reads = service.reads().await;
    let actions: Vec<&str> = reads.iter().map(|read| read.action.as_str()).collect();
    assert_eq!(actions, ["sign_in", "search", "sign_out"]);
    assert!(reads.iter().all(|read| read.person == "viewer" && read.result == "ok"));
    assert_eq!(reads[0].address, "10.9.9.9");
}

#[tokio::test]
async fn the_cookie_is_secure_when_the_browser_came_over_https() {
    let service = Service::new("web_https", &[], &[]).await;
    let cookie = service.sign_in("viewer").await;
    let headers =
        [("cookie", cookie.as_str()), ("origin", "https://audit.example"), ("host", "audit.example")];
    let answer = service.call(Method::POST, "/sign-out", &headers).await;
    assert!(answer.header("set-cookie").ends_with("; Secure"));
}

#[tokio::test]
async fn wrong_passwords_are_slowed_down_and_written_down() {
    let service = Service::new("web_throttle", &[], &[]).await;
    for name in ["viewer", "nobody"] {
        for _ in 0..5 {
            let answer = service.try_sign_in(name, "wrong", "10.9.9.9").await;
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
            assert_eq!(answer.texts("[role=alert]"), ["Name or password is wrong."]);
        }
        let answer = service.try_sign_in(name, PASSWORD, "10.9.9.9").await;
        assert_eq!((answer.status, answer.header("retry-after")), (StatusCode::TOO_MANY_REQUESTS, "900"));
        assert_eq!(answer.cookie(), None);
    }
    // Someone else at that address, and the same person elsewhere, are not held up.
    assert_eq!(service.try_sign_in("admin", PASSWORD, "10.9.9.9").await.status, StatusCode::SEE_OTHER);
    assert_eq!(service.try_sign_in("viewer", PASSWORD, "10.9.9.8").await.status, StatusCode::SEE_OTHER);
    let reads = service.reads().await;
    let count = |action: &str, result: &str| {
        reads.iter().filter(|read| read.action == action && read.result == result).count()
    };
    assert_eq!(count("sign_in_failed", "failed"), 10);
    assert_eq!(count("sign_in_failed", "denied"), 2);
    assert_eq!(count("sign_in", "ok"), 2);
    assert!(!format!("{reads:?}").contains("wrong\""));
}

#[tokio::test]
async fn a_burst_of_guesses_cannot_outrun_the_count() {
    let service = Service::new("web_burst", &[], &[]).await;
    let guesses = (0..12).map(|_| service.try_sign_in("viewer", "wrong", "10.9.9.9"));
    let answers = futures::future::join_all(guesses).await;
    let tried = answers.iter().filter(|answer| answer.status == StatusCode::UNAUTHORIZED).count();
    assert_eq!(tried, 5);
}

#[tokio::test]
async fn a_disabled_account_is_out_at_once() {
    let service = Service::new("web_disabled", &[], &[]).await;
    let cookie = service.sign_in("viewer").await;
    let token = people::issue_token(&service.store, "viewer", "script").await.unwrap();
    people::disable(&service.store, "viewer").await.unwrap();
    assert_eq!(service.get(&cookie, "/history").await.status, StatusCode::SEE_OTHER);
    let authorization = format!("Bearer {token}");
    let headers = [("authorization", authorization.as_str())];
    let answer = service.call(Method::GET, "/api/v1/instances", &headers).await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    assert_eq!(service.try_sign_in("viewer", PASSWORD, "10.9.9.9").await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn changes_from_other_sites_are_refused() {
    let service = Service::new("web_csrf", &[], &[]).await;
    let cookie = service.sign_in("viewer").await;
    for (name, value) in
        [("sec-fetch-site", "cross-site"), ("origin", "https://evil.example"), ("origin", "null")]
    {
        let headers = [("cookie", cookie.as_str()), ("host", "audit.example"), (name, value)];
        let answer = service.call(Method::POST, "/sign-out", &headers).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{name}: {value}");
    }
    assert_eq!(service.get(&cookie, "/history").await.status, StatusCode::OK);
}

#[tokio::test]
async fn each_role_may_what_it_should() {
    let service = Service::new("web_roles", &[], &[]).await;
    let cookies =
        [service.sign_in("viewer").await, service.sign_in("auditor").await, service.sign_in("admin").await];
    for (address, allowed) in [
        ("/history", [true, true, true]),
        ("/coverage", [true, true, true]),
        ("/report", [false, true, true]),
        ("/report.csv", [false, true, true]),
        ("/export.csv", [false, true, true]),
        ("/export.ndjson", [false, true, true]),
        ("/api/v1/report", [false, true, true]),
        ("/people", [false, false, true]),
        ("/reads", [false, false, true]),
    ] {
        for (cookie, is_allowed) in cookies.iter().zip(allowed) {
            let expected = if is_allowed { StatusCode::OK } else { StatusCode::FORBIDDEN };
            assert_eq!(service.get(cookie, address).await.status, expected, "{address}");
        }
    }
    let denied = service.reads().await.into_iter().filter(|read| read.result == "denied").count();
    assert_eq!(denied, 9);
    let page = service.get(&cookies[0], "/report").await;
    assert_eq!(page.texts("h1"), ["Not with this role"]);
    assert!(page.text.contains("needs the role auditor, and viewer is viewer"));
}
