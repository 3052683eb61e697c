//! The parts of `whence up`: what each is started with.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;

use super::data::DataDirectory;
use super::say;
use super::supervise::{Part, Supervised};
use super::{Databases, Keep};
use crate::database::ClickHouse;

const POLL: Duration = Duration::from_millis(50);
const BIND_DEADLINE: Duration = Duration::from_secs(10);

/// The address to serve on: a free port in the place of 0. An error when it is taken, and stays so for a while: pages
/// whose supervisor was killed still drain.
pub async fn free_address(wanted: SocketAddr) -> anyhow::Result<SocketAddr> {
    let deadline = Instant::now() + BIND_DEADLINE;
    let mut told = false;
    loop {
        match TcpListener::bind(wanted).and_then(|socket| socket.local_addr()) {
            Err(error) if error.kind() == ErrorKind::AddrInUse && Instant::now() < deadline => {
                if !told {
                    say(format_args!("{wanted} is in use, waiting for it"));
                    told = true;
                }
                tokio::time::sleep(POLL).await;
            }
            bound => {
                return bound.with_context(|| {
                    format!("cannot serve on {wanted}; choose another address with --listen")
                });
            }
        }
    }
}

/// Starts them into `running`, in the order in which they are to be stopped. Whether the collector is among them:
/// without root it cannot be. `config`: their configuration file; what they are started with here wins over it.
pub fn start(
    data: &DataDirectory,
    listen: SocketAddr,
    databases: &Databases,
    keep: &Keep,
    config: Option<&Path>,
    running: &mut Vec<Supervised>,
) -> anyhow::Result<bool> {
    let config: Vec<String> = config.map(|path| flag("config", path)).into_iter().collect();
    let part = |name: &'static str, arguments: Vec<String>| Part {
        name,
        arguments: [vec![name.to_owned()], config.clone(), arguments].concat(),
        log: data.path("log").join(format!("{}.log", log_name(name))),
        pid_file: data.path("run").join(format!("{}.pid", log_name(name))),
    };
    let ingest_port = data.port("ingest")?;
    let token = data.secret("enroll-token")?;
    let captures = nix::unistd::geteuid().is_root();
    if captures {
        let status_file = data.path("run/collector.json");
        // It tells of the last time.
        match std::fs::remove_file(&status_file) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        let arguments = vec![
            format!("--ingest-url=http://127.0.0.1:{ingest_port}"),
            flag("enroll-token-file", &token),
            flag("spool-dir", &data.path("spool")),
            flag("pin-dir", &data.pin_directory()),
            flag("status-file", &status_file),
        ];
        running.push(Supervised::start(part("collect", arguments)));
    }
    let mut arguments = vec![
        format!("--listen=127.0.0.1:{ingest_port}"),
        flag("enroll-token-file", &token),
        // Nobody but the collector here sends to it; a certificate is for an ingest that other hosts reach.
        "--no-tls".into(),
    ];
    arguments.extend(clickhouse(&databases.ingest));
    running.push(Supervised::start(part("ingest", arguments)));
    let key = flag("service-key-file", &data.service_key()?);
    let mut arguments = vec![format!("--listen={listen}"), key.clone()];
    arguments.extend(clickhouse(&databases.web));
    running.push(Supervised::start(part("web", arguments)));
    let mut arguments = vec!["--daily".into(), key.clone()];
    arguments.push(match &keep.heads {
        Some(target) => format!("--to={target}"),
        None => flag("to", &data.path("heads.ndjson")),
    });
    arguments.extend(clickhouse(&databases.web));
    running.push(Supervised::start(part("heads", arguments)));
    if let Some(days) = keep.days {
        let mut arguments = vec!["--daily".into(), key, format!("--days={days}")];
        arguments.extend(clickhouse(&databases.migrate));
        running.push(Supervised::start(part("retention", arguments)));
    }
    Ok(captures)
}

/// Waits until the pages can be used.
pub async fn wait_until_ready(listen: SocketAddr, deadline: Duration) -> anyhow::Result<()> {
    let url = format!("http://{}/ready", reachable(listen));
    // A proxy of the environment does not know this machine's loopback.
    let client = reqwest::Client::builder().no_proxy().build()?;
    let ready = tokio::time::timeout(deadline, async {
        while !client.get(&url).send().await.is_ok_and(|answer| answer.status().is_success()) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_that_becomes_free_is_waited_for() -> anyhow::Result<()> {
        let held = TcpListener::bind("127.0.0.1:0")?;
        let wanted = held.local_addr()?;
        let (found, ()) = tokio::join!(free_address(wanted), async { drop(held) });
        assert_eq!(found?, wanted);
        Ok(())
    }
}
