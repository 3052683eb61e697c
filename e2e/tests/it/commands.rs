//! Commands of different accounts, each found with what it was.

use std::time::Duration;

use serde_json::Value;
use whence_e2e::{Api, Whence};
use whence_testkit::{DatabaseServer, MariaDb, MySql56, Via};

use crate::database::{prepare, run};

#[tokio::test(flavor = "multi_thread")]
async fn every_command_is_found_with_who_where_what_how_long_and_how_it_ended() {
    let maria = MariaDb::start().unwrap();
    let mysql = MySql56::start().unwrap();
    prepare(&maria);
    prepare(&mysql);
    let data = tempfile::tempdir().unwrap();
    let whence = Whence::start(data.path(), &[]).unwrap();
    let lines = whence.lines();
    for server in [&maria, &mysql] {
        let address = format!("127.0.0.1:{}", server.port());
        assert!(
            lines.iter().any(|line| line.starts_with("watched: ") && line.contains(&address)),
            "{lines:?}"
        );
    }
    let api = Api::new(&whence).unwrap();
    for (server, product) in [(&maria, "MariaDB"), (&mysql, "MySQL")] {
        good_commands(&api, server, product).await;
        failing_commands(&api, server, product).await;
        texts(&api, server, product).await;
        sessions(&api, server, product).await;
    }
    assert!(whence.stop().unwrap().success());
}

/// The one event whose SQL has `text` in it.
async fn find(api: &Api, server: &DatabaseServer, product: &str, text: &str) -> Value {
    let event = api.wait_for_event(&[("text", text)]).await;
    assert_eq!(event["product"], product, "{event}");
    assert_eq!(event["server_port"], server.port(), "{event}");
    assert_eq!(event["kind"], "command", "{event}");
    assert_eq!(event["command"], "Query", "{event}");
    event
}

async fn good_commands(api: &Api, server: &DatabaseServer, product: &str) {
    run(server, "app", &format!("SELECT 'tcp {product}', customer FROM orders"), Via::Tcp).unwrap();
    let event = find(api, server, product, &format!("'tcp {product}'")).await;
    assert_eq!(event["user"], "app");
    assert_eq!(event["database"], "shop");
    assert_eq!(event["client_ip"], "127.0.0.1");
    assert_eq!(event["transport"], "tcp");
    assert_eq!(event["result"], "ok");
    assert_eq!(event["statement_class"], "read");
    assert_eq!(event["tables"], serde_json::json!(["orders"]));
    assert!(event["duration_ns"].as_u64().unwrap() > 0);
    assert!(event["connection_id"].as_u64().unwrap() > 0);
    assert_eq!(event["rows_sent"], 3);
    assert!(event["client_port"].as_u64().unwrap() > 0, "{event}");

    run(server, "report", &format!("UPDATE orders SET customer = 'by {product}' WHERE id < 3"), Via::Socket)
        .unwrap();
    let event = find(api, server, product, &format!("'by {product}'")).await;
    assert_eq!(event["user"], "report");
    assert_eq!(event["client_host"], "localhost");
    assert_eq!(event["transport"], "unix");
    assert_eq!(event["statement_class"], "write");
    assert_eq!(event["rows_affected"], 2);

    run(server, "app", &format!("SELECT 'slow {product}', SLEEP(0.4)"), Via::Tcp).unwrap();
    let event = find(api, server, product, &format!("'slow {product}'")).await;
    assert!(event["duration_ns"].as_u64().unwrap() >= 400_000_000, "{event}");
}

async fn failing_commands(api: &Api, server: &DatabaseServer, product: &str) {
    run(server, "app", &format!("SELECT 'missing {product}' FROM no_such_table"), Via::Tcp).unwrap_err();
    let event = find(api, server, product, &format!("'missing {product}'")).await;
    assert_eq!(event["result"], "error");
    assert_eq!(event["error_code"], 1146);
    run(server, "app", &format!("SELEKT 'syntax {product}'"), Via::Socket).unwrap_err();
    let event = find(api, server, product, &format!("'syntax {product}'")).await;
    assert_eq!((&event["error_code"], &event["statement_class"]), (&1064.into(), &"unknown".into()));

    let stranger = format!("stranger_{product}");
    server.sql(&stranger, "wrong", "shop", "SELECT 1", Via::Tcp).unwrap_err();
    let event = api.wait_for_event(&[("user", &stranger), ("kind", "connect_failed")]).await;
    assert_eq!(event["login_user"], stranger.as_str());
    assert_eq!(event["user"], Value::Null);
    assert_eq!(event["error_code"], 1045);
    assert_eq!(event["client_ip"], "127.0.0.1");
}

