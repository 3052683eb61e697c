//! ClickHouse and ingest as processes of their own, and what they take.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use secrecy::ExposeSecret as _;
use whence_collector::ship::{Client, ClientError, Enrolment, Transport};
use whence_engine::{Engine, EngineOptions};
use whence_store::{ConnectOptions, Store};

const POLL: Duration = Duration::from_millis(20);
const DATABASE: &str = "whence";
const ACCOUNT: &str = "whence_migrate";
const TOKEN: &str = "bench";

/// The running parts. Dropping them ends them.
pub struct Parts {
    pub store: Store,
    pub ingest_url: String,
    engine: Engine,
    engine_pid_file: PathBuf,
    ingest: Child,
    _directory: tempfile::TempDir,
}

/// What the processes have taken so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// Processor time in seconds: of this process, which is the collector, …
    pub collector: f64,
    pub ingest: f64,
    pub clickhouse: f64,
    /// Resident memory of ingest in MiB, now.
    pub ingest_memory: f64,
}

impl Parts {
    /// Starts ClickHouse and `program ingest` on a fresh database.
    pub async fn start(program: &Path) -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new().prefix("whence-bench-").tempdir()?;
        let engine_pid_file = directory.path().join("engine.pid");
        let engine = Engine::start(EngineOptions {
            directory: directory.path().join("clickhouse"),
            http_port: None,
            child: vec![program.display().to_string(), "engine-child".into()],
            pid_file: Some(engine_pid_file.clone()),
        })
        .await?;
        let store = Store::connect(options(&engine, DATABASE)?);
        store.migrate().await?;

        let token = directory.path().join("token");
        whence_service::secret::write(&token, TOKEN)?;
        let address = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let log = std::fs::File::create(directory.path().join("ingest.log"))?;
        let ingest = Command::new(program)
            .arg("ingest")
            .arg(format!("--listen={address}"))
            .arg(format!("--enroll-token-file={}", token.display()))
            .arg(format!("--clickhouse-url={}", engine.url()))
            .arg(format!("--clickhouse-user={ACCOUNT}"))
            .arg(format!("--clickhouse-password-file={}", engine.password_file(ACCOUNT).display()))
            .arg(format!("--clickhouse-database={DATABASE}"))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| program.display().to_string())?;
        let mut parts = Self {
            store,
            ingest_url: format!("http://{address}"),
            engine,
            engine_pid_file,
            ingest,
            _directory: directory,
        };
        while std::net::TcpStream::connect(address).is_err() {
            ensure!(parts.ingest.try_wait()?.is_none(), "ingest has ended");
            tokio::time::sleep(POLL).await;
        }
        Ok(parts)
    }

    /// What a collector speaks to ingest with.
    pub fn client(&self, enrolment: Enrolment) -> Result<Client, ClientError> {
        let urls = std::slice::from_ref(&self.ingest_url);
        Client::new(urls, &Transport::default(), enrolment, Some(TOKEN.into()))
    }

    /// A client of ClickHouse without Whence in between, on database `name`.
    pub fn clickhouse(&self, name: &str) -> anyhow::Result<clickhouse::Client> {
        let ConnectOptions { url, user, password, database } = options(&self.engine, name)?;
        let client = clickhouse::Client::default().with_url(url).with_user(user);
        Ok(client.with_password(password.expose_secret()).with_database(database))
    }

    /// A store on another database of the same ClickHouse.
    pub fn other_store(&self, name: &str) -> anyhow::Result<Store> {
        Ok(Store::connect(options(&self.engine, name)?))
    }

    pub fn usage(&self) -> anyhow::Result<Usage> {
        let engine = std::fs::read_to_string(&self.engine_pid_file)?.trim().parse()?;
        let ingest = self.ingest.id();
        Ok(Usage {
            collector: processor_seconds(std::process::id())?,
            ingest: processor_seconds(ingest)?,
            clickhouse: processor_seconds(engine)?,
            ingest_memory: resident_mib(ingest)?,
        })
    }

    pub async fn stop(mut self) -> anyhow::Result<()> {
        self.ingest.kill()?;
        self.ingest.wait()?;
        self.engine.stop().await;
        Ok(())
    }
}

impl Usage {
    /// What was taken since `before`; the memory is that of now.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        Self {
            collector: self.collector - before.collector,
            ingest: self.ingest - before.ingest,
            clickhouse: self.clickhouse - before.clickhouse,
            ingest_memory: self.ingest_memory,
        }
    }
}

fn options(engine: &Engine, database: &str) -> anyhow::Result<ConnectOptions> {
    Ok(ConnectOptions {
        url: engine.url(),
        user: ACCOUNT.into(),
        password: engine.password(ACCOUNT)?,
        database: database.into(),
    })
}

fn processor_seconds(pid: u32) -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // Behind the program's name, which may hold anything.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |place: usize| fields.get(place).and_then(|field| field.parse::<f64>().ok());
    let ticks = ticks(11).zip(ticks(12)).context("/proc/PID/stat is not as expected")?;
    let per_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK)?.context("no CLK_TCK")?;
    #[expect(clippy::cast_precision_loss, reason = "it is 100")]
    Ok((ticks.0 + ticks.1) / per_second as f64)
}

fn resident_mib(pid: u32) -> anyhow::Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib / 1024.0)
}
