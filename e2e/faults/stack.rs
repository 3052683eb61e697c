//! All of Whence, each part a process of its own, with a network path and a disk that can fail between any two of them.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rand::Rng as _;
use tokio::runtime::Runtime;

use crate::audit::Audit;
use crate::disk::Disk;
use crate::link::{Link, Trouble};
use crate::process::Process;

const DEADLINE: Duration = Duration::from_mins(5);
const POLL: Duration = Duration::from_millis(30);
const SPOOL_DISK_BYTES: u64 = 256 << 20;
const ENGINE_DISK_BYTES: u64 = 4 << 30;
/// So small that a collector that is held up for a second or two loses events, which it must count.
const RING_BYTES: u32 = 512 << 10;

/// The probes and maps that outlive the collector; taken off when dropped.
struct Pins(PathBuf);

impl Drop for Pins {
    fn drop(&mut self) {
        // There are none when the collector never started.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Everything that runs.
pub struct Stack {
    pub collector: Process,
    /// Dropped behind the collector.
    _pins: Pins,
    pub ingest: [Process; 2],
    pub web: Process,
    pub engine: Process,
    /// From the collector to each ingest.
    pub to_ingest: [Link; 2],
    /// From each ingest to ClickHouse.
    pub to_store: [Link; 2],
    pub spool_disk: Disk,
    pub engine_disk: Disk,
    pub audit: Audit,
    http: reqwest::Client,
    ingest_urls: [String; 2],
    web_url: String,
    clock: PathBuf,
    directory: PathBuf,
    runtime: Runtime,
}

impl Stack {
    /// Starts all parts with what they keep below `directory`, and waits until they work.
    pub fn start(directory: &Path) -> anyhow::Result<Self> {
        let runtime = Runtime::new()?;
        let logs = directory.join("log");
        std::fs::create_dir_all(&logs)?;
        let log = |name: &str| logs.join(format!("{name}.log"));
        let spool_disk = Disk::mount(directory.join("collector"), SPOOL_DISK_BYTES)?;
        let engine_disk = Disk::mount(directory.join("engine"), ENGINE_DISK_BYTES)?;
        let token = directory.join("enroll-token");
        std::fs::write(&token, "the token of the fault test\n")?;
        let clock = directory.join("clock");
        std::fs::write(&clock, "+0\n")?;

        let [engine_address, first, second, web_address] = free_addresses()?;
        let ingest_addresses = [first, second];
        let open = |to, other| runtime.block_on(Link::open(to, other));
        let to_ingest = [open(first, second)?, open(second, first)?];
        let to_store = [open(engine_address, engine_address)?, open(engine_address, engine_address)?];

        let mut engine = Process::new(
            "engine",
            log("engine"),
            vec![
                "engine".into(),
                format!("--directory={}", engine_disk.path().display()),
                format!("--port={}", engine_address.port()),
            ],
        );
        engine.start()?;
        let passwords = engine_disk.path().join("passwords");
        let clickhouse = |url: &str, account: &str| {
            vec![
                format!("--clickhouse-url={url}"),
                format!("--clickhouse-user={account}"),
                format!("--clickhouse-password-file={}", passwords.join(account).display()),
            ]
        };
        let engine_url = format!("http://{engine_address}");
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(20)).build()?;
        let ingest = [0, 1].map(|number: usize| {
            let mut arguments = vec![
                "ingest".into(),
                format!("--listen={}", ingest_addresses[number]),
                format!("--enroll-token-file={}", token.display()),
            ];
            arguments.extend(clickhouse(&to_store[number].url(), "whence_ingest"));
            let name = format!("ingest-{number}");
            Process::new(&name, log(&name), arguments)
        });
        let mut arguments = vec!["web".into(), format!("--listen={web_address}")];
        arguments.extend(clickhouse(&engine_url, "whence_web"));
        let web = Process::new("web", log("web"), arguments);
        let pins = Pins(format!("/sys/fs/bpf/whence-faults-{}", std::process::id()).into());
        let collector = Process::new(
            "collector",
            log("collector"),
            vec![
                "collect".into(),
                format!("--ingest-url={},{}", to_ingest[0].url(), to_ingest[1].url()),
                format!("--enroll-token-file={}", token.display()),
                format!("--spool-dir={}", spool_disk.path().join("spool").display()),
                format!("--ring-bytes={RING_BYTES}"),
                format!("--pin-dir={}", pins.0.display()),
                format!("--status-file={}", directory.join("collector.json").display()),
                "--keep-probes".into(),
            ],
        )
        .with_environment(&[
            ("LD_PRELOAD", fake_time()?),
            ("FAKETIME_TIMESTAMP_FILE", clock.display().to_string()),
            ("FAKETIME_CACHE_DURATION", "1".into()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
        ]);
        let audit = Audit::new(http.clone(), engine_url, passwords.join("whence_migrate"));
        let mut stack = Self {
            runtime,
            collector,
            _pins: pins,
            ingest,
            web,
            engine,
            to_ingest,
            to_store,
            spool_disk,
            engine_disk,
            audit,
            http,
            ingest_urls: ingest_addresses.map(|address| format!("http://{address}")),
            web_url: format!("http://{web_address}"),
            clock,
            directory: directory.into(),
        };
        stack.wait_for_engine()?;
        let mut migrate = Process::new("migrate", log("migrate"), {
            let mut arguments = vec!["migrate".into()];
            arguments.extend(clickhouse(&stack.audit.url, "whence_migrate"));
            arguments
        });
        migrate.start()?;
        stack.wait("the schema is there", |_| Ok(!migrate.is_running()?))?;
        stack.heal()?;
        Ok(stack)
    }

    /// Mends everything that is broken, and waits until every part works.
    pub fn heal(&mut self) -> anyhow::Result<()> {
        for link in self.to_ingest.iter().chain(&self.to_store) {
            link.set(Trouble::None);
        }
        self.spool_disk.empty()?;
        self.engine_disk.empty()?;
        self.set_clock(0)?;
        self.resume_engine();
        for process in [&mut self.engine, &mut self.web].into_iter().chain(&mut self.ingest) {
            process.resume()?;
            process.start()?;
        }
        self.collector.resume()?;
        self.start_collector()?;
        self.wait_for_engine()?;
        for table in TABLES {
            self.accept_rows(table)?;
        }
        let urls = self.ingest_urls.iter().chain([&self.web_url]).map(|url| format!("{url}/ready"));
        for url in urls.collect::<Vec<_>>() {
            self.wait(&format!("{url} answers"), |stack| Ok(stack.answers(&url)))?;
        }
        self.wait("the collector looked at all servers", |stack| {
            stack.start_collector()?;
            Ok(stack.status_file().exists())
        })
    }

    /// Starts the collector, unless it runs.
    pub fn start_collector(&mut self) -> anyhow::Result<()> {
        if !self.collector.is_running()? {
            // That of the one before says nothing.
            let _ = std::fs::remove_file(self.status_file());
        }
        self.collector.start()
    }

    fn status_file(&self) -> PathBuf {
        self.directory.join("collector.json")
    }

    /// Sets the collector's clock this far off.
    pub fn set_clock(&self, ahead_seconds: i64) -> anyhow::Result<()> {
        let partial = self.clock.with_extension("partial");
        std::fs::write(&partial, format!("{ahead_seconds:+}\n"))?;
        Ok(std::fs::rename(partial, &self.clock)?)
    }

    /// Ends the engine's process; its supervisor starts another.
    pub fn kill_engine(&self) {
        self.signal_engine(Signal::SIGKILL);
    }

    /// Ends it and its supervisor.
    pub fn kill_engine_and_supervisor(&mut self) -> anyhow::Result<()> {
        self.engine.kill()?;
        self.kill_engine();
        Ok(())
    }

    pub fn pause_engine(&self) {
        self.signal_engine(Signal::SIGSTOP);
    }

    pub fn resume_engine(&self) {
        self.signal_engine(Signal::SIGCONT);
    }

    fn signal_engine(&self, signal: Signal) {
        let text = std::fs::read_to_string(self.engine_disk.path().join("data.lock")).unwrap_or_default();
        let Ok(pid) = text.trim().parse::<i32>() else { return };
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let ours = self.engine_disk.path().display().to_string();
        // It may have ended, and its number be somebody else's.
        if String::from_utf8_lossy(&command).contains(&ours) {
            // Between the look and now it may have ended too.
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }

    /// Makes ClickHouse itself refuse rows for a table: it has too many parts.
    pub fn refuse_rows(&self, table: &str) -> anyhow::Result<()> {
        self.ask(&format!("ALTER TABLE whence.{table} MODIFY SETTING parts_to_throw_insert = 1")).map(drop)
    }

    fn accept_rows(&self, table: &str) -> anyhow::Result<()> {
        self.ask(&format!("ALTER TABLE whence.{table} MODIFY SETTING parts_to_throw_insert = 3000")).map(drop)
    }

    /// What ClickHouse answers, row by row.
    pub fn ask(&self, sql: &str) -> anyhow::Result<Vec<Vec<serde_json::Value>>> {
        self.runtime.block_on(self.audit.ask(sql))
    }

    /// Starts the collector with this much room in its spool.
    pub fn restart_collector_with_spool(&mut self, bytes: Option<u64>) -> anyhow::Result<()> {
        self.collector.kill()?;
        self.collector.arguments.retain(|argument| !argument.starts_with("--spool-bytes="));
        self.collector.arguments.extend(bytes.map(|bytes| format!("--spool-bytes={bytes}")));
        self.start_collector()
    }

    /// Segments of the spool, oldest first.
    pub fn segments(&self) -> anyhow::Result<Vec<PathBuf>> {
        let entries = std::fs::read_dir(self.spool_disk.path().join("spool"))?;
        let paths = entries.map(|entry| entry.map(|entry| entry.path())).collect::<std::io::Result<Vec<_>>>();
        let mut paths = paths?;
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "spool"));
        paths.sort();
        Ok(paths)
    }

    /// Keeps what a finding can be understood by, before the disks go.
    pub fn keep(&self) -> anyhow::Result<()> {
        let copied = std::process::Command::new("cp")
            .arg("-a")
            .arg(self.spool_disk.path())
            .arg(self.directory.join("collector-kept"))
            .status()?;
        if !copied.success() {
            bail!("cannot keep the spool");
        }
        Ok(())
    }

    fn wait_for_engine(&mut self) -> anyhow::Result<()> {
        let url = format!("{}/ping", self.audit.url);
        self.wait("ClickHouse answers", |stack| {
            // A supervisor that finds no room to start gives up.
            stack.engine.start()?;
            Ok(stack.answers(&url))
        })
    }

    fn answers(&self, url: &str) -> bool {
        let answer = self.runtime.block_on(async { self.http.get(url).send().await });
        answer.is_ok_and(|answer| answer.status().is_success())
    }

    fn wait(
        &mut self,
        what: &str,
        mut is_it: impl FnMut(&mut Self) -> anyhow::Result<bool>,
    ) -> anyhow::Result<()> {
        let until = Instant::now() + DEADLINE;
        while !is_it(self).with_context(|| what.to_owned())? {
            if Instant::now() > until {
                bail!("{what}: not within {} s", DEADLINE.as_secs());
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }
}

/// The library that makes the wall clock of one process another (Debian's package `libfaketime`).
fn fake_time() -> anyhow::Result<String> {
    let path = format!("/usr/lib/{}-linux-gnu/faketime/libfaketimeMT.so.1", std::env::consts::ARCH);
    if !Path::new(&path).exists() {
        bail!("there is no {path} on this machine: install the package libfaketime");
    }
    Ok(path)
}

/// What a batch is written to, in this order.
pub const TABLES: [&str; 3] = ["events", "coverage", "batches"];

/// Addresses for parts that come and go: outside of what others are given by chance.
fn free_addresses<const COUNT: usize>() -> anyhow::Result<[SocketAddr; COUNT]> {
    let mut random = rand::thread_rng();
    // All of them are held until the last is found, or two would be the same.
    let mut held = Vec::new();
    for _ in 0..1000 {
        let port = random.gen_range(15_000..30_000);
        held.extend(TcpListener::bind((Ipv4Addr::LOCALHOST, port)));
        if held.len() == COUNT {
            let addresses = held.iter().map(TcpListener::local_addr).collect::<io::Result<Vec<_>>>()?;
            return addresses.try_into().map_err(|_| anyhow!("as many as were wanted"));
        }
    }
    bail!("there are no {COUNT} free ports on this machine")
}
