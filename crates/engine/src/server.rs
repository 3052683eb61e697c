//! Supervises the engine's process: starts it, waits until it answers, starts it again when it ends.

use std::fs::{DirBuilder, File};
use std::io::Write;
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg, OFlag};
use nix::pty::{grantpt, posix_openpt, ptsname_r, unlockpt};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rand::RngCore;
use secrecy::SecretString;
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::child::lock_path;
use crate::config::{self, ACCOUNTS};
use crate::{EngineError, Library, file_error};

const READY_SECONDS: u64 = 60;
const POLL: Duration = Duration::from_millis(50);
const FIRST_BACKOFF: Duration = Duration::from_millis(300);
const LAST_BACKOFF: Duration = Duration::from_secs(10);
/// An engine that ran this long had started well.
const STEADY: Duration = Duration::from_mins(1);
/// How long an engine whose supervisor was killed may take to end by itself.
const ORPHAN_DEADLINE: Duration = Duration::from_secs(12);
const STOP_DEADLINE: Duration = Duration::from_secs(10);

/// How the embedded ClickHouse is started.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// Directory for its data, configuration, passwords and log; made when it is not there.
    pub directory: PathBuf,
    /// Port of the HTTP listener on 127.0.0.1. None picks a free one.
    pub http_port: Option<u16>,
    /// Program and first arguments of the child, which gets `--library --config-file --path --http-port` appended
    /// and calls [`crate::run_child`].
    pub child: Vec<String>,
    /// Where the child's process id is written, if anywhere.
    pub pid_file: Option<PathBuf>,
}

/// A running embedded ClickHouse. It ends with this process at the latest.
pub struct Engine {
    http_port: u16,
    directory: PathBuf,
    stop: CancellationToken,
    task: JoinHandle<()>,
    _lock: Flock<File>,
}

impl Engine {
    /// Starts the engine and returns when it answers. Downloads it before, when this machine has none. Dropped before,
    /// it ends the download or the engine.
    pub async fn start(options: EngineOptions) -> Result<Self, EngineError> {
        let stop = CancellationToken::new();
        let given_up = stop.clone().drop_guard();
        let until = stop.clone();
        let library = tokio::task::spawn_blocking(move || Library::find_or_download_until(&until)).await;
        let library = library.map_err(|error| EngineError::Spawn(error.into()))??;
        let directory = prepare(&options.directory)?;
        let lock = lock_directory(&directory)?;
        let passwords = passwords(&directory)?;
        let data = directory.join("data");
        wait_for_orphan(&data).await?;
        let config = config::write(&directory, &data, &passwords)?;
        let http_port = match options.http_port {
            Some(port) => port,
            None => free_port().map_err(EngineError::Spawn)?,
        };
        let process =
            Process { options, library, config, data, http_port, log: directory.join("engine.log") };
        let first = process.spawn()?;
        let log = process.log.clone();
        let task = tokio::spawn(process.supervise(first, stop.clone()));
        let engine = Self { http_port, directory, stop, task, _lock: lock };
        match engine.wait_until_ready(&log).await {
            Ok(()) => {
                given_up.disarm();
                Ok(engine)
            }
            Err(error) => {
                engine.stop().await;
                Err(error)
            }
        }
    }

    /// HTTP address of ClickHouse.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.http_port)
    }

    /// File with the password of `account` (see [`ACCOUNTS`]).
    pub fn password_file(&self, account: &str) -> PathBuf {
        password_path(&self.directory, account)
    }

    /// Password of `account` (see [`ACCOUNTS`]).
    pub fn password(&self, account: &str) -> Result<SecretString, EngineError> {
        Ok(whence_service::secret::read(&self.password_file(account))?)
    }

    /// Ends the engine; what it holds is on disk.
    pub async fn stop(self) {
        self.stop.cancel();
        if let Err(error) = self.task.await {
            tracing::error!(%error, "supervision of the engine failed");
        }
    }

    async fn wait_until_ready(&self, log: &Path) -> Result<(), EngineError> {
        let ping = format!("{}/ping", self.url());
        // A proxy of the environment does not know our loopback.
        let client = reqwest::Client::builder().no_proxy().build();
        let client = client.map_err(|error| EngineError::Spawn(std::io::Error::other(error)))?;
        let answered = tokio::time::timeout(Duration::from_secs(READY_SECONDS), async {
            while !client.get(&ping).send().await.is_ok_and(|answer| answer.status().is_success()) {
                tokio::time::sleep(POLL).await;
            }
        });
        answered.await.map_err(|_| EngineError::Silent { seconds: READY_SECONDS, log: log.into() })
    }
}

fn prepare(directory: &Path) -> Result<PathBuf, EngineError> {
    for path in [directory.to_path_buf(), directory.join("data"), directory.join("passwords")] {
        // What is stored is for nobody else on this machine.
        DirBuilder::new().recursive(true).mode(0o700).create(&path).map_err(file_error(&path))?;
    }
    directory.canonicalize().map_err(file_error(directory))
}

/// Keeps a second supervisor away.
fn lock_directory(directory: &Path) -> Result<Flock<File>, EngineError> {
    let path = directory.join("supervisor.lock");
    let file = File::create(&path).map_err(file_error(&path))?;
    let locked = Flock::lock(file, FlockArg::LockExclusiveNonblock);
    locked.map_err(|(_, _)| EngineError::InUse { directory: directory.into() })
}

