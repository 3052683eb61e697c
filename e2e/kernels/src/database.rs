//! MariaDB in the virtual machine, and what is done to it.

use std::fs::{self, File};
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;

use anyhow::{Context as _, Result, anyhow, ensure};

use crate::report::{Deed, Report};
use crate::wait;

const LOG: &str = "/tmp/mariadb.log";
const SOCKET: &str = "/tmp/mariadb.sock";
const APPLICATION: &str = "app";
const PASSWORD: &str = "opensesame";
/// Statements of one session of the load.
const STATEMENTS: u32 = 200;
/// Sessions that the load has finished when it counts as under way.
const UNDER_WAY: u32 = 2;

/// Starts it; it ends with the machine.
pub fn start() -> Result<()> {
    let log = File::create(LOG)?;
    let mut server = Command::new("/usr/sbin/mariadbd")
        .args(["--no-defaults", "--user=root", "--datadir=/data", "--bind-address=127.0.0.1"])
        .args(["--port=3306", &format!("--socket={SOCKET}"), "--pid-file=/tmp/mariadb.pid"])
        .args([
            "--skip-log-bin",
            "--skip-name-resolve",
            "--performance-schema=OFF",
            "--innodb-buffer-pool-size=16M",
        ])
        .args(["--innodb-flush-method=fsync", "--innodb-use-native-aio=0", "--tmpdir=/tmp"])
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .context("cannot run mariadbd")?;
    wait::until("MariaDB takes connections", || {
        let said = fs::read_to_string(LOG)?;
        if let Some(status) = server.try_wait()? {
            return Err(anyhow!("MariaDB ended with {status}: {said}"));
        }
        Ok(said.contains("ready for connections").then_some(()))
    })?;
    Ok(())
}

pub fn make_accounts(report: &Report) -> Result<()> {
    let create = format!("CREATE USER {APPLICATION}@'127.0.0.1' IDENTIFIED BY ");
    let masked = format!("{create}'***'");
    let create = format!("{create}'{PASSWORD}'");
    let grant = format!("GRANT ALL ON shop.* TO {APPLICATION}@'127.0.0.1'");
    let table = "CREATE TABLE shop.customers (id INT, name VARCHAR(40)) CHARACTER SET utf8mb4";
    let ran = client("root", "", true, &["CREATE DATABASE shop", table, &create, &grant])?;
    ensure!(ran.status.success(), "cannot make accounts: {}", String::from_utf8_lossy(&ran.stderr));
    let did = |kind, sql| deed(kind, "root", "localhost", sql, "ok");
    report.did(&did("connect", None))?;
    ["CREATE DATABASE shop", table, &masked, &grant]
        .iter()
        .try_for_each(|sql| report.did(&did("command", Some(sql))))
}

/// Statements that work, prepared ones, one that fails, and a login that is refused.
pub fn ordinary_work(report: &Report) -> Result<()> {
    let statements = [
        ("INSERT INTO shop.customers VALUES (1, 'Ada'), (2, '李')", "ok"),
        ("SELECT name FROM shop.customers WHERE id = 2", "ok"),
        ("PREPARE one FROM 'SELECT name FROM shop.customers WHERE id = ?'", "ok"),
        ("SET @id = 1", "ok"),
        ("EXECUTE one USING @id", "ok"),
        ("SELECT * FROM shop.nothing", "error 1146"),
        ("DELETE FROM shop.customers", "ok"),
    ];
    client(APPLICATION, PASSWORD, false, &statements.map(|(sql, _)| sql))?;
    let did = |kind, sql, result| deed(kind, APPLICATION, "127.0.0.1", sql, result);
    report.did(&did("connect", None, "ok"))?;
    for (sql, result) in statements {
        report.did(&did("command", Some(sql), result))?;
    }
    let refused = client(APPLICATION, "wrong", false, &["SELECT 'never'"])?;
    ensure!(!refused.status.success(), "a wrong password was let in");
    report.did(&did("connect_failed", None, "error 1045"))
}

/// Sessions one after the other, each with its statements, until the load is ended.
pub fn load() -> Load {
    static LOADS: AtomicU32 = AtomicU32::new(0);
    let (sessions, stop) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicBool::new(false)));
    let number = LOADS.fetch_add(1, Ordering::Relaxed);
    let (counter, stopped) = (sessions.clone(), stop.clone());
    let thread = std::thread::spawn(move || {
        while !stopped.load(Ordering::Relaxed) {
            let session = counter.load(Ordering::Relaxed);
            let statements: Vec<String> = statements(number, session).collect();
            let statements: Vec<&str> = statements.iter().map(String::as_str).collect();
            let ran = client(APPLICATION, PASSWORD, false, &statements)?;
            ensure!(ran.status.success(), "load: {}", String::from_utf8_lossy(&ran.stderr));
            counter.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    });
    Load { number, sessions, stop, thread }
}

/// A load that is on.
pub struct Load {
    number: u32,
    /// Those that are finished.
    sessions: Arc<AtomicU32>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<()>>,
}

impl Load {
    pub fn wait_until_under_way(&self) -> Result<()> {
        wait::until("the load gets under way", || {
            ensure!(!self.thread.is_finished(), "the load has ended");
            Ok((self.sessions.load(Ordering::Relaxed) >= UNDER_WAY).then_some(()))
        })
    }

    /// Ends it, and tells what was done.
    pub fn end(self, report: &Report) -> Result<()> {
        ensure!(!self.thread.is_finished(), "the load had ended before the collector was back");
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow!("the load panicked"))??;
        for session in 0..self.sessions.load(Ordering::Relaxed) {
            report.did(&deed("connect", APPLICATION, "127.0.0.1", None, "ok"))?;
            for sql in statements(self.number, session) {
                report.did(&deed("command", APPLICATION, "127.0.0.1", Some(&sql), "ok"))?;
            }
        }
        Ok(())
    }
}

fn statements(load: u32, session: u32) -> impl Iterator<Item = String> {
    (0..STATEMENTS).map(move |number| format!("SELECT 'load {load}.{session}', {number}"))
}

fn client(user: &str, password: &str, by_socket: bool, statements: &[&str]) -> Result<std::process::Output> {
    let mut client = Command::new("/usr/bin/mariadb");
    client.args(["--no-defaults", "--skip-ssl", "--force", "--batch", "--default-character-set=utf8mb4"]);
    client.arg(format!("--user={user}")).arg(format!("--password={password}"));
    if by_socket {
        client.arg(format!("--socket={SOCKET}"));
    } else {
        client.args(["--protocol=tcp", "--host=127.0.0.1", "--port=3306"]);
    }
    let mut child = client.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let mut input = child.stdin.take().context("the client has no input")?;
    for statement in statements {
        // A client that was refused has ended.
        let _ = writeln!(input, "{statement};");
    }
    drop(input);
    Ok(child.wait_with_output()?)
}

fn deed<'a>(kind: &'a str, user: &'a str, host: &'a str, sql: Option<&'a str>, result: &str) -> Deed<'a> {
    Deed { server: "MariaDB", kind, user: Some(user), host: Some(host), sql, result: result.to_owned() }
}
