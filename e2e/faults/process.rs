//! One part of Whence as a process of its own, which can be killed, stopped and paused. It ends with the test.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const DEADLINE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);

/// A part, running or not.
pub struct Process {
    pub name: String,
    pub arguments: Vec<String>,
    environment: Vec<(String, String)>,
    log: PathBuf,
    child: Option<Child>,
    paused: bool,
}

impl Process {
    /// `whence` with these arguments; not started yet.
    pub fn new(name: &str, log: PathBuf, arguments: Vec<String>) -> Self {
        let (environment, child) = (Vec::new(), None);
        Self { name: name.to_owned(), arguments, environment, log, child, paused: false }
    }

    pub fn with_environment(mut self, variables: &[(&str, String)]) -> Self {
        self.environment =
            variables.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        self
    }

    /// Starts it, unless it runs.
    pub fn start(&mut self) -> anyhow::Result<()> {
        if self.is_running()? {
            return Ok(());
        }
        let log = File::options().create(true).append(true).open(&self.log)?;
        let mut command = Command::new(whence_e2e::whence::program()?);
        command
            .args(&self.arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            // It ends when we do, however we do: its standard input is then closed.
            .env("WHENCE_SUPERVISED", "1")
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log);
        self.child = Some(command.spawn().with_context(|| format!("cannot start {}", self.name))?);
        self.paused = false;
        Ok(())
    }

    /// Whether it runs; one that ended by itself does not.
    pub fn is_running(&mut self) -> anyhow::Result<bool> {
        let Some(child) = &mut self.child else { return Ok(false) };
        if child.try_wait()?.is_some() {
            self.child = None;
        }
        Ok(self.child.is_some())
    }

    /// Ends it at once, as a crash would.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Asks it to end, and waits until it has.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        self.resume()?;
        let Some(child) = &mut self.child else { return Ok(()) };
        kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM)?;
        let until = Instant::now() + DEADLINE;
        while child.try_wait()?.is_none() {
            if Instant::now() > until {
                bail!("{} did not end within {} s of being told to", self.name, DEADLINE.as_secs());
            }
            std::thread::sleep(POLL);
        }
        self.child = None;
        Ok(())
    }

    /// Takes the processor from it.
    pub fn pause(&mut self) -> anyhow::Result<()> {
        if let Some(child) = &self.child {
            kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGSTOP)?;
            self.paused = true;
        }
        Ok(())
    }

    pub fn resume(&mut self) -> anyhow::Result<()> {
        if let Some(child) = self.child.as_ref().filter(|_| self.paused) {
            kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGCONT)?;
        }
        self.paused = false;
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Stopped in good order it takes its probes off; nobody is there to be told when it cannot.
        if self.stop().is_err() {
            let _ = self.kill();
        }
    }
}