/// Waits for the engine of a supervisor that was killed, and ends it when it does not end by itself.
async fn wait_for_orphan(data: &Path) -> Result<(), EngineError> {
    let path = lock_path(data);
    let is_free = || match File::open(&path) {
        Ok(file) => Flock::lock(file, FlockArg::LockExclusiveNonblock).is_ok(),
        Err(_) => true,
    };
    let deadline = Instant::now() + ORPHAN_DEADLINE;
    let mut killed = false;
    while !is_free() {
        if Instant::now() > deadline && !killed {
            let pid = std::fs::read_to_string(&path).map_err(file_error(&path))?;
            let pid = pid.trim().parse().map_err(|_| EngineError::InUse { directory: data.into() })?;
            // The lock is held, so the process that wrote its id lives.
            kill(Pid::from_raw(pid), Signal::SIGKILL).map_err(|error| EngineError::Spawn(error.into()))?;
            killed = true;
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

fn password_path(directory: &Path, account: &str) -> PathBuf {
    directory.join("passwords").join(account)
}

/// One password per account, made at the first start and kept.
fn passwords(directory: &Path) -> Result<Vec<String>, EngineError> {
    use secrecy::ExposeSecret;

    let password = |account: &config::Account| {
        let path = password_path(directory, account.name);
        if !path.exists() {
            let mut bytes = [0_u8; 24];
            rand::rngs::OsRng.fill_bytes(&mut bytes);
            whence_service::secret::write(&path, &hex::encode(bytes))?;
        }
        Ok(whence_service::secret::read(&path)?.expose_secret().to_owned())
    };
    ACCOUNTS.iter().map(password).collect()
}

fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

struct Process {
    options: EngineOptions,
    library: Library,
    config: PathBuf,
    data: PathBuf,
    http_port: u16,
    log: PathBuf,
}

/// A new terminal: our end and the child's. No child inherits our end, or the terminal would not hang up when we end.
fn open_terminal() -> std::io::Result<(File, File)> {
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let master = posix_openpt(flags)?;
    grantpt(&master)?;
    unlockpt(&master)?;
    let mut options = File::options();
    let slave =
        options.read(true).write(true).custom_flags(OFlag::O_NOCTTY.bits()).open(ptsname_r(&master)?)?;
    Ok((File::from(OwnedFd::from(master)), slave))
}

/// A child and the terminal it reads from.
struct Running {
    child: Child,
    terminal: File,
}

impl Process {
    fn spawn(&self) -> Result<Running, EngineError> {
        let (master, slave) = open_terminal().map_err(EngineError::Spawn)?;
        let mut log = File::options();
        let log = log.create(true).append(true).open(&self.log).map_err(file_error(&self.log))?;
        let (program, first_arguments) = self.options.child.split_first().ok_or_else(|| {
            EngineError::Spawn(std::io::Error::other("no program was given for the engine's process"))
        })?;
        let mut command = Command::new(program);
        command
            .arg0("whence")
            .args(first_arguments)
            .arg(format!("--library={}", self.library.path.display()))
            .arg(format!("--config-file={}", self.config.display()))
            .arg(format!("--path={}", self.data.display()))
            .arg(format!("--http-port={}", self.http_port))
            .current_dir(&self.data)
            .stdin(Stdio::from(slave))
            .stdout(Stdio::null())
            .stderr(Stdio::from(log))
            .process_group(0)
            .kill_on_drop(true);
        let child = command.spawn().map_err(EngineError::Spawn)?;
        if let (Some(path), Some(pid)) = (&self.options.pid_file, child.id()) {
            std::fs::write(path, format!("{pid}\n")).map_err(file_error(path))?;
        }
        Ok(Running { child, terminal: master })
    }

    async fn supervise(self, first: Running, stop: CancellationToken) {
        let mut running = Some(first);
        let mut backoff = FIRST_BACKOFF;
        let mut started = Instant::now();
        loop {
            if let Some(process) = &mut running {
                let ended = tokio::select! {
                    ended = process.child.wait() => ended,
                    () = stop.cancelled() => {
                        end(process).await;
                        break;
                    }
                };
                match ended {
                    Ok(status) => tracing::warn!(%status, "the embedded ClickHouse ended, starting it again"),
                    Err(error) => tracing::error!(%error, "cannot wait for the embedded ClickHouse"),
                }
            }
            if started.elapsed() > STEADY {
                backoff = FIRST_BACKOFF;
            }
            tokio::select! {
                () = tokio::time::sleep(backoff) => {}
                () = stop.cancelled() => break,
            }
            backoff = (backoff * 2).min(LAST_BACKOFF);
            started = Instant::now();
            running = match self.spawn() {
                Ok(process) => Some(process),
                Err(error) => {
                    tracing::error!(%error, "cannot start the embedded ClickHouse");
                    None
                }
            };
        }
        if let Some(path) = &self.options.pid_file {
            // It may never have been written.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// The engine leaves its prompt when it reads `exit`.
async fn end(process: &mut Running) {
    let asked = process.terminal.write_all(b"exit\r");
    if asked.is_err() || tokio::time::timeout(STOP_DEADLINE, process.child.wait()).await.is_err() {
        tracing::warn!("the embedded ClickHouse did not exit in time, killing it");
        if let Err(error) = process.child.kill().await {
            tracing::error!(%error, "cannot kill the embedded ClickHouse");
        }
    }
}
