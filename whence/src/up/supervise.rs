//! Keeps one child process running: starts it, starts it again when it ends, and stops it in an orderly way.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::parent::SUPERVISED;
use crate::engine::PROGRAM;

const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const LONGEST_BACKOFF: Duration = Duration::from_secs(5);
/// A child that ran this long is not counted as failing at its start.
const SETTLED: Duration = Duration::from_secs(10);
/// How long a child may drain before it is killed. Taking off many probes takes the kernel tens of seconds on a busy host.
const STOP_DEADLINE: Duration = Duration::from_mins(1);
/// A log of this size is put aside when its part starts; one older is kept.
const LOG_BYTES: u64 = 16 << 20;

/// A part of Whence that runs as a process of its own.
pub struct Part {
    pub name: &'static str,
    /// Arguments of this program.
    pub arguments: Vec<String>,
    /// What it prints goes to the end of this file.
    pub log: PathBuf,
    /// Holds its process id while it runs.
    pub pid_file: PathBuf,
}

/// A supervised part; [`Supervised::stop`] ends it.
pub struct Supervised {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Supervised {
    /// Starts `part` and keeps it running.
    pub fn start(part: Part) -> Self {
        let stop = CancellationToken::new();
        let task = tokio::spawn(supervise(part, stop.clone()));
        Self { stop, task }
    }

    /// Asks the part to end, and returns when it has.
    pub async fn stop(self) {
        self.stop.cancel();
        if let Err(error) = self.task.await {
            tracing::error!(%error, "supervision failed");
        }
    }
}

async fn supervise(part: Part, stop: CancellationToken) {
    let mut backoff = FIRST_BACKOFF;
    let name = part.name;
    loop {
        let started = Instant::now();
        match spawn(&part) {
            Ok(mut child) => {
                // `wait` would close it, and the part takes that for our end.
                let _lifeline = child.stdin.take();
                note_pid(&part.pid_file, &child);
                let ended = tokio::select! {
                    ended = child.wait() => ended,
                    () = stop.cancelled() => {
                        end(&mut child, name).await;
                        break;
                    }
                };
                let log = part.log.display();
                match ended {
                    Ok(status) => tracing::warn!(part = name, %status, %log, "part ended, starting it again"),
                    Err(error) => tracing::error!(part = name, %error, "cannot wait for part"),
                }
            }
            Err(error) => tracing::error!(part = name, %error, "cannot start part"),
        }
        backoff =
            if started.elapsed() > SETTLED { FIRST_BACKOFF } else { (backoff * 2).min(LONGEST_BACKOFF) };
        if tokio::time::timeout(backoff, stop.cancelled()).await.is_ok() {
            break;
        }
    }
    // It is not there when the part never started.
    let _ = std::fs::remove_file(&part.pid_file);
}

/// The child gets a process group of its own, so that Ctrl-C reaches only us and the parts end in order.
fn spawn(part: &Part) -> std::io::Result<Child> {
    let log = open_log(&part.log)?;
    Command::new(PROGRAM)
        .arg0("whence")
        .args(&part.arguments)
        .env(SUPERVISED, "1")
        .stdin(Stdio::piped())
        .stdout(log.try_clone()?)
        .stderr(log)
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
}

/// A log to add to.
pub fn open_log(path: &Path) -> std::io::Result<File> {
    if path.metadata().is_ok_and(|log| log.len() > LOG_BYTES) {
        std::fs::rename(path, path.with_extension("log.1"))?;
    }
    File::options().create(true).append(true).open(path)
}

async fn end(child: &mut Child, name: &str) {
    let Some(pid) = child.id().and_then(|id| i32::try_from(id).ok()) else { return };
    // The process may have ended by itself in the meantime.
    let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
    if tokio::time::timeout(STOP_DEADLINE, child.wait()).await.is_err() {
        tracing::warn!(part = name, "part did not end in time, killing it");
        if let Err(error) = child.kill().await {
            tracing::error!(part = name, %error, "cannot kill part");
        }
    }
}

fn note_pid(pid_file: &Path, child: &Child) {
    let Some(pid) = child.id() else { return };
    if let Err(error) = std::fs::write(pid_file, format!("{pid}\n")) {
        tracing::warn!(%error, file = %pid_file.display(), "cannot write process id");
    }
}
