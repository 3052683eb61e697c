//! Real database servers for tests: each in a temporary directory, on a free port of loopback and a Unix socket,
//! killed and removed when dropped.

use std::fs::{self, File};
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::client::Address;
use crate::container::{Container, child_of};
use crate::product::{Product, Program};

/// How long a server may take to start or to stop.
const DEADLINE: Duration = Duration::from_mins(1);
/// How often its state is looked at meanwhile.
const POLL: Duration = Duration::from_millis(20);

/// How a client reaches the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    Tcp,
    /// To a server that was told to listen there.
    TcpV6,
    Socket,
}

/// The MariaDB of this machine (Debian's package `mariadb-server`).
pub struct MariaDb;

impl MariaDb {
    /// A new server with an empty data directory; `root` has no password.
    pub fn start() -> anyhow::Result<DatabaseServer> {
        Product::MariaDb10_11.start()
    }

    /// The same with a copy of its program, and more options of the server.
    pub fn start_program(program: PathBuf, options: &[&str]) -> anyhow::Result<DatabaseServer> {
        Product::MariaDb10_11.start_program(Program { root: None, path: program }, options)
    }

    /// The server's program.
    pub fn program() -> anyhow::Result<PathBuf> {
        Ok(Product::MariaDb10_11.program()?.path)
    }
}

/// MySQL 5.6.24, downloaded once.
pub struct MySql56;

impl MySql56 {
    /// A new server with the accounts that MySQL 5.6 starts with: `root` without a password, and anonymous ones.
    pub fn start() -> anyhow::Result<DatabaseServer> {
        Product::MySql5_6.start()
    }

    /// The server's program, in the cache.
    pub fn program() -> anyhow::Result<PathBuf> {
        Ok(Product::MySql5_6.program()?.path)
    }
}

/// A database server that runs.
pub struct DatabaseServer {
    directory: TempDir,
    product: Product,
    program: Program,
    options: Vec<String>,
    container: Option<Container>,
    port: u16,
    child: Option<Child>,
    /// The server itself: the child, or in a container its child.
    pid: u32,
}

impl DatabaseServer {
    pub(crate) fn start(
        directory: TempDir,
        product: Product,
        program: Program,
        options: Vec<String>,
    ) -> anyhow::Result<Self> {
        let container = program.root.clone().map(Container::new).transpose()?;
        let mut server =
            Self { directory, product, program, options, container, port: 0, child: None, pid: 0 };
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
        let mut command = match &self.container {
            Some(container) => container.command(self.directory.path(), &self.program.path),
            None => Command::new(&self.program.path),
        };
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
        if let Some(base) = self.program.path.parent().filter(|base| base.join("libaio.so.1").is_file()) {
            command.env("LD_LIBRARY_PATH", base);
        }
        let name = self.product.name();
        let mut child = command.spawn().with_context(|| format!("cannot run {name}"))?;
        let deadline = Instant::now() + DEADLINE;
        let outcome = loop {
            let said = String::from_utf8_lossy(&fs::read(self.log())?).into_owned();
            if said.contains("ready for connections") {
                break Ok(());
            }
            if let Some(status) = child.try_wait()? {
                bail!("{name} ended with {status}: {said}");
            }
            if Instant::now() > deadline {
                break Err(anyhow::anyhow!("{name} did not start: {said}"));
            }
            std::thread::sleep(POLL);
        };
        self.pid =
            if self.container.is_some() && outcome.is_ok() { child_of(child.id())? } else { child.id() };
        self.child = Some(child);
        outcome
    }

    pub fn product(&self) -> Product {
        self.product
    }

    /// The server's program, on this machine.
    pub fn program(&self) -> PathBuf {
        self.program.on_host()
    }

    /// The id of the container that it runs in, as Docker would have given it.
    pub fn container_id(&self) -> Option<&str> {
        self.container.as_ref().map(|container| container.id.as_str())
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("server.sock")
    }

    /// How a client of the protocol reaches it.
    pub fn address(&self, via: Via) -> Address {
        match via {
            Via::Tcp => Address::Tcp { from: Ipv4Addr::LOCALHOST.into(), port: self.port },
            Via::TcpV6 => Address::Tcp { from: Ipv6Addr::LOCALHOST.into(), port: self.port },
            Via::Socket => Address::Socket(self.socket()),
        }
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
        self.child.as_ref().map(|_| self.pid)
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
            Via::TcpV6 => command.args(["--protocol=tcp", "--host=::1"]).arg(format!("--port={}", self.port)),
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
        kill(Pid::from_raw(self.pid.cast_signed()), Signal::SIGTERM)?;
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(status) = child.try_wait()? {
                self.child = None;
                return Ok(Some(status));
            }
            if Instant::now() > deadline {
                bail!("{} did not stop", self.product.name());
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
            // Both fail only when it has ended.
            let _ = kill(Pid::from_raw(self.pid.cast_signed()), Signal::SIGKILL);
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

/// The program in `PATH`, or where servers lie.
pub(crate) fn find(program: &str, package: &str) -> anyhow::Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/usr/bin".into()])
        .map(|directory| directory.join(program))
        .find(|path| path.is_file())
        .with_context(|| format!("there is no {program} on this machine: install the package {package}"))
}
