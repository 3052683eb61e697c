//! A throwaway MariaDB on loopback with some accounts and live traffic, for a person without a database.
//!
//! Started by root it runs as an unprivileged user, and only we are let in as its owner: nobody on this machine can do
//! more through it than without it.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::{Pid, User, geteuid};
use rand::Rng;
use rand::seq::SliceRandom;
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::say;
use super::supervise::open_log;

const START_DEADLINE: Duration = Duration::from_mins(1);
const STOP_DEADLINE: Duration = Duration::from_secs(10);
/// Password of every demo account; the server listens on loopback only.
const PASSWORD: &str = "demo";

/// Accounts, tables and some rows.
const SCHEMA: &str = "
CREATE DATABASE IF NOT EXISTS shop; CREATE DATABASE IF NOT EXISTS payroll;
CREATE TABLE IF NOT EXISTS shop.orders (id INT AUTO_INCREMENT PRIMARY KEY, customer VARCHAR(40), amount DECIMAL(9,2));
CREATE TABLE IF NOT EXISTS shop.customers (id INT AUTO_INCREMENT PRIMARY KEY, name VARCHAR(40), card CHAR(16));
CREATE TABLE IF NOT EXISTS payroll.salaries (person VARCHAR(40) PRIMARY KEY, amount DECIMAL(9,2));
REPLACE INTO payroll.salaries VALUES ('Wei', 5100), ('Ana', 5300), ('Björn', 4900);
INSERT INTO shop.customers (name, card) VALUES ('Li', '4000000000000001'), ('Zoë', '4000000000000002');
CREATE OR REPLACE USER shop_app@'%' IDENTIFIED BY 'demo'; GRANT ALL ON shop.* TO shop_app@'%';
CREATE OR REPLACE USER report@'%' IDENTIFIED BY 'demo'; GRANT SELECT ON *.* TO report@'%';
CREATE OR REPLACE USER hr_admin@'%' IDENTIFIED BY 'demo'; GRANT ALL ON payroll.* TO hr_admin@'%';
";

/// What each account does: account, database, statements of one visit.
const VISITS: [(&str, &str, &[&str]); 6] = [
    (
        "shop_app",
        "shop",
        &["INSERT INTO orders (customer, amount) VALUES ('Li', 12.90)", "SELECT COUNT(*) FROM orders"],
    ),
    (
        "shop_app",
        "shop",
        &["SELECT name, card FROM customers WHERE id = 1", "UPDATE orders SET amount = 10 WHERE id = 1"],
    ),
    ("report", "shop", &["SELECT customer, SUM(amount) FROM orders GROUP BY customer", "SELECT SLEEP(0.3)"]),
    ("report", "payroll", &["SELECT person, amount FROM salaries ORDER BY amount DESC"]),
    (
        "hr_admin",
        "payroll",
        &["UPDATE salaries SET amount = amount + 10 WHERE person = 'Ana'", "SELECT * FROM shop.customers"],
    ),
    (
        "shop_app",
        "shop",
        &["DELETE FROM orders WHERE id % 97 = 0", "SELECT 'orders left', COUNT(*) FROM orders"],
    ),
];

/// The running demo server.
pub struct Demo {
    server: Child,
    client: Client,
}

#[derive(Clone)]
struct Client {
    /// Where the socket lies.
    data: PathBuf,
    socket: String,
    port: u16,
    /// The account that may do everything: the user that we run as.
    owner: String,
}

impl Demo {
    /// Starts the server on `port`, with its data in `directory`, which [`remove`] removes.
    pub async fn start(directory: &Path, log: &Path, port: u16) -> anyhow::Result<Self> {
        let owner = User::from_uid(geteuid())?.context("the user that this runs as has no name")?.name;
        let runs_as = unprivileged_user()?;
        let data = directory.join("mysql");
        // The only directory whose files SQL may name; nothing is in it.
        let files = directory.join("files");
        for path in [directory, &files] {
            // The server's user must be able to pass.
            DirBuilder::new().recursive(true).mode(0o711).create(path)?;
        }
        if !data.exists() {
            say(format_args!("demo: making a MariaDB data directory, {}", data.display()));
            install(&data, &owner, runs_as.as_ref()).await?;
        }
        // In the data directory, and called by its name alone: a socket's path may have 107 bytes only.
        let socket = format!("up-{}.sock", std::process::id());
        let log_file = open_log(log)?;
        // It ends with us, however we end. (`up` runs on this process's first thread, which is the one that counts.)
        let server = Command::new("setpriv")
            .args(["--pdeathsig", "TERM", "--no-new-privs"])
            .args(runs_as.iter().flat_map(|user| {
                [format!("--reuid={}", user.uid), format!("--regid={}", user.gid), "--clear-groups".into()]
            }))
            .arg("--")
            .arg(program("mariadbd")?)
            .arg("--no-defaults")
            .arg(format!("--datadir={}", data.display()))
            .arg(format!("--socket={socket}"))
            .arg(format!("--secure-file-priv={}", files.display()))
            .args(["--local-infile=0", "--skip-symbolic-links"])
            .args(["--bind-address=127.0.0.1", "--skip-log-bin", "--innodb-buffer-pool-size=32M"])
            .arg(format!("--port={port}"))
            .stdin(Stdio::null())
            .stdout(log_file.try_clone()?)
            .stderr(log_file)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .context("cannot start the demo's mariadbd")?;
        let mut demo = Self { server, client: Client { data, socket, port, owner } };
        demo.prepare(log).await?;
        say(format_args!(
            "demo: MariaDB on 127.0.0.1:{port}, accounts shop_app, report and hr_admin, password {PASSWORD}"
        ));
        Ok(demo)
    }

