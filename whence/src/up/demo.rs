//! A throwaway MariaDB on loopback with some accounts and live traffic, for a person without a database.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use rand::Rng;
use rand::seq::SliceRandom;
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

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
    socket: PathBuf,
    port: u16,
}

impl Demo {
    /// Starts the server on `port`, with its data in `directory`, made when it is not there.
    pub async fn start(directory: &Path, port: u16) -> anyhow::Result<Self> {
        let data = directory.join("mysql");
        if !data.exists() {
            std::fs::create_dir_all(directory)?;
            println!("demo: making a MariaDB data directory");
            install(&data).await?;
        }
        // A socket's path may have 107 bytes only, so it cannot lie in the data directory.
        let socket = std::env::temp_dir().join(format!("whence-demo-{}.sock", std::process::id()));
        let log = std::fs::File::create(directory.join("mariadbd.log"))?;
        // It ends with us, however we end. (`up` runs on this process's first thread, which is the one that counts.)
        let server = Command::new("setpriv")
            .args(["--pdeathsig", "TERM", "--"])
            .arg(program("mariadbd")?)
            .arg("--no-defaults")
            .arg(format!("--datadir={}", data.display()))
            .arg(format!("--socket={}", socket.display()))
            .args(["--bind-address=127.0.0.1", "--skip-log-bin", "--innodb-buffer-pool-size=32M"])
            .arg(format!("--port={port}"))
            .args(as_root())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .context("cannot start the demo's mariadbd")?;
        let demo = Self { server, client: Client { socket, port } };
        demo.prepare(&directory.join("mariadbd.log")).await?;
        println!(
            "demo: MariaDB on 127.0.0.1:{port}, accounts shop_app, report and hr_admin, password {PASSWORD}"
        );
        Ok(demo)
    }

    async fn prepare(&self, log: &Path) -> anyhow::Result<()> {
        let prepared = tokio::time::timeout(START_DEADLINE, async {
            while !self.client.run_as_owner(SCHEMA).await {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        });
        prepared.await.with_context(|| format!("the demo's MariaDB did not start; see {}", log.display()))
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
            let _ =
                nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGTERM);
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
        let mut command = Self::command();
        command.arg(format!("--user={account}")).arg(format!("--password={password}")).arg(database);
        if rand::thread_rng().gen_ratio(1, 3) {
            command.arg(format!("--socket={}", self.socket.display()));
        } else {
            command.args(["--host=127.0.0.1", "--protocol=tcp"]).arg(format!("--port={}", self.port));
        }
        run(command, &statements.join(";")).await;
    }

    async fn run_as_owner(&self, sql: &str) -> bool {
        let mut command = Self::command();
        command.arg("--user=root").arg(format!("--socket={}", self.socket.display()));
        run(command, sql).await
    }

    fn command() -> Command {
        let mut command = Command::new("mariadb");
        command.args(["--no-defaults", "--force", "--batch"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
        command
    }
}

async fn run(mut command: Command, sql: &str) -> bool {
    command.arg(format!("--execute={sql}"));
    command.status().await.is_ok_and(|status| status.success())
}

async fn install(data: &Path) -> anyhow::Result<()> {
    let output = Command::new("mariadb-install-db")
        .arg("--no-defaults")
        .arg(format!("--datadir={}", data.display()))
        .args(["--auth-root-authentication-method=normal", "--skip-test-db"])
        .args(as_root())
        .stdin(Stdio::null())
        .output()
        .await
        .context("the demo needs MariaDB: apt-get install mariadb-server-core mariadb-client-core")?;
    if !output.status.success() {
        bail!("mariadb-install-db failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

/// mariadbd refuses to run as root unless told so.
fn as_root() -> Option<&'static str> {
    nix::unistd::geteuid().is_root().then_some("--user=root")
}

/// Debian keeps servers in a directory that is on root's search path only.
fn program(name: &str) -> anyhow::Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    let found = directories.map(|directory| directory.join(name)).find(|path| path.is_file());
    found.context("the demo needs MariaDB: apt-get install mariadb-server-core mariadb-client-core")
}
