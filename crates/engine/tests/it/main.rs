//! The real engine: it starts, keeps what it was given through a kill, and ends.

#![expect(clippy::unwrap_used, reason = "a test ends at its first surprise")]

use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use secrecy::ExposeSecret;
use whence_engine::{Engine, EngineError, EngineOptions, Library};

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
    let request =
        reqwest::Client::new().post(engine.url()).basic_auth(account, Some(password.expose_secret()));
    let answer = request.body(sql.to_owned()).send().await.map_err(|error| error.to_string())?;
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

    let pid: i32 =
        std::fs::read_to_string(directory.path().join("engine.pid")).unwrap().trim().parse().unwrap();
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
    assert_eq!(query(&engine, "auditor", "SELECT count() FROM whence.t").await.unwrap().trim(), "1000");
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_can_do_what_it_needs_and_no_more() {
    let directory = tempfile::tempdir().unwrap();
    let engine = Engine::start(options(directory.path())).await.unwrap();
    query(&engine, "whence_migrate", "CREATE DATABASE whence").await.unwrap();
    query(&engine, "whence_migrate", "CREATE TABLE whence.t (n UInt64) ENGINE = MergeTree ORDER BY n")
        .await
        .unwrap();
    for (account, sql) in [
        ("auditor", "INSERT INTO whence.t VALUES (1)"),
        ("whence_web", "INSERT INTO whence.t VALUES (1)"),
        ("whence_ingest", "DROP TABLE whence.t"),
        ("auditor", "SELECT * FROM file('/etc/passwd', 'LineAsString')"),
        ("whence_migrate", "SELECT * FROM file('/etc/passwd', 'LineAsString')"),
    ] {
        let refused = query(&engine, account, sql).await;
        assert!(
            refused.as_ref().is_err_and(|text| text.contains("ACCESS_DENIED")),
            "{account}: {sql}: {refused:?}"
        );
    }
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_supervisor_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let engine = Engine::start(options(directory.path())).await.unwrap();
    let second = Engine::start(options(directory.path())).await;
    assert!(matches!(second, Err(EngineError::InUse { .. })));
    assert_eq!(query(&engine, "whence_web", "SELECT 1").await.unwrap().trim(), "1");
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_stored_is_for_nobody_else() {
    use std::os::unix::fs::PermissionsExt as _;

    let scratch = tempfile::tempdir().unwrap();
    let directory = scratch.path().join("new/engine");
    Engine::start(options(&directory)).await.unwrap().stop().await;
    // The engine sets the mode of the file that it keeps its prompt's history in.
    assert!(directory.join("data.history").is_file());
    for path in [directory.join("data"), directory.join("passwords"), directory] {
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o700, "{}", path.display());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_is_given_up_leaves_no_engine() {
    let directory = tempfile::tempdir().unwrap();
    let pid_file = directory.path().join("engine.pid");
    let started = async {
        while !pid_file.exists() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::select! {
        engine = Engine::start(options(directory.path())) => drop(engine),
        () = started => {}
    }
    let deadline = Instant::now() + Duration::from_secs(30);
    while pid_file.exists() {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Engine::start(options(directory.path())).await.unwrap().stop().await;
}

/// A supervisor that was killed leaves an engine whose terminal has hung up.
#[tokio::test(flavor = "multi_thread")]
async fn the_engine_of_a_killed_supervisor_makes_room() {
    let directory = tempfile::tempdir().unwrap();
    Engine::start(options(directory.path())).await.unwrap().stop().await;

    let terminal = nix::pty::openpty(None, None).unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let path = |name: &str| directory.path().canonicalize().unwrap().join(name).display().to_string();
    let mut orphan = std::process::Command::new(env!("CARGO_BIN_EXE_whence-engine"))
        .arg(format!("--library={}", Library::find_or_download().unwrap().path.display()))
        .arg(format!("--config-file={}", path("config.xml")))
        .arg(format!("--path={}", path("data")))
        .arg(format!("--http-port={port}"))
        .stdin(terminal.slave)
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    while reqwest::get(format!("http://127.0.0.1:{port}/ping")).await.is_err() {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    drop(terminal.master);
    let engine = Engine::start(options(directory.path())).await.unwrap();
    assert_eq!(query(&engine, "whence_web", "SELECT 1").await.unwrap().trim(), "1");
    assert!(orphan.try_wait().unwrap().is_some());
    engine.stop().await;
}

/// Run without a terminal, the engine aborts here (ClickHouse issue 115666).
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_resets_its_connection_harms_no_one() {
    let directory = tempfile::tempdir().unwrap();
    let engine = Engine::start(options(directory.path())).await.unwrap();
    let pid = std::fs::read_to_string(directory.path().join("engine.pid")).unwrap();
    let address = engine.url().trim_start_matches("http://").to_owned();
    for request in [
        "POST /?query=INSERT HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nhalf",
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffff\r\nhalf",
        "GET /?query=SELECT%20sleep(1) HTTP/1.1\r\n",
        "\0\u{1}nonsense\r\n\r\n",
    ] {
        for _ in 0..10 {
            let mut client = std::net::TcpStream::connect(&address).unwrap();
            client.write_all(request.as_bytes()).unwrap();
            let linger = nix::libc::linger { l_onoff: 1, l_linger: 0 };
            nix::sys::socket::setsockopt(&client, nix::sys::socket::sockopt::Linger, &linger).unwrap();
        }
    }
    assert_eq!(query(&engine, "whence_web", "SELECT 1").await.unwrap().trim(), "1");
    assert_eq!(std::fs::read_to_string(directory.path().join("engine.pid")).unwrap(), pid);
    engine.stop().await;
}
