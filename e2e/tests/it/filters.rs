//! Rules: what they leave out is counted to the last, whoever is killed; what they keep less of is kept as they say.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;
use whence_e2e::{Api, Whence, eventually};
use whence_testkit::{DatabaseServer, MariaDb, Via};

use crate::database::{prepare, root};
use crate::packets::Packets;

const PINGS: u64 = 50_000;
/// So many pings, then a query.
const PINGS_PER_QUERY: u64 = 100;
const READS: u64 = 4000;

const RULES: &str = r#"
    [[collect.rule]]
    name = "monitor pings"
    account = "monitor@127.%"
    command = "Ping"
    action = "skip"

    [[collect.rule]]
    name = "statistics"
    command = "Statistics"
    action = "skip"

    [[collect.rule]]
    name = "batch reads"
    account = "batch"
    class = ["read"]
    database = "shop"
    action = "sample"
    one_in = 10

    [[collect.rule]]
    name = "masked"
    account = "masked"
    sql = "literals-masked"

    [[collect.rule]]
    name = "shapes"
    account = "shapes"
    sql = "fingerprint"

    [[collect.rule]]
    name = "nothing"
    account = "nothing"
    sql = "none"
"#;

/// Runs a script as `user`, who has no password.
fn run(server: &DatabaseServer, user: &str, script: &str) -> anyhow::Result<String> {
    server.sql(user, "", "shop", script, Via::Tcp)
}

fn pings(server: &DatabaseServer, number: u64) {
    let mut packets = Packets::connect(server, "monitor");
    for ping in 1..=number {
        packets.ping();
        if ping % PINGS_PER_QUERY == 0 {
            packets.run(&format!("DO 'after {ping} pings'"));
        }
    }
}

