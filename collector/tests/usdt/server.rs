//! The program with the probes: built once, a copy of its own for each test.

use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use tempfile::TempDir;

const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../e2e/usdt/usdt-server.c");

/// The program while it runs; killed when dropped.
pub struct Server {
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    program: PathBuf,
    /// Where its program is, when nobody else runs that.
    directory: Option<TempDir>,
}

/// An action that was performed.
#[derive(Clone, Debug)]
pub struct Done {
    /// By the program's clock: around the whole action, all its times.
    pub took_ns: u64,
}

impl Server {
    pub fn start() -> Self {
        // Probes are on the file: a copy keeps the tests apart.
        let directory = TempDir::new().unwrap();
        let mut server = Self::start_program(copy_to(directory.path()));
        server.directory = Some(directory);
        server
    }

    /// Starts this copy of the program, which others may run too.
    pub fn start_program(program: PathBuf) -> Self {
        let mut child = Command::new(&program).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut server = Self { child, input, output, program, directory: None };
        server.until("ready for connections");
        server
    }

    pub fn program(&self) -> &Path {
        &self.program
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The program by its process, as the collector opens it.
    pub fn executable(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/exe", self.pid()))
    }

    /// Performs the script and waits for its end, except for what hangs.
    pub fn run(&mut self, script: &str) -> Vec<Done> {
        self.begin(script);
        self.wait()
    }

    /// Gives the script and does not wait.
    pub fn begin(&mut self, script: &str) {
        writeln!(self.input, "{script}\nwait").unwrap();
    }

    /// Waits for the end of the script that was begun.
    pub fn wait(&mut self) -> Vec<Done> {
        let done = |line: &String| {
            let fields: Vec<&str> = line.split('\t').collect();
            Done { took_ns: fields[6].parse().unwrap() }
        };
        self.until("idle").iter().filter(|line| line.starts_with("did\t")).map(done).collect()
    }

    /// The probes that have a tracer; one at several locations counts each of them.
    pub fn raised(&mut self) -> Vec<String> {
        writeln!(self.input, "semaphores").unwrap();
        let raised = |line: &String| {
            let (name, count) = line.strip_prefix("semaphore\t")?.split_once('\t')?;
            (count != "0").then(|| name.to_owned())
        };
        self.until("semaphores").iter().filter_map(raised).collect()
    }

    /// A process that another test is just starting holds what this one had open for a moment.
    pub fn wait_until_unwatched(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let raised = self.raised();
            if raised.is_empty() {
                return;
            }
            assert!(Instant::now() < deadline, "still watched, by another collector? {raised:?}");
        }
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn until(&mut self, end: &str) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            let line = self.output.next().expect("the program has ended").unwrap();
            if line == end {
                return lines;
            }
            lines.push(line);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Fails only when it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Copies the program into `directory`. Another program does it, as a process that another test is just starting would hold
/// the copy open for writing a moment longer, and it could not be run.
pub fn copy_to(directory: &Path) -> PathBuf {
    let program = directory.join("usdt-server");
    let copied = Command::new("cp").arg(built()).arg(&program).status().unwrap();
    assert!(copied.success(), "cannot copy the program");
    program
}

/// The program, compiled by the first who asks.
pub fn built() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("usdt-server");
        let output = Command::new("cc")
            .args(["-O2", "-g", "-Wall", "-Wextra", "-Werror", "-pthread", "-o"])
            .arg(&program)
            .arg(SOURCE)
            .output()
            .expect("this test needs a C compiler (Debian's package gcc)");
        assert!(
            output.status.success(),
            "this test needs a C compiler and sys/sdt.h (Debian's package systemtap-sdt-dev): {}",
            String::from_utf8_lossy(&output.stderr)
        );
        program
    })
}
