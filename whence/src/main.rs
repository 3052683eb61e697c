//! The one binary for people: starts everything on one machine, or each part on its own.

mod collect;
mod collectors;
mod database;
mod doctor;
mod engine;
mod enroll;
mod heads;
mod ingest;
mod migrate;
mod people;
mod retention;
mod spool;
mod terminal;
mod up;
mod verify;
mod web;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use whence_collector::probe::ProbeError;
use whence_service::config::{self, ConfigError, EXIT_BAD_CONFIG};

/// Exit status for a kernel that lacks what capturing needs (`EX_UNAVAILABLE` of sysexits.h).
const EXIT_UNAVAILABLE: u8 = 69;
const END_DEADLINE: Duration = Duration::from_secs(5);

/// Records who reached a database, from where, when, with which command, for how long and with what result.
#[derive(Parser)]
#[command(version, arg_required_else_help = true)]
struct Cli {
    /// TOML file with one table per subcommand; the environment and the flags win over it.
    #[arg(long, global = true, env = "WHENCE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Check the configuration and end: exit status 0 when it can be used, 64 when not.
    #[arg(long, global = true)]
    check_config: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start everything on this machine and capture the database servers that run here.
    Up(Box<up::Settings>),
    /// Watch the database servers of this host and ship what they do to ingest.
    Collect(Box<collect::Settings>),
    /// Say what of this host's database servers can be watched, what not, and why: exit status 0 when all is well, 1 when
    /// not. With --learn: make an entry of the table of offsets.
    Doctor(doctor::Settings),
    /// Make the collector of this host known to ingest before it runs; `collect` with a token does it by itself.
    Enroll(enroll::Settings),
    /// List the collectors that enrolled, and revoke them.
    #[command(subcommand)]
    Collectors(collectors::Action),
    /// Show what lies in the spool of this host's collector, repair it, or export it.
    #[command(subcommand)]
    Spool(spool::Action),
    /// Receive batches from collectors, check them and write them to ClickHouse.
    Ingest(ingest::Settings),
    /// Serve the pages and the API.
    Web(web::Settings),
    /// Bring the ClickHouse schema to this version.
    Migrate(migrate::Settings),
    /// Make people's accounts and API tokens.
    #[command(subcommand)]
    People(people::Action),
    /// Prove that nothing was changed in ClickHouse, or in an exported file: exit status 0 when clean, 1 when not.
    Verify(Box<verify::Settings>),
    /// Keep, day by day and outside of ClickHouse, where the collectors' chains are.
    Heads(heads::Settings),
    /// Remove what is older than it must be kept, declared and signed so that it can be told from tampering.
    Retention(retention::Settings),
    /// Run the embedded ClickHouse alone.
    Engine(engine::Settings),
    /// What the embedded ClickHouse runs in.
    #[command(hide = true)]
    EngineChild(engine::ChildSettings),
}

fn main() -> ExitCode {
    // `ps` would say "exe" of a part of `whence up`. Nothing depends on it.
    let _ = nix::sys::prctl::set_name(c"whence");
    let cli: Cli = match config::parse() {
        Ok(cli) => cli,
        Err(ConfigError::Arguments(error)) => {
            // Help and version are no errors; if they cannot be printed there is no one to tell.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(EXIT_BAD_CONFIG) } else { ExitCode::SUCCESS };
        }
        Err(error) => {
            eprintln!("whence: {error}");
            return ExitCode::from(EXIT_BAD_CONFIG);
        }
    };
    if let Command::Collect(settings) = &cli.command {
        match settings.policy() {
            Ok(policy) if cli.check_config => println!("{policy}"),
            Ok(_) => {}
            Err(error) => {
                eprintln!("whence: {error}");
                return ExitCode::from(EXIT_BAD_CONFIG);
            }
        }
    }
    if cli.check_config {
        println!("the configuration can be used");
        return ExitCode::SUCCESS;
    }
    match &cli.command {
        Command::EngineChild(settings) => return engine::child(settings),
        Command::Verify(settings) => return verify::run(settings),
        Command::Doctor(settings) => return doctor::run(settings),
        Command::Spool(action) => return spool::run(action),
        _ => whence_service::logs::init(),
    }
    // Before there is a second thread.
    if let Command::Collect(settings) = &cli.command
        && let Err(error) = collect::give_up_privileges(settings)
    {
        eprintln!("whence: {error}");
        return ExitCode::FAILURE;
    }
    up::parent::follow();
    let result = tokio::runtime::Runtime::new().map_err(Into::into).and_then(|runtime| {
        let result = runtime.block_on(run(cli.command, cli.config.as_deref()));
        // What was given up may still be in a call that blocks, a download say.
        runtime.shutdown_timeout(END_DEADLINE);
        result
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("whence: {error:#}");
            exit_status(&error)
        }
    }
}

/// A machine that capturing is not possible on is told apart from what may go better at the next attempt.
fn exit_status(error: &anyhow::Error) -> ExitCode {
    match error.downcast_ref::<ProbeError>() {
        Some(ProbeError::Kernel(_)) => ExitCode::from(EXIT_UNAVAILABLE),
        _ => ExitCode::FAILURE,
    }
}

async fn run(command: Command, config: Option<&Path>) -> anyhow::Result<()> {
    match command {
        Command::Up(settings) => up::run(*settings, config).await,
        Command::Collect(settings) => collect::run(*settings).await,
        Command::Enroll(settings) => enroll::run(&settings).await,
        Command::Collectors(action) => collectors::run(action).await,
        Command::Ingest(settings) => ingest::run(settings).await,
        Command::Web(settings) => web::run(settings).await,
        Command::Migrate(settings) => migrate::run(settings).await,
        Command::People(action) => people::run(action).await,
        Command::Heads(settings) => heads::run(settings).await,
        Command::Retention(settings) => retention::run(settings).await,
        Command::Engine(settings) => engine::run(settings).await,
        Command::EngineChild(_) | Command::Verify(_) | Command::Doctor(_) | Command::Spool(_) => Ok(()),
    }
}
