//! Access history: filters, pages, drawing, statements, and answers to what cannot be asked.

use axum::http::StatusCode;
use whence_model::{Outcome, StatementClass, Text};

use crate::events::{HOUR, by, failed_login, gap, query, server, watched};
use crate::harness::Service;

#[tokio::test]
async fn filters_narrow_what_is_shown_and_stay_in_the_form() {
    let mut failed = query(3, "DROP TABLE orders");
    failed.outcome = Some(Outcome::Error { code: Some(1142), sqlstate: None, message: None });
    failed.statement.as_mut().unwrap().class = StatementClass::Ddl;
    let events = [
        query(1, "SELECT 1"),
        by("payroll", "10.0.1.9", query(2, "SELECT salary FROM staff")),
        failed,
        failed_login(4, "intruder"),
    ];
    let service = Service::new("web_filters", &events, &[watched("db1", 0, 3600)]).await;
    let cookie = service.sign_in("viewer").await;
    let instance = server("db1").instance;
    for (filter, expected) in [
        ("", &["intruder", "shop_app", "payroll", "shop_app"][..]),
        ("&user=payroll", &["payroll"]),
        ("&user=payroll&user=intruder", &["intruder", "payroll"]),
        ("&client_host=10.0.1.0%2F24", &["payroll"]),
        ("&client_host=10.0.1.9", &["payroll"]),
        (&format!("&instance={instance}&result=error"), &["intruder", "shop_app"]),
        ("&class=ddl", &["shop_app"]),
        ("&kind=connect_failed", &["intruder"]),
        ("&text=SALARY", &["payroll"]),
        ("&database=none", &[]),
        ("&user=nobody", &[]),
    ] {
        let page = service.get(&cookie, &format!("/history?{HOUR}{filter}")).await;
        assert_eq!(page.status, StatusCode::OK, "{filter}");
        assert_eq!(page.texts("td[data-label=User]"), expected, "{filter}");
    }
    let page =
        service.get(&cookie, &format!("/history?{HOUR}&user=pay&user=roll&class=ddl&result=error")).await;
    assert_eq!(page.attribute("#user", "value").unwrap(), "pay");
    assert_eq!(page.attribute("input[name=user][aria-label]", "value").unwrap(), "roll");
    assert_eq!(page.attribute("input[name=class][checked]", "value").unwrap(), "ddl");
    assert_eq!(page.attribute("select[name=result] option[selected]", "value").unwrap(), "error");
    assert_eq!(page.texts("section.empty h2"), ["No event matches"]);

    let page = service.get(&cookie, &format!("/history?{HOUR}")).await;
    assert_eq!(page.texts("#event-count"), ["4 events"]);
    assert_eq!(page.texts(".figures .tag"), ["2 failed"]);
    assert_eq!(page.texts("td[data-label=Result]"), ["error 1045", "error 1142", "ok", "ok"]);
    assert_eq!(page.texts("td[data-label=Duration]")[3], "1.24 ms");
    assert_eq!(page.texts(".histogram svg a title").len(), 1);
    assert!(page.texts(".histogram svg a title")[0].contains("2 ok, 2 failed, 0 lost"));
}

#[tokio::test]
async fn pages_are_turned_through_every_event() {
    let events: Vec<_> = (1..=23).map(|number| query(number, &format!("SELECT {number}"))).collect();
    let service = Service::new("web_paging", &events, &[]).await;
    let cookie = service.sign_in("viewer").await;
    let mut address = format!("/history?{HOUR}&limit=5&user=shop_app");
    let mut seen = Vec::new();
    let mut pages = 0;
    loop {
        let page = service.get(&cookie, &address).await;
        seen.extend(page.texts("td.what code"));
        pages += 1;
        assert_eq!(page.attribute("#newest", "href").is_some(), pages > 1);
        let Some(older) = page.attribute("#older", "href") else { break };
        address = older;
    }
    let expected: Vec<String> = (1..=23).rev().map(|number| format!("SELECT {number}")).collect();
    assert_eq!((seen, pages), (expected, 5));
}

#[tokio::test]
async fn what_was_not_watched_and_lost_is_on_the_page() {
    let coverage = [watched("db1", 0, 600), watched("db1", 1200, 3600), watched("db2", 0, 3600)];
    let service = Service::new("web_statement", &[query(1, "SELECT 1"), gap(2, 7)], &coverage).await;
    let cookie = service.sign_in("viewer").await;
    let page = service.get(&cookie, &format!("/history?{HOUR}")).await;
    let line = &page.texts("#coverage-line")[0];
    assert!(line.contains("Not watched: db1 MariaDB 127.0.0.1:3306 for 10 min."), "{line}");
    assert!(page.attribute("#coverage-line a", "href").unwrap().starts_with("/coverage?from=2026-11-23"));
    assert_eq!(page.texts(".histogram svg .shade").len(), 1);
    assert_eq!(page.texts(".figures .tag"), ["7 lost"]);
    assert_eq!(page.texts("td.what")[0], "7 events lost: ring full");

    let instance = server("db2").instance;
    let page = service.get(&cookie, &format!("/history?{HOUR}&instance={instance}")).await;
    let line = &page.texts("#coverage-line")[0];
    assert!(line.starts_with("All of this window was watched on 1 server, and no event was lost."), "{line}");

    let page = service.get(&cookie, &format!("/coverage?{HOUR}")).await;
    assert_eq!(page.texts(".server h2"), ["db1 MariaDB 127.0.0.1:3306", "db2 MariaDB 127.0.0.1:3306"]);
    assert_eq!(page.texts(".server .tiles b")[..2], ["83.3 %", "10 min"]);
    let spans = page.texts("td[data-label=From], td[data-label=To], td[data-label=Length]");
    assert_eq!(spans, ["2026-11-23 12:10:00.000", "2026-11-23 12:20:00.000", "10 min"]);
}

