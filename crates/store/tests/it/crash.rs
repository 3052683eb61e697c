//! What was confirmed survives the death of the engine.

use std::time::{Duration, Instant};

use whence_engine::{Engine, EngineOptions};
use whence_store::{ConnectOptions, Store, Written};
use whence_testkit::clickhouse::engine_program;

use crate::events::{COLLECTOR, NOON, batch, query};

#[tokio::test(flavor = "multi_thread")]
async fn a_confirmed_batch_survives_the_death_of_the_engine() {
    let directory = tempfile::tempdir().unwrap();
    let pid_file = directory.path().join("engine.pid");
    let options = EngineOptions {
        directory: directory.path().into(),
        http_port: None,
        child: vec![engine_program().unwrap().display().to_string()],
        pid_file: Some(pid_file.clone()),
    };
    let engine = Engine::start(options).await.unwrap();
    let connect = |user: &str| {
        Store::connect(ConnectOptions {
            url: engine.url(),
            user: user.into(),
            password: engine.password(user).unwrap(),
            database: "whence".into(),
        })
    };
    connect("whence_migrate").migrate().await.unwrap();
    let store = connect("whence_ingest");
    let first = batch(1, &[query(1, NOON)], &[]);
    store.write_batch(&first.manifest, &first.events, &first.coverage).await.unwrap();

    let pid: i32 = std::fs::read_to_string(&pid_file).unwrap().trim().parse().unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();

    let deadline = Instant::now() + Duration::from_secs(30);
    let written = loop {
        match store.write_batch(&first.manifest, &first.events, &first.coverage).await {
            Ok(written) => break written,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(written, Written::Before);
    assert_eq!(store.last_batch(COLLECTOR).await.unwrap(), Some(first.manifest));
    engine.stop().await;
}