fn write_rules(path: &Path, rules: &str) {
    use std::os::unix::fs::PermissionsExt as _;

    std::fs::write(path, rules).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

async fn coverage(api: &Api, server: &DatabaseServer) -> anyhow::Result<Option<Value>> {
    let coverage = api.get("/api/v1/coverage", &[("from", "-1h")]).await?;
    let instances = coverage["instances"].as_array().cloned().unwrap_or_default();
    Ok(instances.into_iter().find(|instance| instance["server_port"] == server.port()))
}

/// Waits until so many were left out by each rule; the answer is the server's coverage.
async fn filtered(api: &Api, server: &DatabaseServer, expected: &[(&str, u64)]) -> Value {
    let expected: BTreeMap<_, _> = expected.iter().copied().collect();
    let what = format!("{expected:?} are left out");
    let coverage = eventually(&what, || async {
        let found = coverage(api, server).await?.unwrap_or_default();
        let is_so = expected.iter().all(|(rule, events)| found["filtered_by"][rule] == *events);
        if is_so { Ok(Some(found)) } else { anyhow::bail!("{found}") }
    })
    .await;
    let number = |name: &str| coverage[name].as_u64().unwrap();
    assert_eq!(number("seen"), number("stored") + number("filtered"), "{coverage}");
    assert_eq!(coverage["lost"], serde_json::json!({}), "{coverage}");
    let by: u64 = coverage["filtered_by"].as_object().unwrap().values().filter_map(Value::as_u64).sum();
    assert_eq!(by, number("filtered"), "{coverage}");
    coverage
}

/// All events of `user` that are the command of this name.
async fn commands(api: &Api, user: &str, name: &str) -> anyhow::Result<Vec<Value>> {
    api.all_events(&[("user", user), ("command", name), ("from", "-1h")]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_rules_leave_out_is_counted_to_the_last() {
    let server = MariaDb::start().unwrap();
    prepare(&server);
    for account in ["monitor", "batch", "masked", "shapes", "nothing"] {
        root(
            &server,
            &format!("CREATE USER '{account}'@'127.0.0.1'; GRANT ALL ON shop.* TO '{account}'@'127.0.0.1'"),
        );
    }
    let directory = tempfile::tempdir().unwrap();
    let (data, rules) = (directory.path().join("data"), directory.path().join("whence.toml"));
    write_rules(&rules, RULES);
    let config = format!("--config={}", rules.display());
    let whence = Whence::start(&data, &[&config]).unwrap();
    let api = Api::new(&whence).unwrap();

    std::thread::scope(|scope| {
        let flood = scope.spawn(|| pings(&server, PINGS));
        let reads = scope.spawn(|| {
            let reads = (0..READS).map(|read| format!("SELECT {read} FROM orders LIMIT 1;\n"));
            let script = reads.collect::<Vec<_>>().concat();
            run(&server, "batch", &script).unwrap();
            let mut packets = Packets::connect(&server, "batch");
            (0..READS).for_each(|_| packets.statistics());
        });
        // Once with what the kernel knows, once more with what the one before left in it.
        whence.kill_part("collector").unwrap();
        whence.kill_part("collector").unwrap();
        flood.join().unwrap();
        reads.join().unwrap();
    });
    texts(&api, &server).await;

    let queries = PINGS / PINGS_PER_QUERY;
    let what = format!("{queries} queries between the pings");
    eventually(&what, || async {
        let found = commands(&api, "monitor", "Query").await?.len() as u64;
        if found == queries { Ok(Some(())) } else { anyhow::bail!("{found}") }
    })
    .await;
    let by_rule = [("monitor pings", PINGS), ("statistics", READS)];
    let all = filtered(&api, &server, &by_rule).await;
    assert_eq!(commands(&api, "monitor", "Ping").await.unwrap(), Vec::<Value>::new());
    // Those that were kept are marked, and make up the whole with those that were not.
    let mut sample = commands(&api, "batch", "Query").await.unwrap();
    // The command-line client asks things of its own.
    sample.retain(|event| event["sampled_one_in"] != Value::Null);
    assert!(!sample.is_empty() && sample.iter().all(|event| event["sampled_one_in"] == 10), "{sample:?}");
    let left_out = all["filtered_by"]["batch reads"].as_u64().unwrap();
    assert_eq!(left_out + sample.len() as u64, READS);
    let answer = api.get("/api/v1/events", &[("user", "monitor"), ("from", "-1h")]).await.unwrap();
    assert!(answer["coverage"].to_string().contains("left out by rule"), "{}", answer["coverage"]);

    // Other rules from here on: what the old ones left out stays under their names.
    write_rules(&rules, &RULES.replace("monitor pings", "quiet").replace("Statistics", "Field_list"));
    whence.kill_part("collector").unwrap();
    let mut sent = PINGS;
    while coverage(&api, &server).await.unwrap().unwrap()["filtered_by"]["quiet"].is_null() {
        pings(&server, 1);
        sent += 1;
        assert!(sent < PINGS + 10_000, "the new rules do not hold");
    }
    eventually("every ping is counted under one name or the other", || async {
        let by_rule = coverage(&api, &server).await?.unwrap_or_default()["filtered_by"].clone();
        let total = by_rule["monitor pings"].as_u64().unwrap_or(0) + by_rule["quiet"].as_u64().unwrap_or(0);
        if total == sent { Ok(Some(())) } else { anyhow::bail!("{sent} sent, {by_rule}") }
    })
    .await;
    Packets::connect(&server, "batch").statistics();
    eventually("a Statistics that no rule is about any more", || async {
        Ok(commands(&api, "batch", "Statistics").await?.first().cloned())
    })
    .await;
    filtered(&api, &server, &[("statistics", READS), ("batch reads", left_out)]).await;
    assert!(whence.stop().unwrap().success());
}

async fn texts(api: &Api, server: &DatabaseServer) {
    let sql = "SELECT customer FROM orders WHERE customer = 'Li' OR id = 4711";
    for account in ["masked", "shapes", "nothing"] {
        run(server, account, sql).unwrap();
        run(server, account, "SELECT 'secret' FROM nowhere").unwrap_err();
    }
    for (account, text, has_fingerprint) in [
        ("masked", Some("SELECT customer FROM orders WHERE customer = ? OR id = ?"), true),
        ("shapes", None, true),
        ("nothing", None, false),
    ] {
        let good = [("user", account), ("command", "Query"), ("result", "ok")];
        let event = api.wait_for_event(&good).await;
        assert_eq!(event["sql_text"].as_str(), text, "{event}");
        assert_eq!(event["sql_original_bytes"].as_u64(), text.map(|_| sql.len() as u64), "{event}");
        assert_eq!(event["fingerprint"].is_string(), has_fingerprint, "{event}");
        assert_eq!(event["statement_class"], "read", "{event}");
        assert_eq!(event["tables"], serde_json::json!(["orders"]), "{event}");
        let bad = api.wait_for_event(&[("user", account), ("command", "Query"), ("result", "error")]).await;
        let message = bad["error_message"].as_str();
        assert_eq!(message, text.map(|_| "Table '***' doesn't exist"), "{bad}");
    }
}
