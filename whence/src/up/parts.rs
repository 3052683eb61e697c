//! The parts of `whence up`: what each is started with.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::time::Duration;

use anyhow::Context;

use super::Databases;
use super::data::DataDirectory;
use super::supervise::{Part, Supervised};
use crate::database::ClickHouse;

const POLL: Duration = Duration::from_millis(50);

/// The address to serve on: a free port in the place of 0. An error when it is taken.
pub fn free_address(wanted: SocketAddr) -> anyhow::Result<SocketAddr> {
    let bound = TcpListener::bind(wanted).and_then(|socket| socket.local_addr());
    bound.with_context(|| format!("cannot serve on {wanted}; choose another address with --listen"))
}

/// Starts them into `running`, in the order in which they are to be stopped. Whether the collector is among them:
/// without root it cannot be.
pub fn start(
    data: &DataDirectory,
    listen: SocketAddr,
    databases: &Databases,
    running: &mut Vec<Supervised>,
) -> anyhow::Result<bool> {
    let part = |name: &'static str, arguments: Vec<String>| Part {
        name,
        arguments: [vec![name.to_owned()], arguments].concat(),
        log: data.path("log").join(format!("{}.log", log_name(name))),
        pid_file: data.path("run").join(format!("{}.pid", log_name(name))),
    };
    let ingest_port = data.port("ingest")?;
    let token = data.secret("enroll-token")?;
    let captures = nix::unistd::geteuid().is_root();
    if captures {
        let arguments = vec![
            format!("--ingest-url=http://127.0.0.1:{ingest_port}"),
            flag("enroll-token-file", &token),
            flag("spool-dir", &data.path("spool")),
            flag("pin-dir", &data.pin_directory()),
            flag("status-file", &data.path("run/collector.json")),
        ];
        running.push(Supervised::start(part("collect", arguments)));
    }
    let mut arguments = vec![format!("--listen=127.0.0.1:{ingest_port}"), flag("enroll-token-file", &token)];
    arguments.extend(clickhouse(&databases.ingest));
    running.push(Supervised::start(part("ingest", arguments)));
    let mut arguments = vec![format!("--listen={listen}")];
    arguments.extend(clickhouse(&databases.web));
    running.push(Supervised::start(part("web", arguments)));
    Ok(captures)
}

/// Waits until the pages can be used.
pub async fn wait_until_ready(listen: SocketAddr, deadline: Duration) -> anyhow::Result<()> {
    let url = format!("http://{}/ready", reachable(listen));
    let ready = tokio::time::timeout(deadline, async {
        while !reqwest::get(&url).await.is_ok_and(|answer| answer.status().is_success()) {
            tokio::time::sleep(POLL).await;
        }
    });
    ready.await.context("the pages cannot be used; the logs in the data directory say why")
}

/// An address to reach a server by that listens on this one.
fn reachable(listen: SocketAddr) -> SocketAddr {
    match listen {
        SocketAddr::V4(address) if address.ip().is_unspecified() => ([127, 0, 0, 1], address.port()).into(),
        SocketAddr::V6(address) if address.ip().is_unspecified() => {
            (std::net::Ipv6Addr::LOCALHOST, address.port()).into()
        }
        other => other,
    }
}

fn log_name(part: &str) -> &str {
    if part == "collect" { "collector" } else { part }
}

fn flag(name: &str, path: &Path) -> String {
    format!("--{name}={}", path.display())
}

fn clickhouse(database: &ClickHouse) -> Vec<String> {
    let mut flags = vec![
        format!("--clickhouse-url={}", database.clickhouse_url),
        format!("--clickhouse-user={}", database.clickhouse_user),
        format!("--clickhouse-database={}", database.clickhouse_database),
    ];
    flags.extend(
        database.clickhouse_password_file.as_deref().map(|path| flag("clickhouse-password-file", path)),
    );
    flags
}
