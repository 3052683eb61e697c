//! `whence doctor`: what of this host's database servers can be watched, what not, and why.

mod learn;
mod text;

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use whence_collector::doctor::{Places, Report};
use whence_collector::offsets::Table;
use whence_service::config::EXIT_BAD_CONFIG;

#[derive(Args)]
pub struct Settings {
    /// Print the report as JSON.
    #[arg(long, conflicts_with = "learn")]
    json: bool,
    /// Instead of a report, print the entry of the table of offsets for this server binary, so that its stripped copies
    /// can be watched.
    #[arg(long, value_name = "BINARY")]
    learn: Option<PathBuf>,
    /// The debug information of that binary, where it is in a file that is not found by itself.
    #[arg(long, value_name = "FILE", requires = "learn")]
    debug_file: Option<PathBuf>,
    /// Add the entry to this file instead of printing it.
    #[arg(long, value_name = "FILE", requires = "learn")]
    into: Option<PathBuf>,
    /// The collector's table of offsets: a file, or a directory of files `*.toml`.
    #[arg(long, env = "WHENCE_OFFSETS", value_name = "PATH")]
    offsets: Option<PathBuf>,
    /// The collector's status file.
    #[arg(
        long,
        env = "WHENCE_STATUS_FILE",
        value_name = "FILE",
        default_value = "/run/whence/collector.json"
    )]
    status_file: PathBuf,
    /// The collector's spool.
    #[arg(long, env = "WHENCE_SPOOL_DIR", value_name = "DIR", default_value = "/var/lib/whence/spool")]
    spool_dir: PathBuf,
    /// The collector's directory of pinned probes.
    #[arg(long, env = "WHENCE_PIN_DIR", value_name = "DIR", default_value = "/sys/fs/bpf/whence")]
    pin_dir: PathBuf,
}

/// Exit status: 0 when all is well, 1 when something cannot be watched or learnt, 64 for a table that cannot be used.
pub fn run(settings: &Settings) -> ExitCode {
    let table = match Table::load(settings.offsets.as_deref()) {
        Ok(table) => table,
        Err(error) => {
            eprintln!("whence: {error}");
            return ExitCode::from(EXIT_BAD_CONFIG);
        }
    };
    let result = match &settings.learn {
        Some(binary) => learn::run(binary, settings.debug_file.as_deref(), settings.into.as_deref(), &table)
            .map(|()| true),
        None => report(settings, &table).map_err(Into::into),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("whence: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Prints it; whether all is well.
fn report(settings: &Settings, table: &Table) -> io::Result<bool> {
    let places = Places {
        status_file: settings.status_file.clone(),
        spool_dir: settings.spool_dir.clone(),
        pin_dir: settings.pin_dir.clone(),
    };
    let report = Report::make(table, &places);
    let text = if settings.json { serde_json::to_string_pretty(&report)? + "\n" } else { text::of(&report) };
    io::stdout().write_all(text.as_bytes())?;
    Ok(report.is_well())
}
