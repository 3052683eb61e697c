//! Collectors: which of them live, when they began and ended, and who is told when one falls silent.

use axum::http::Method;
use whence_model::{
    Began, ClockQuality, CollectorId, Coverage, CoverageState, InstanceId, Life, Provider, Server, Timestamp,
};
use whence_store::Store;
use whence_testkit::{Sender, sample};

use crate::events::{SECOND, server};
use crate::harness::Service;

/// What the collector of `host` tells of itself, of ten seconds that ended so many seconds ago.
fn own_span(host: &str, seconds_ago: i64, life: &Life) -> Coverage {
    let to = Timestamp::now().plus_ns(-seconds_ago * SECOND);
    Coverage {
        server: Server {
            instance: InstanceId::of_collector(host),
            product: "Whence collector".into(),
            ..server(host)
        },
        state: CoverageState::Watched,
        provider: Some(Provider::Collector),
        from: to.plus_ns(-10 * SECOND),
        to,
        detail: Some(life.to_string()),
        ..sample::span()
    }
}

/// A collector that told these spans, the last of them when it ended.
async fn tell(store: &Store, host: &str, spans: &[Coverage]) -> CollectorId {
    let mut sender = Sender::default();
    store.enroll_collector(sender.id, host, sender.key.public().to_bytes()).await.unwrap();
    for span in spans {
        sender.seal(vec![], std::slice::from_ref(span), span.to).write(store).await;
    }
    sender.id
}

#[tokio::test]
async fn a_silent_collector_is_told_of_wherever_somebody_looks() {
    let service = Service::new("web_silent", &[], &[]).await;
    let store = &service.store;
    let synchronised = ClockQuality::Synchronised { error_us: 1520, offset_us: -3 };
    let living = |began| Life { began, ended: false, clock: synchronised, ..Life::default() };
    let began = |began| living(Some(began));
    tell(
        store,
        "db-sends",
        &[own_span("db-sends", 40, &began(Began::Start)), own_span("db-sends", 5, &living(None))],
    )
    .await;
    let unsynchronised = Life { clock: ClockQuality::Unsynchronised, ..began(Began::Crash) };
    tell(store, "db-silent", &[own_span("db-silent", 125, &unsynchronised)]).await;
    let stopped = Life { ended: true, ..living(None) };
    tell(store, "db-stopped", &[own_span("db-stopped", 300, &stopped)]).await;
    // It goes on under another name of its host.
    tell(store, "db-moved", &[own_span("db-moved", 20, &stopped), own_span("db-new", 5, &living(None))])
        .await;
    let revoked = tell(store, "db-revoked", &[own_span("db-revoked", 300, &began(Began::First))]).await;
    store.revoke_collector(revoked).await.unwrap();

    let cookie = service.sign_in("auditor").await;
    let says = "Nothing comes from the collector of db-silent for 2 min";
    for address in ["/history", "/report", "/coverage"] {
        let page = service.get(&cookie, address).await;
        let notices = page.texts("#silence");
        assert!(notices.len() == 1 && notices[0].starts_with(says), "{address}: {notices:?}");
        assert!(!notices[0].contains("db-sends") && !notices[0].contains("db-stopped"), "{notices:?}");
    }
    let page = service.get(&cookie, "/coverage?from=-1h").await;
    let column = |label: &str| page.texts(&format!(".collectors td[data-label='{label}']"));
    assert_eq!(column("Host"), ["db-moved", "db-revoked", "db-sends", "db-silent", "db-stopped"]);
    assert_eq!(column("State"), ["sending", "revoked", "sending", "silent", "stopped"]);
    let clocks = column("Clock");
    assert!(
        clocks[2].starts_with("synchronised, within 1.5") && clocks[3] == "not synchronised",
        "{clocks:?}"
    );
    let turns = page.texts(".turns td[data-label=What]");
    assert_eq!(
        turns,
        ["stopped", "started", "started after a crash", "stopped", "started for the first time"]
    );
    // A collector is none of the servers.
    assert!(page.texts(".server").is_empty());
    assert!(page.text.contains("No server is known in this window"));

    let answer = service.get_with_token("auditor", "/api/v1/coverage?from=-1h").await.json();
    assert_eq!(answer["instances"], serde_json::json!([]));
    let silent = &answer["collectors"][3];
    assert_eq!((&silent["state"], &silent["clock"]), (&"silent".into(), &"unsynchronised".into()));
    assert_eq!(answer["collectors"][2]["clock_error_us"], 1520);
    assert_eq!(answer["turns"][2]["what"], "crash");
    let metrics = service.call(Method::GET, "/metrics", &[]).await.text;
    for (state, number) in [("sending", 2), ("silent", 1), ("stopped", 1), ("revoked", 1)] {
        let line = format!("whence_web_collectors{{state=\"{state}\"}} {number}");
        assert!(metrics.contains(&line), "{metrics}");
    }
}
