//! The real embedded ClickHouse for tests: one engine per test process, a database per test.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, bail};
use secrecy::SecretString;
use whence_engine::{Engine, EngineOptions};
use whence_store::{ConnectOptions, Store};

/// The engine of this test process, started at the first call. It ends with the process.
///
/// # Panics
///
/// When it cannot be started; every test that needs it fails with the reason.
pub fn clickhouse() -> &'static Engine {
    static ENGINE: OnceLock<Result<Engine, String>> = OnceLock::new();
    let engine = ENGINE.get_or_init(|| {
        // A test's runtime ends with the test; the engine's supervisor needs one that stays.
        std::thread::spawn(start).join().unwrap_or_else(|_| Err("its thread panicked".into()))
    });
    match engine {
        Ok(engine) => engine,
        Err(error) => panic!("the embedded ClickHouse cannot be started: {error}"),
    }
}

fn start() -> Result<Engine, String> {
    let start = || {
        let program = engine_program()?;
        let directory = remove_at_exit(tempfile::Builder::new().prefix("whence-test-").tempdir()?);
        let options = EngineOptions {
            directory,
            http_port: None,
            child: vec![program.display().to_string()],
            pid_file: None,
        };
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let engine = runtime.block_on(Engine::start(options))?;
        std::mem::forget(runtime);
        anyhow::Ok(engine)
    };
    start().map_err(|error| format!("{error:#}"))
}

/// Leaves the removal of the directory to a shell that outlives this process: a test process ends without
/// running destructors of statics.
fn remove_at_exit(directory: tempfile::TempDir) -> PathBuf {
    let path = directory.keep();
    let script = "while kill -0 \"$1\" 2>/dev/null; do sleep 1; done; sleep 3; rm -rf -- \"$2\"";
    let mut cleaner = Command::new("sh");
    cleaner.args(["-c", script, "sh", &std::process::id().to_string()]).arg(&path);
    cleaner.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null());
    std::os::unix::process::CommandExt::process_group(&mut cleaner, 0);
    // Without it a directory stays in the temporary directory, nothing worse.
    let _ = cleaner.stderr(std::process::Stdio::null()).spawn();
    path
}

/// The engine's own small program, beside the test executable in `target/`. `cargo test --workspace` has built it;
/// a test of one package builds it here when it is not there or older than its source.
pub fn engine_program() -> anyhow::Result<PathBuf> {
    let test = std::env::current_exe()?;
    let profile = test.ancestors().nth(2).context("the test executable lies in no target directory")?;
    let program = profile.join("whence-engine");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../engine/src/child.rs");
    let changed = |path: &Path| path.metadata().and_then(|metadata| metadata.modified());
    if let (Ok(built), Ok(written)) = (changed(&program), changed(&source))
        && built > written
    {
        return Ok(program);
    }
    let built = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "--quiet", "--package", "whence-engine", "--bin", "whence-engine"])
        .args((profile.file_name() == Some("release".as_ref())).then_some("--release"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()?;
    if !built.success() || !program.is_file() {
        bail!("cannot build {}", program.display());
    }
    Ok(program)
}

/// An empty database of one test, migrated unless made with [`TestDatabase::empty`].
pub struct TestDatabase {
    pub store: Store,
    pub name: String,
}

impl TestDatabase {
    /// A migrated database named after the test.
    ///
    /// # Panics
    ///
    /// When it cannot be made.
    pub async fn new(test: &str) -> Self {
        let database = Self::empty(test).await;
        if let Err(error) = database.store.migrate().await {
            panic!("{test}: {error}");
        }
        database
    }

    /// No database yet, only a name for it, and a [`Store`] that may make it.
    ///
    /// # Panics
    ///
    /// When the engine cannot be started.
    pub async fn empty(test: &str) -> Self {
        let Ok(engine) = tokio::task::spawn_blocking(clickhouse).await else {
            panic!("{test}: the embedded ClickHouse cannot be started");
        };
        let name = format!("whence_{test}");
        let store = connect(engine, &name);
        Self { store, name }
    }

    /// Address, user and password for other programs that use this database.
    pub fn options(&self) -> ConnectOptions {
        options(clickhouse(), &self.name)
    }
}

fn connect(engine: &Engine, database: &str) -> Store {
    Store::connect(options(engine, database))
}

fn options(engine: &Engine, database: &str) -> ConnectOptions {
    ConnectOptions {
        url: engine.url(),
        user: "whence_migrate".into(),
        password: engine.password("whence_migrate").unwrap_or_else(|_| SecretString::from("")),
        database: database.into(),
    }
}
