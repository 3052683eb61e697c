//! `whence up` as a process of its own, as the script `up` starts it.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const DEADLINE: Duration = Duration::from_mins(2);
const READY: &str = "ready: ";
const POLL: Duration = Duration::from_millis(20);

/// A running `whence up`. Dropping it stops it.
pub struct Whence {
    child: Child,
    data: PathBuf,
    url: String,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Whence {
    /// Starts it on `data` and a free port, and returns when it says that it is ready.
    pub fn start(data: &Path, options: &[&str]) -> anyhow::Result<Self> {
        let mut command = Command::new(program()?);
        command.arg("up").arg(format!("--data={}", data.display())).args(options);
        if !options.iter().any(|option| option.starts_with("--listen")) {
            command.arg("--listen=127.0.0.1:0");
        }
        Self::start_command(command, data)
    }

    /// The same with a command that somebody else made.
    pub fn start_command(mut command: Command, data: &Path) -> anyhow::Result<Self> {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let output = child.stdout.take().context("its output is not captured")?;
        let lines = Arc::new(Mutex::new(Vec::new()));
        let sink = lines.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                println!("up: {line}");
                sink.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            }
        });
        let mut whence = Self { child, data: data.to_owned(), url: String::new(), lines };
        let ready = whence.wait_for(READY, |line| line.starts_with(READY))?;
        ready.trim_start_matches(READY).clone_into(&mut whence.url);
        Ok(whence)
    }

    /// Waits until it says that the server which it calls `name` is in this state; the answer is the whole line.
    pub fn wait_for_server(&mut self, state: &str, name: &str) -> anyhow::Result<String> {
        let start = format!("{state}: ");
        self.wait_for(&start, |line| line.starts_with(&start) && line.contains(name))
    }

    fn wait_for(&mut self, what: &str, is_it: impl Fn(&str) -> bool) -> anyhow::Result<String> {
        let until = Instant::now() + DEADLINE;
        loop {
            if let Some(line) = self.lines().into_iter().find(|line| is_it(line)) {
                return Ok(line);
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("`whence up` ended with {status}, and printed {:?}", self.lines());
            }
            if Instant::now() > until {
                bail!("`whence up` did not print {what:?}; it printed {:?}", self.lines());
            }
            std::thread::sleep(POLL);
        }
    }

    /// Everything that it printed to standard output.
    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// `http://ADDRESS`
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The API token that it wrote for scripts.
    pub fn token(&self) -> anyhow::Result<String> {
        let path = self.data.join("admin.token");
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        Ok(text.trim().to_owned())
    }

    /// The password in `sign in as admin with password …`, which only the first start prints.
    pub fn password(&self) -> Option<String> {
        let prefix = "sign in as admin with password ";
        let lines = self.lines();
        let rest = lines.iter().find_map(|line| line.strip_prefix(prefix))?;
        rest.split(' ').next().map(str::to_owned)
    }

    /// Process id of a part: `collector`, `ingest`, `web` or `engine`.
    pub fn part(&self, name: &str) -> anyhow::Result<Pid> {
        let text = std::fs::read_to_string(self.data.join(format!("run/{name}.pid")))?;
        Ok(Pid::from_raw(text.trim().parse()?))
    }

    /// Ends a part as a crash would, and returns when another is in its place.
    pub fn kill_part(&self, name: &str) -> anyhow::Result<()> {
        let before = self.part(name)?;
        kill(before, Signal::SIGKILL)?;
        let until = Instant::now() + DEADLINE;
        while self.part(name).is_ok_and(|now| now == before) {
            if Instant::now() > until {
                bail!("{name} was not started again");
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    /// Stops it as Ctrl-C does.
    pub fn stop(mut self) -> anyhow::Result<ExitStatus> {
        self.end()
    }

    fn end(&mut self) -> anyhow::Result<ExitStatus> {
        let pid = Pid::from_raw(self.child.id().cast_signed());
        kill(pid, Signal::SIGINT)?;
        let until = Instant::now() + DEADLINE;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > until {
                self.child.kill()?;
                bail!("`whence up` did not end when it was told to");
            }
            std::thread::sleep(POLL);
        }
    }
}

impl Drop for Whence {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            // Nobody is there to be told.
            let _ = self.end();
        }
    }
}

/// Where the program is, when it was built with the tests.
const PROGRAM_VARIABLE: &str = "WHENCE_PROGRAM";

/// The program: what [`PROGRAM_VARIABLE`] names, or else built here.
pub fn program() -> anyhow::Result<PathBuf> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    if let Some(program) = std::env::var_os(PROGRAM_VARIABLE) {
        return Ok(program.into());
    }
    let build = || {
        let test = std::env::current_exe()?;
        let profile = test.ancestors().nth(2).context("the test lies in no target directory")?;
        let built = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
            .args(["build", "--quiet", "--package", "whence"])
            .args((profile.file_name() == Some("release".as_ref())).then_some("--release"))
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .status()?;
        if !built.success() {
            bail!("cannot build whence");
        }
        Ok(profile.join("whence"))
    };
    let built = BUILT.get_or_init(|| build().map_err(|error: anyhow::Error| format!("{error:#}")));
    built.clone().map_err(anyhow::Error::msg)
}