async fn texts(api: &Api, server: &DatabaseServer, product: &str) {
    run(server, "auditor", &format!("SELECT '密码 ünï 🔑 {product}'"), Via::Tcp).unwrap();
    let event = find(api, server, product, &format!("密码 ünï 🔑 {product}")).await;
    assert_eq!(event["sql_text"], format!("SELECT '密码 ünï 🔑 {product}'"));
    assert_eq!(event["sql_truncated"], false);

    let long = format!("SELECT 'long {product}', LENGTH('{}')", "x".repeat(200_000));
    run(server, "auditor", &long, Via::Socket).unwrap();
    let event = find(api, server, product, &format!("'long {product}'")).await;
    assert_eq!(event["sql_truncated"], true);
    assert_eq!(event["sql_original_bytes"], long.len());
    assert_eq!(event["sql_text"], long[..64 << 10]);

    let secret = format!("GRANT ALL ON shop.* TO 'x{product}'@'%' IDENTIFIED BY 'hunter2'");
    server.sql("root", "", "", &secret, Via::Socket).unwrap();
    let event = find(api, server, product, &format!("'x{product}'")).await;
    assert_eq!(event["statement_class"], "privileges");
    assert!(!event["sql_text"].as_str().unwrap().contains("hunter2"), "{event}");
}

async fn sessions(api: &Api, server: &DatabaseServer, product: &str) {
    let answer =
        run(server, "app", &format!("USE shop; SELECT CONNECTION_ID(), 'session {product}'"), Via::Tcp);
    let id = answer.unwrap().split_whitespace().next().unwrap().to_owned();
    let event = find(api, server, product, &format!("'session {product}'")).await;
    assert_eq!(event["connection_id"].to_string(), id);
    let instance = event["instance_id"].as_str().unwrap();
    let names = whence_e2e::eventually("the whole session", || async {
        let events = api.events(&[("instance", instance), ("connection_id", &id)]).await?;
        let names: Vec<String> = events.iter().map(name).collect();
        Ok(names.first().is_some_and(|name| name == "disconnect").then_some(names))
    })
    .await;
    assert_eq!(names.last().unwrap(), "connect", "{names:?}");
    for expected in ["Query", "Quit", "Init_db"] {
        assert!(names.iter().any(|name| name == expected), "{expected} in {names:?}");
    }
}

/// The command's name, or the event's kind.
fn name(event: &Value) -> String {
    let name = event["command"].as_str().or(event["kind"].as_str());
    name.unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_starts_later_is_captured_from_its_first_command() {
    let data = tempfile::tempdir().unwrap();
    let mut whence = Whence::start(data.path(), &[]).unwrap();
    let api = Api::new(&whence).unwrap();
    let mut server = MariaDb::start().unwrap();
    whence.wait_for_server("watched", &format!(":{} ", server.port())).unwrap();
    prepare(&server);
    run(&server, "app", "SELECT 'before the restart'", Via::Tcp).unwrap();
    let before = api.wait_for_event(&[("text", "before the restart")]).await;
    server.restart().unwrap();
    run(&server, "app", "SELECT 'after the restart'", Via::Tcp).unwrap();
    let after = api.wait_for_event(&[("text", "after the restart")]).await;
    assert_eq!(before["instance_id"], after["instance_id"]);
    assert_ne!(before["server_process_id"], after["server_process_id"]);
    // The first login of the new process is there too: probes were on the program before it ran.
    let started = after["server_started_at"].as_str().unwrap();
    let of_server = [("instance", before["instance_id"].as_str().unwrap()), ("from", started)];
    let logins = [&of_server[..], &[("kind", "connect"), ("user", "app")]].concat();
    let logins = api.events(&logins).await.unwrap();
    assert_eq!(logins.len(), 1, "{logins:?}");
    drop(server);
    let instance = before["instance_id"].as_str().unwrap();
    whence_e2e::eventually("the page says that it is not running", || async {
        let coverage = api.get("/api/v1/coverage", &[("instance", instance), ("from", "-1h")]).await?;
        Ok(coverage.to_string().contains("not_running").then_some(()))
    })
    .await;
    tokio::time::timeout(Duration::from_mins(1), async { whence.stop() }).await.unwrap().unwrap();
}
