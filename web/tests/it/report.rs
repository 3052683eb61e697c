//! The access report.

use std::collections::BTreeMap;

use whence_model::{Coverage, Event, Provider};

use crate::events::{HOUR, by, failed_login, query, server, watched};
use crate::harness::Service;

#[tokio::test]
async fn a_report_says_who_came_from_where_and_what_was_not_watched() {
    let events = [
        query(1, "SELECT 1"),
        query(2, "SELECT 2"),
        by("shop_app", "10.0.1.9", query(60, "SELECT 3")),
        by("other", "10.0.1.9", query(4, "SELECT 4")),
        failed_login(5, "shop_app"),
    ];
    let service =
        Service::new("web_report", &events, &[watched("db1", 0, 600), watched("db1", 900, 3600)]).await;
    let cookie = service.sign_in("auditor").await;
    let empty = service.get(&cookie, "/report").await;
    assert_eq!(empty.texts("section.empty h2"), ["Who came from where?"]);

    let page = service.get(&cookie, &format!("/report?{HOUR}&user=shop_app")).await;
    assert_eq!(page.texts(".report h2"), ["Account shop_app"]);
    assert_eq!(page.texts(".access td[data-label='Client host']")[..2], ["10.0.0.7", "10.0.1.9"]);
    assert_eq!(page.texts(".access td[data-label=First]")[0], "2026-11-23 12:00:01");
    assert_eq!(page.texts(".access td[data-label=Last]")[0], "2026-11-23 12:00:02");
    assert_eq!(page.texts(".access td[data-label=Statements]")[0], "2 read");
    assert_eq!(page.texts(".failed td[data-label='Name given']"), ["shop_app"]);
    assert!(page.texts(".coverage-line")[0].contains("Not watched: db1 MariaDB 127.0.0.1:3306 for 5 min"));
    assert_eq!(page.texts(".tiles b")[..3], ["4", "1", "1"]);

    let scope = format!("{HOUR}&client_host=10.0.1.0%2F24&instance={}", server("db1").instance);
    let page = service.get(&cookie, &format!("/report?{scope}")).await;
    assert_eq!(page.texts(".report h2"), ["All accounts from 10.0.1.0/24 on db1 MariaDB 127.0.0.1:3306"]);
    assert_eq!(page.texts(".access td[data-label=User]").len(), 2);

    let file = service.get(&cookie, &format!("/report.csv?{HOUR}&user=shop_app")).await;
    let mut reader = csv::Reader::from_reader(file.text.as_bytes());
    let records: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
    let parts: Vec<&str> = records.iter().map(|record| record.get(0).unwrap()).collect();
    assert_eq!(parts, ["access", "access", "access", "failed_login", "not_watched", "statement"]);
    assert_eq!(records[4].get(6), Some("2026-11-23T12:10:00.000000000Z"));
    assert!(records[5].get(21).unwrap().contains("Not watched: db1 MariaDB 127.0.0.1:3306 for 5 min"));

    let nobody = service.get(&cookie, &format!("/report?{HOUR}&user=nobody")).await;
    assert!(nobody.texts(".report .empty")[0].starts_with("Nobody that matches was seen"));
    let wrong = service.get(&cookie, "/report?from=x").await;
    assert_eq!(wrong.status, 400);
}

#[tokio::test]
async fn what_rules_left_out_is_shown_and_a_sample_is_marked() {
    let filtered_by = BTreeMap::from([("pings".to_owned(), 1500), ("<b>reads".to_owned(), 9)]);
    let coverage = Coverage { seen: 1519, filtered: 1509, filtered_by, ..watched("db1", 0, 3600) };
    let sampled = Event { sampled_one_in: Some(1000), ..query(1, "SELECT 1") };
    let service = Service::new("web_filtered", &[sampled], &[coverage]).await;
    let cookie = service.sign_in("auditor").await;
    let says = "1,509 events were seen and left out by rule: 1,500 pings, 9 <b>reads.";
    for page in ["report", "history", "coverage"] {
        let page = service.get(&cookie, &format!("/{page}?{HOUR}")).await;
        assert!(page.texts(".coverage-line")[0].contains(says), "{}", page.text);
    }
    let page = service.get(&cookie, &format!("/coverage?{HOUR}")).await;
    let tiles = page.texts(".server .tiles li");
    let tile = |text: &str| tiles.iter().any(|tile| tile.replace(char::is_whitespace, "") == text);
    assert!(tile("1,500filteredbyrulepings") && tile("9filteredbyrule<b>reads"), "{tiles:?}");
    let page = service.get(&cookie, &format!("/history?{HOUR}")).await;
    assert!(page.texts(".events .what")[0].contains("one of 1,000"));
    let file = service.get(&cookie, &format!("/report.csv?{HOUR}")).await;
    assert!(file.text.contains(says), "{}", file.text);
    assert_eq!(
        file.text.lines().filter(|line| line.starts_with("\"filtered\",")).count(),
        2,
        "{}",
        file.text
    );
}

#[tokio::test]
async fn what_other_senders_told_is_marked_as_unsigned() {
    let told = Event { provider: Provider::External, ..query(2, "SELECT 2") };
    let service = Service::new("web_unsigned", &[query(1, "SELECT 1"), told.clone()], &[]).await;
    let cookie = service.sign_in("auditor").await;
    let page = service.get(&cookie, &format!("/history?{HOUR}")).await;
    // The newest first.
    assert_eq!(page.texts(".events td[data-label=Result]"), ["ok unsigned", "ok"]);
    let event = service.get(&cookie, &format!("/events/{}", told.id())).await;
    assert_eq!(event.texts("#unsigned"), ["unsigned"]);
    assert!(event.text.contains("no signature proves it"), "{}", event.text);
    let signed = service.get(&cookie, &format!("/events/{}", query(1, "").id())).await;
    assert!(signed.texts("#unsigned").is_empty() && signed.texts("h1").len() == 1, "{}", signed.text);

    let page = service.get(&cookie, &format!("/report?{HOUR}")).await;
    assert_eq!(page.texts(".tiles li").last().unwrap(), "1of the events unsigned");
    let file = service.get(&cookie, &format!("/report.csv?{HOUR}")).await;
    assert_eq!(
        file.text.lines().filter(|line| line.starts_with("\"unsigned\",")).count(),
        1,
        "{}",
        file.text
    );
    let report = service.get_with_token("auditor", &format!("/api/v1/report?{HOUR}")).await;
    assert_eq!(report.json()["totals"]["unsigned"], 1);
    let events = service.get_with_token("auditor", &format!("/api/v1/events?{HOUR}")).await.json();
    assert_eq!(
        (&events["events"][0]["signed"], &events["events"][1]["signed"]),
        (&false.into(), &true.into())
    );
}