    async fn prepare(&mut self, log: &Path) -> anyhow::Result<()> {
        let prepared = tokio::time::timeout(START_DEADLINE, async {
            while !self.client.run_as_owner(SCHEMA).await {
                if let Some(status) = self.server.try_wait()? {
                    bail!("mariadbd ended with {status}");
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            Ok(())
        });
        let prepared = prepared.await.unwrap_or_else(|late| Err(late.into()));
        prepared.with_context(|| format!("the demo's MariaDB did not start; see {}", log.display()))
    }

    /// Visits of the accounts, good and failing, until `shutdown`.
    pub fn traffic(&self, shutdown: CancellationToken) -> JoinHandle<()> {
        let client = self.client.clone();
        tokio::spawn(async move {
            loop {
                let pause = Duration::from_millis(rand::thread_rng().gen_range(300..1500));
                if tokio::time::timeout(pause, shutdown.cancelled()).await.is_ok() {
                    return;
                }
                client.visit().await;
            }
        })
    }

    /// Stops the server.
    pub async fn stop(mut self) {
        if let Some(pid) = self.server.id().and_then(|id| i32::try_from(id).ok()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        if tokio::time::timeout(STOP_DEADLINE, self.server.wait()).await.is_err() {
            // Dropping it kills it; the data is a throwaway.
            tracing::warn!("the demo's MariaDB did not stop in time");
        }
    }
}

impl Client {
    async fn visit(&self) {
        let (account, database, statements) = {
            let mut random = rand::thread_rng();
            let Some(visit) = VISITS.choose(&mut random) else { return };
            *visit
        };
        // One visit in ten has the wrong password.
        let password = if rand::thread_rng().gen_ratio(1, 10) { "wrong" } else { PASSWORD };
        let mut command = self.command();
        command.arg(format!("--user={account}")).arg(format!("--password={password}")).arg(database);
        if rand::thread_rng().gen_ratio(1, 3) {
            command.arg(format!("--socket={}", self.socket));
        } else {
            command.args(["--host=127.0.0.1", "--protocol=tcp"]).arg(format!("--port={}", self.port));
        }
        run(command, &statements.join(";")).await;
    }

    async fn run_as_owner(&self, sql: &str) -> bool {
        let mut command = self.command();
        command.arg(format!("--user={}", self.owner)).arg(format!("--socket={}", self.socket));
        run(command, sql).await
    }

    fn command(&self) -> Command {
        let mut command = Command::new("mariadb");
        // No server may ask for a file of ours.
        command.current_dir(&self.data).args(["--no-defaults", "--local-infile=0", "--force", "--batch"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
        command
    }
}

async fn run(mut command: Command, sql: &str) -> bool {
    command.arg(format!("--execute={sql}"));
    command.status().await.is_ok_and(|status| status.success())
}

/// Removes what the demo kept.
pub fn remove(directory: &Path) {
    if let Err(error) = std::fs::remove_dir_all(directory) {
        tracing::warn!(%error, directory = %directory.display(), "cannot remove the demo's data");
    }
}

/// Makes the data directory whole or not at all. Only the system's user `owner` is let in as owner, over the socket.
async fn install(data: &Path, owner: &str, runs_as: Option<&User>) -> anyhow::Result<()> {
    let partial = data.with_extension("partial");
    if partial.exists() {
        std::fs::remove_dir_all(&partial)?;
    }
    let installer = Command::new("mariadb-install-db")
        .arg("--no-defaults")
        .arg(format!("--datadir={}", partial.display()))
        .args(["--auth-root-authentication-method=socket", "--skip-test-db"])
        .arg(format!("--auth-root-socket-user={owner}"))
        .args(runs_as.map(|user| format!("--user={}", user.name)))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .context("the demo needs MariaDB: apt-get install mariadb-server-core mariadb-client-core")?;
    let _group = Group(installer.id());
    let output = installer.wait_with_output().await?;
    if !output.status.success() {
        bail!("mariadb-install-db failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(std::fs::rename(&partial, data)?)
}

/// A process group whose processes end with this: the installer is a script with children of its own.
struct Group(Option<u32>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0.and_then(|id| i32::try_from(id).ok()) {
            // None of them is left, usually.
            let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
        }
    }
}

/// Whom the server runs as when we are root; None when we are not, and it runs as we do.
fn unprivileged_user() -> anyhow::Result<Option<User>> {
    if !geteuid().is_root() {
        return Ok(None);
    }
    for name in ["mysql", "nobody"] {
        if let Some(user) = User::from_name(name)? {
            return Ok(Some(user));
        }
    }
    bail!("the demo needs a user called mysql or nobody, for MariaDB to run as")
}

/// Debian keeps servers in a directory that is on root's search path only.
fn program(name: &str) -> anyhow::Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    let found = directories.map(|directory| directory.join(name)).find(|path| path.is_file());
    found.context("the demo needs MariaDB: apt-get install mariadb-server-core mariadb-client-core")
}
