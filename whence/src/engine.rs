//! `whence engine`: the embedded ClickHouse alone, and the process that it runs in.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use whence_engine::{ACCOUNTS, ChildOptions, Engine, EngineOptions, run_child};

/// This program, also when its file was replaced or removed since.
pub const PROGRAM: &str = "/proc/self/exe";

#[derive(Args)]
pub struct Settings {
    /// Directory for its data, its configuration and the passwords of its accounts.
    #[arg(long, env = "WHENCE_ENGINE_DIR", value_name = "DIR", default_value = "/var/lib/whence/engine")]
    directory: PathBuf,
    /// Port of ClickHouse's HTTP interface on 127.0.0.1.
    #[arg(long, env = "WHENCE_ENGINE_PORT", value_name = "PORT", default_value_t = 8123)]
    port: u16,
}

/// How the supervisor calls the process that is the engine.
#[derive(Args)]
pub struct ChildSettings {
    #[arg(long)]
    library: PathBuf,
    #[arg(long)]
    config_file: PathBuf,
    #[arg(long)]
    path: PathBuf,
    #[arg(long)]
    http_port: u16,
}

pub async fn run(settings: Settings) -> anyhow::Result<()> {
    let shutdown = whence_service::shutdown::on_signal()?;
    let engine = Engine::start(options(&settings.directory, Some(settings.port), None)).await?;
    println!("ClickHouse answers at {}", engine.url());
    for account in ACCOUNTS {
        println!("password of {}: in {}", account.name, engine.password_file(account.name).display());
    }
    whence_service::notify::ready();
    shutdown.cancelled().await;
    engine.stop().await;
    Ok(())
}

/// The engine in `directory`, run by this program.
pub fn options(directory: &Path, http_port: Option<u16>, pid_file: Option<PathBuf>) -> EngineOptions {
    EngineOptions {
        directory: directory.into(),
        http_port,
        child: vec![PROGRAM.into(), "engine-child".into()],
        pid_file,
    }
}

pub fn child(settings: &ChildSettings) -> ExitCode {
    let options = ChildOptions {
        library: settings.library.clone(),
        config: settings.config_file.clone(),
        data: settings.path.clone(),
        http_port: settings.http_port,
    };
    match run_child(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("whence: {error}");
            ExitCode::FAILURE
        }
    }
}
