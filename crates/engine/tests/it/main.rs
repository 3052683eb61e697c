//! The real engine: it starts, keeps what it was given through a kill, and ends.

use std::path::Path;
use std::time::{Duration, Instant};

use secrecy::ExposeSecret;
use whence_engine::{Engine, EngineOptions};

fn options(directory: &Path) -> EngineOptions {
    EngineOptions {
        directory: directory.into(),
        http_port: None,
        child: vec![env!("CARGO_BIN_EXE_whence-engine").into()],
        pid_file: Some(directory.join("engine.pid")),
    }
}

async fn query(engine: &Engine, account: &str, sql: &str) -> Result<String, String> {
    let password = engine.password(account).unwrap();
    let request = reqwest::Client::new()
        .post(engine.url())
        .basic_auth(account, Some(password.expose_secret()));
    let answer = request
        .body(sql.to_owned())
        .send()
        .await
        .map_err(|error| error.to_string())?;
    let good = answer.status().is_success();
    let text = answer.text().await.map_err(|error| error.to_string())?;
    if good { Ok(text) } else { Err(text) }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_survive_a_kill_and_a_second_start() {
    let directory = tempfile::tempdir().unwrap();
    let engine = Engine::start(options(directory.path())).await.unwrap();
    for sql in [
        "CREATE DATABASE whence",
        "CREATE TABLE whence.t (n UInt64) ENGINE = MergeTree ORDER BY n",
        "INSERT INTO whence.t SELECT number FROM numbers(1000)",
    ] {
        query(&engine, "whence_migrate", sql).await.unwrap();
    }

    let pid: i32 = std::fs::read_to_string(directory.path().join("engine.pid"))
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        match query(&engine, "whence_web", "SELECT count() FROM whence.t").await {
            Ok(count) => break assert_eq!(count.trim(), "1000"),
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    engine.stop().await;

    let engine = Engine::start(options(directory.path())).await.unwrap();
    assert_eq!(
        query(&engine, "auditor", "SELECT count() FROM whence.t")
            .await
            .unwrap()
            .trim(),
        "1000"
    );
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_can_do_what_it_needs_and_no_more() {
    let directory = tempfile::tempdir().unwrap();
    let engine = Engine::start(options(directory.path())).await.unwrap();
    query(&engine, "whence_migrate", "CREATE DATABASE whence")
        .await
        .unwrap();
    query(
        &engine,
        "whence_migrate",
        "CREATE TABLE whence.t (n UInt64) ENGINE = MergeTree ORDER BY n",
    )
    .await
    .unwrap();
    for (account, sql) in [
        ("auditor", "INSERT INTO whence.t VALUES (1)"),
        ("whence_web", "INSERT INTO whence.t VALUES (1)"),
        ("whence_ingest", "DROP TABLE whence.t"),
        ("auditor", "SELECT * FROM file('/etc/passwd', 'LineAsString')"),
        (
            "whence_migrate",
            "SELECT * FROM file('/etc/passwd', 'LineAsString')",
        ),
    ] {
        let refused = query(&engine, account, sql).await;
        assert!(
            refused.as_ref().is_err_and(|text| text.contains("ACCESS_DENIED")),
            "{account}: {sql}: {refused:?}"
        );
    }
    engine.stop().await;
}
