//! Any part can be killed at any moment: nothing is lost, nothing is there twice.

use std::collections::BTreeSet;
use std::process::Command;

use whence_e2e::{Api, Whence, eventually, whence};
use whence_testkit::{DatabaseServer, MariaDb, Via};

use crate::database::{prepare, run};

/// Statements `SELECT 'label N'` of one connection, for each N of `numbers`.
fn script(label: &str, numbers: std::ops::Range<usize>) -> String {
    numbers.map(|number| format!("SELECT '{label} {number}';")).collect::<Vec<_>>().join("\n")
}

/// The SQL texts with `label` in them, as often as they are stored.
async fn stored(api: &Api, label: &str) -> anyhow::Result<Vec<String>> {
    let events = api.all_events(&[("text", label), ("from", "-1h")]).await?;
    Ok(events.iter().map(|event| event["sql_text"].as_str().unwrap_or_default().to_owned()).collect())
}

/// Waits until all are stored, and checks that each is there once.
async fn each_once(api: &Api, label: &str, expected: usize) {
    eventually(&format!("{expected} commands of {label}"), || async {
        let texts = stored(api, label).await?;
        Ok((texts.len() >= expected).then_some(()))
    })
    .await;
    let texts = stored(api, label).await.unwrap();
    let different: BTreeSet<&String> = texts.iter().collect();
    assert_eq!((texts.len(), different.len()), (expected, expected), "{label}");
}

/// Waits until the collector's beginnings and ends are on record, the newest first, and it is known to live.
async fn turns(api: &Api, expected: &[&str]) {
    eventually(&format!("the collector's turns {expected:?}"), || async {
        let coverage = api.get("/api/v1/coverage", &[("from", "-1h")]).await?;
        let turns = coverage["turns"].as_array().cloned().unwrap_or_default();
        let turns: Vec<&str> = turns.iter().filter_map(|turn| turn["what"].as_str()).collect();
        Ok((turns == expected && coverage["collectors"][0]["state"] == "sending").then_some(()))
    })
    .await;
}

/// Runs the script while `disturb` does what it does.
fn under_load(server: &DatabaseServer, label: &str, statements: usize, disturb: impl FnOnce()) {
    std::thread::scope(|scope| {
        let clients = [0, 1].map(|client| {
            let half = statements / 2;
            let text = script(label, client * half..(client + 1) * half);
            scope.spawn(move || run(server, "app", &text, Via::Tcp))
        });
        disturb();
        for client in clients {
            client.join().unwrap().unwrap();
        }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_that_is_killed_under_load_loses_nothing() {
    let server = MariaDb::start().unwrap();
    prepare(&server);
    let data = tempfile::tempdir().unwrap();
    let whence = Whence::start(data.path(), &[]).unwrap();
    let api = Api::new(&whence).unwrap();
    for part in ["collector", "ingest", "engine", "web"] {
        let label = format!("while {part} dies");
        under_load(&server, &label, 6000, || whence.kill_part(part).unwrap());
        each_once(&api, &label, 6000).await;
    }
    // The kernel went on while the collector was away: no hole in the coverage, and nothing lost.
    let watched = eventually("the coverage of the server", || async {
        let coverage = api.get("/api/v1/coverage", &[("from", "-1h")]).await?;
        let instances = coverage["instances"].as_array().cloned().unwrap_or_default();
        Ok(instances.into_iter().find(|instance| instance["server_port"] == server.port()))
    })
    .await;
    assert_eq!(watched["unwatched"], serde_json::json!([]), "{watched}");
    assert_eq!(watched["not_running"], serde_json::json!([]), "{watched}");
    assert_eq!(watched["lost"], serde_json::json!({}), "{watched}");
    turns(&api, &["crash", "first"]).await;
    let instance = watched["instance_id"].as_str().unwrap();
    let unfinished =
        api.events(&[("result", "unfinished"), ("instance", instance), ("from", "-1h")]).await.unwrap();
    assert_eq!(unfinished, Vec::<serde_json::Value>::new());
    assert!(whence.stop().unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_run_goes_on_with_the_same_data() {
    let server = MariaDb::start().unwrap();
    prepare(&server);
    let data = tempfile::tempdir().unwrap();
    let first = Whence::start(data.path(), &[]).unwrap();
    assert!(first.password().is_some());
    under_load(&server, "first run", 2000, || ());
    // What was seen is shipped before it ends.
    assert!(first.stop().unwrap().success());
    run(&server, "app", "SELECT 'nobody looks'", Via::Tcp).unwrap();
    // What is set for an ingest that other hosts reach does not keep its own collector out.
    let mut command = Command::new(whence::program().unwrap());
    command.args(["up", "--listen=127.0.0.1:0"]).arg(format!("--data={}", data.path().display()));
    command.env("WHENCE_TLS_CERT", "/nonexistent/cert.pem").env("WHENCE_TLS_KEY", "/nonexistent/key.pem");
    let second = Whence::start_command(command, data.path()).unwrap();
    assert_eq!(second.password(), None);
    let api = Api::new(&second).unwrap();
    each_once(&api, "first run", 2000).await;
    under_load(&server, "second run", 2000, || ());
    each_once(&api, "second run", 2000).await;
    assert_eq!(stored(&api, "nobody looks").await.unwrap(), Vec::<String>::new());
    turns(&api, &["start", "stop", "first"]).await;
    assert!(second.stop().unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_whence_on_the_same_data_is_refused() {
    let data = tempfile::tempdir().unwrap();
    let whence = Whence::start(data.path(), &[]).unwrap();
    let second = Whence::start(data.path(), &[]).map(drop);
    assert!(second.unwrap_err().to_string().contains("ended with"));
    assert!(whence.stop().unwrap().success());
}