#[tokio::test]
async fn what_cannot_be_asked_is_answered_on_the_page_and_kept() {
    let service = Service::new("web_invalid", &[query(1, "SELECT 1")], &[]).await;
    let cookie = service.sign_in("viewer").await;
    for (filter, field, says) in [
        ("from=yesterday", "from", "give one such as 2026-11-23T20:00:00Z"),
        ("from=2026-11-23&to=2026-11-22", "from", "is not before the end"),
        ("client_host=10.0.0.0%2F99", "client_host", "a network such as 10.0.0.0/8"),
        ("class=reads", "class", "is not one of read, write, ddl"),
        ("limit=9999", "limit", "is no number from 1 to 1000"),
        ("cursor=zz", "cursor", "not a cursor"),
        ("colour=red", "colour", "known are user, client_host"),
    ] {
        let page = service.get(&cookie, &format!("/history?user=kept&{filter}")).await;
        assert_eq!(page.status, StatusCode::BAD_REQUEST, "{filter}");
        let problem = &page.texts("#problems li")[0];
        assert!(problem.starts_with(field) && problem.contains(says), "{problem}");
        assert_eq!(page.attribute("#user", "value").unwrap(), "kept");
        assert!(page.texts("td.what").is_empty());
    }
    let page = service.get(&cookie, "/history?from=yesterday").await;
    assert_eq!(page.attribute("#from", "value").unwrap(), "yesterday");
    assert!(page.texts("#from-problem")[0].contains("is no time"));
}

#[tokio::test]
async fn an_event_is_shown_with_all_its_fields() {
    let mut cut = query(1, "");
    let text = format!("SELECT '{}'\n  FROM staff", "x".repeat(1000));
    cut.statement.as_mut().unwrap().sql =
        Some(Text { text: text.clone(), original_bytes: 1_000_000, truncated: true });
    let service = Service::new("web_event", std::slice::from_ref(&cut), &[]).await;
    let cookie = service.sign_in("viewer").await;
    let list = service.get(&cookie, &format!("/history?{HOUR}")).await;
    let address = list.attribute("td.time a", "href").unwrap();
    let page = service.get(&cookie, &address).await;
    assert_eq!(page.texts("#sql-cut"), [format!("cut: {} of 1000000 bytes", text.len())]);
    let sql = page.html();
    let sql = sql.select(&scraper::Selector::parse("#sql").unwrap()).next().unwrap();
    assert_eq!(sql.text().collect::<String>(), text);
    assert_eq!(page.texts("#field-event_id"), [cut.id().to_string()]);
    assert_eq!(page.texts("#field-client_port"), ["40000"]);
    assert_eq!(page.texts("#field-tls"), ["—"]);
    assert_eq!(page.texts("#field-started_at"), ["2026-11-23T12:00:01.000000000Z"]);
    // Each of the related searches finds at least this event.
    let html = page.html();
    let links = scraper::Selector::parse(".related a").unwrap();
    let links: Vec<String> =
        html.select(&links).map(|link| link.value().attr("href").unwrap().to_owned()).collect();
    assert_eq!(links.len(), 4);
    for link in links {
        assert_eq!(service.get(&cookie, &link).await.texts("td.what").len(), 1, "{link}");
    }
    let missing = service.get(&cookie, "/events/0198c0de-0000-7000-8000-000000000000").await;
    assert_eq!(missing.status, StatusCode::NOT_FOUND);
    assert_eq!(service.get(&cookie, "/events/nonsense").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn the_live_view_gets_the_results_alone() {
    let service = Service::new("web_live", &[query(1, "SELECT 1")], &[]).await;
    let cookie = service.sign_in("viewer").await;
    let page = service.get(&cookie, "/history?from=2026-11-01").await;
    let source = page.attribute("#live", "data-source").unwrap();
    assert_eq!(source, "/history/results?from=2026-11-01");
    let part = service.get(&cookie, &source).await;
    assert!(!part.text.contains("<html") && part.text.contains("coverage-line"));
    let settled = service.get(&cookie, &format!("/history?{HOUR}")).await;
    assert_eq!(settled.attribute("#live", "data-source"), None);
    assert_eq!(service.get("", &source).await.status, StatusCode::UNAUTHORIZED);
}
