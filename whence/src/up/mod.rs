//! `whence up`: everything on this one machine, under one supervisor, until Ctrl-C.
//!
//! ClickHouse (embedded unless `--clickhouse-url` names one), ingest, web and the collector run as processes of
//! their own, so that each can be killed and comes back. All state is in one data directory.

mod announce;
mod data;
mod demo;
pub mod parent;
mod parts;
mod supervise;

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use tokio_util::sync::CancellationToken;
use whence_engine::Engine;
use whence_store::Store;

use crate::database::ClickHouse;
use announce::Announcer;
use data::DataDirectory;
use demo::Demo;
use supervise::Supervised;

const ADMIN: &str = "admin";
const READY_DEADLINE: Duration = Duration::from_mins(1);
const FIRST_LOOK_DEADLINE: Duration = Duration::from_secs(20);

#[derive(Args)]
pub struct Settings {
    /// Directory for everything that is kept: the audit, the spool, accounts, secrets.
    #[arg(long, env = "WHENCE_DATA", value_name = "DIR", default_value = "whence-data")]
    data: PathBuf,
    /// Address that the pages and the API are served on; port 0 picks a free one.
    #[arg(long, env = "WHENCE_LISTEN", value_name = "ADDR", default_value = "127.0.0.1:8088")]
    listen: SocketAddr,
    /// Also start a throwaway MariaDB on loopback with accounts and live traffic, to see Whence work.
    #[arg(long)]
    demo: bool,
    #[command(flatten)]
    keep: Keep,
    /// Use this ClickHouse instead of the embedded one, e.g. `http://127.0.0.1:8123`.
    #[arg(long, env = "WHENCE_CLICKHOUSE_URL", value_name = "URL")]
    clickhouse_url: Option<String>,
    /// User of that ClickHouse; it must be allowed to create tables.
    #[arg(long, env = "WHENCE_CLICKHOUSE_USER", value_name = "NAME", default_value = "default")]
    clickhouse_user: String,
    /// File with that user's password.
    #[arg(long, env = "WHENCE_CLICKHOUSE_PASSWORD_FILE", value_name = "FILE")]
    clickhouse_password_file: Option<PathBuf>,
    /// Database in that ClickHouse.
    #[arg(long, env = "WHENCE_CLICKHOUSE_DATABASE", value_name = "NAME", default_value = "whence")]
    clickhouse_database: String,
    #[arg(skip)]
    config: Option<PathBuf>,
}

/// What is kept, and where.
#[derive(Args)]
struct Keep {
    /// Where the daily heads of the chains are kept: a file, or `s3://BUCKET/PREFIX` (see `whence heads`). By default
    /// heads.ndjson in the data directory; a place that ClickHouse's owner cannot write to proves more.
    #[arg(long = "heads-to", env = "WHENCE_HEADS", value_name = "FILE|s3://…")]
    heads: Option<String>,
    /// Keep events for so many days (see `whence retention`). By default for ever.
    #[arg(long = "keep-days", env = "WHENCE_KEEP_DAYS", value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..))]
    days: Option<u32>,
}

/// ClickHouse as each part reaches it.
struct Databases {
    migrate: ClickHouse,
    ingest: ClickHouse,
    web: ClickHouse,
}

/// `config`: the configuration file, whose tables are for the parts too.
pub async fn run(mut settings: Settings, config: Option<&Path>) -> anyhow::Result<()> {
    settings.config = config.map(Path::to_owned);
    let shutdown = whence_service::shutdown::on_signal()?;
    let data = DataDirectory::open(&settings.data)?;
    let Some(listen) = shutdown.run_until_cancelled(parts::free_address(settings.listen)).await else {
        return Ok(());
    };
    let listen = listen?;
    if !settings.demo {
        return with_database(&settings, &data, listen, None, &shutdown).await;
    }
    let directory = data.demo_directory();
    let result = with_demo(&settings, &data, listen, &directory, &shutdown).await;
    demo::remove(&directory);
    result
}

async fn with_demo(
    settings: &Settings,
    data: &DataDirectory,
    listen: SocketAddr,
    directory: &Path,
    shutdown: &CancellationToken,
) -> anyhow::Result<()> {
    let (log, port) = (data.path("log/demo.log"), data.port("demo")?);
    let Some(demo) = shutdown.run_until_cancelled(Demo::start(directory, &log, port)).await else {
        return Ok(());
    };
    let demo = demo?;
    let result = with_database(settings, data, listen, Some(&demo), shutdown).await;
    demo.stop().await;
    result
}

