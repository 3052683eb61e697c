//! Strangers' text does no harm, and headers keep what slipped through from doing any.

use std::sync::Arc;

use axum::http::{Method, StatusCode};
use scraper::{Html, Selector};
use whence_model::{Event, Text};

use crate::events::{HOUR, query, watched};
use crate::harness::Service;

const NAME: &str = "=HYPERLINK(\"http://evil.example\")<script>alert(1)</script>";
const SQL: &str =
    "SELECT '\u{202e}nimda\u{0}\x1b[31m' <img src=x onerror=alert(1)> \"'>&amp; --\n+1;=cmd|''!A0";

fn hostile() -> Event {
    let mut event = query(1, SQL);
    event.principal.user = Some(NAME.into());
    event.principal.client_host = Some("@SUM(1)\"><svg/onload=alert(1)>".into());
    event.session.database = Some("'\" onfocus=alert(1) autofocus x='".into());
    Arc::make_mut(&mut event.server).host = "<b>db1</b>".into();
    event.statement.as_mut().unwrap().sql = Some(Text::from_source(SQL.as_bytes(), SQL.len() as u64));
    event
}

/// Elements and attributes that only a stranger could have brought.
fn assert_harmless(html: &Html, address: &str) {
    let everything = Selector::parse("*").unwrap();
    for element in html.select(&everything) {
        let element = element.value();
        assert!(
            !["img", "b"].contains(&element.name())
                || element.attr("src").is_none_or(|src| src.starts_with("/static/")),
            "{address}: {element:?}"
        );
        assert!(
            element.attrs().all(|(name, _)| !name.starts_with("on") && name != "style"),
            "{address}: {element:?}"
        );
        if element.name() == "script" {
            assert!(element.attr("src").unwrap().starts_with("/static/"), "{address}");
        }
    }
}

#[tokio::test]
async fn hostile_text_is_shown_as_text() {
    let mut coverage = watched("<b>db1</b>", 0, 3600);
    coverage.detail = Some("<script>alert(1)</script>\u{202e}".into());
    let service = Service::new("web_hostile", &[hostile()], &[coverage]).await;
    let cookie = service.sign_in("admin").await;
    let encoded: String = url::form_urlencoded::byte_serialize(NAME.as_bytes()).collect();
    let id = hostile().id();
    for address in [
        format!("/history?{HOUR}"),
        format!("/history?{HOUR}&user={encoded}"),
        format!("/history?from={encoded}&{encoded}=1"),
        format!("/history/results?{HOUR}"),
        format!("/events/{id}"),
        format!("/events/{encoded}"),
        format!("/report?{HOUR}&user={encoded}"),
        format!("/coverage?{HOUR}"),
        format!("/sign-in?next={encoded}"),
        "/reads".to_owned(),
    ] {
        let page = service.get(&cookie, &address).await;
        assert_harmless(&page.html(), &address);
        assert!(!page.text.contains(['\u{202e}', '\u{0}', '\u{1b}']), "{address}");
    }
    let page = service.get(&cookie, &format!("/history?{HOUR}&user={encoded}")).await;
    assert_eq!(page.texts("td[data-label=User]"), [NAME]);
    assert!(page.texts("td.what code")[0].starts_with("SELECT '⟨U+202E⟩nimda␀␛[31m' <img src=x"));
    assert_eq!(page.attribute("#user", "value").unwrap(), NAME);

    let file = service.get(&cookie, &format!("/export.csv?{HOUR}")).await;
    let mut reader = csv::Reader::from_reader(file.text.as_bytes());
    let names = reader.headers().unwrap().clone();
    let record = reader.records().next().unwrap().unwrap();
    let cell = |name: &str| record.get(names.iter().position(|known| known == name).unwrap()).unwrap();
    assert_eq!(cell("user"), format!("'{NAME}"));
    assert_eq!(cell("client_host"), "'@SUM(1)\"><svg/onload=alert(1)>");
    assert!(cell("sql_text").contains("⟨U+202E⟩nimda␀␛[31m"));
    assert!(cell("sql_text").ends_with("--\n'+1;'=cmd|''!A0"));

    let file = service.get(&cookie, &format!("/export.ndjson?{HOUR}")).await;
    let event: serde_json::Value = serde_json::from_str(file.text.lines().next().unwrap()).unwrap();
    assert_eq!((event["user"].as_str(), event["sql_text"].as_str()), (Some(NAME), Some(SQL)));
}

#[tokio::test]
async fn every_answer_carries_the_security_headers() {
    let service = Service::new("web_headers", &[], &[]).await;
    let cookie = service.sign_in("viewer").await;
    let headers = [("cookie", cookie.as_str())];
    for (method, address) in [
        (Method::GET, "/history"),
        (Method::GET, "/sign-in"),
        (Method::GET, "/nowhere"),
        (Method::GET, "/api/v1/events"),
        (Method::GET, "/api/openapi.json"),
        (Method::DELETE, "/history"),
        (Method::GET, "/live"),
    ] {
        let answer = service.call(method.clone(), address, &headers).await;
        assert!(answer.header("content-security-policy").starts_with("default-src 'none'; "), "{address}");
        assert!(answer.header("content-security-policy").contains("frame-ancestors 'none'"));
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        assert_eq!(answer.header("referrer-policy"), "same-origin");
        assert_eq!(answer.header("cache-control"), "no-store", "{method} {address}");
        assert_eq!(answer.header("x-request-id").len(), 36);
    }
    let page = service.get(&cookie, "/history").await;
    let style = page.attribute("link[rel=stylesheet]", "href").unwrap();
    let answer = service.call(Method::GET, &style, &[]).await;
    assert_eq!((answer.status, answer.header("content-type")), (StatusCode::OK, "text/css; charset=utf-8"));
    assert!(answer.header("cache-control").contains("immutable"));
    let stale = service.call(Method::GET, "/static/0000000000000000/style.css", &[]).await;
    assert_eq!(stale.status, StatusCode::NOT_FOUND);
}