async fn with_database(
    settings: &Settings,
    data: &DataDirectory,
    listen: SocketAddr,
    demo: Option<&Demo>,
    shutdown: &CancellationToken,
) -> anyhow::Result<()> {
    let Some(database) = shutdown.run_until_cancelled(start_database(settings, data)).await else {
        return Ok(());
    };
    let (engine, databases) = database?;
    let mut running = Vec::new();
    let result = tokio::select! {
        result = serve(settings, data, listen, demo, &databases, &mut running, shutdown) => result,
        () = shutdown.cancelled() => Ok(()),
    };
    if shutdown.is_cancelled() {
        say("stopping");
    }
    // In the order of the data's way, so that what was seen is stored before its receiver ends.
    for part in running {
        part.stop().await;
    }
    if let Some(engine) = engine {
        engine.stop().await;
    }
    result
}

/// Starts the parts into `running`, tells the person at the terminal, and goes on telling what changes.
async fn serve(
    settings: &Settings,
    data: &DataDirectory,
    listen: SocketAddr,
    demo: Option<&Demo>,
    databases: &Databases,
    running: &mut Vec<Supervised>,
    shutdown: &CancellationToken,
) -> anyhow::Result<()> {
    let store = databases.migrate.store()?;
    store.migrate().await.context("cannot prepare the ClickHouse schema")?;
    make_admin(&store, data).await?;
    let captures =
        parts::start(data, listen, databases, &settings.keep, settings.config.as_deref(), running)?;
    parts::wait_until_ready(listen, READY_DEADLINE).await?;
    let mut announcer = Announcer::new(&data.path("run/collector.json"));
    if captures {
        announcer.first_look(&data.path("log/collector.log"), FIRST_LOOK_DEADLINE).await;
    } else {
        say("capturing needs root: started without it, only the pages run; start with sudo to capture");
    }
    say(format_args!("ready: http://{listen}"));
    if let Some(demo) = demo {
        demo.traffic(shutdown.clone());
    }
    announcer.follow(shutdown.clone()).await;
    Ok(())
}

async fn start_database(
    settings: &Settings,
    data: &DataDirectory,
) -> anyhow::Result<(Option<Engine>, Databases)> {
    if let Some(url) = &settings.clickhouse_url {
        let database = ClickHouse {
            clickhouse_url: url.clone(),
            clickhouse_user: settings.clickhouse_user.clone(),
            clickhouse_password_file: settings.clickhouse_password_file.clone(),
            clickhouse_database: settings.clickhouse_database.clone(),
        };
        let answers = database.store()?.ping().await;
        answers.with_context(|| format!("ClickHouse at {url} cannot be used"))?;
        return Ok((None, Databases { migrate: database.clone(), ingest: database.clone(), web: database }));
    }
    let pid_file = data.path("run/engine.pid");
    let port = data.port("engine")?;
    let engine =
        Engine::start(crate::engine::options(&data.path("clickhouse"), Some(port), Some(pid_file))).await?;
    let database = |account: &str| ClickHouse {
        clickhouse_url: engine.url(),
        clickhouse_user: account.into(),
        clickhouse_password_file: Some(engine.password_file(account)),
        clickhouse_database: "whence".into(),
    };
    let databases = Databases {
        migrate: database("whence_migrate"),
        ingest: database("whence_ingest"),
        web: database("whence_web"),
    };
    Ok((Some(engine), databases))
}

/// Makes the first administrator, with an API token for scripts, and tells the password, when it was made now.
async fn make_admin(store: &Store, data: &DataDirectory) -> anyhow::Result<()> {
    use whence_web::people::{self, Role};

    let is_known = people::exists(store, ADMIN).await?;
    if !is_known {
        let password = data::random_text();
        people::add(store, ADMIN, &password.clone().into(), Role::Admin).await?;
        // At once: whatever happens next, it cannot be had again.
        say(format_args!("sign in as {ADMIN} with password {password} (shown this once)"));
    }
    let path = data.path("admin.token");
    if !is_known || !path.exists() {
        let token = people::issue_token(store, ADMIN, "whence up").await?;
        whence_service::secret::write(&path, &token)?;
    }
    Ok(())
}

/// Tells whoever started this, and goes on when nobody is there any more.
fn say(line: impl std::fmt::Display) {
    let _ = writeln!(std::io::stdout(), "{line}");
}
