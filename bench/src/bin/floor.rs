//! What `bench/overhead` needs to know of a binary, and the empty probes on it.

use std::io::{Read as _, Write as _, stdin, stdout};
use std::path::PathBuf;

use clap::{Parser, Subcommand};
use whence_bench::floor::Floor;
use whence_collector::offsets;

#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Puts an empty probe on each place of BINARY that the collector probes, until the end of the input; then prints how
    /// often they were hit.
    Attach { binary: PathBuf },
    /// Prints where BINARY keeps what other tracers print, as shell variables.
    Offsets { binary: PathBuf },
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Attach { binary } => {
            let floor = Floor::attach(&binary)?;
            println!("attached");
            stdout().flush()?;
            stdin().read_to_end(&mut Vec::new())?;
            println!("hits {}", floor.hits()?);
        }
        Command::Offsets { binary } => {
            let targets = offsets::derive(&binary, &offsets::Table::load(None)?)?.targets;
            let layout = targets.layout;
            println!("dispatch={:#x}", targets.dispatch_command);
            println!("security={} user={}", layout.security_context, layout.priv_user.offset);
            println!("host={} database={}", layout.host.offset, layout.database);
            println!("connection={}", layout.thread_id);
            println!("diagnostics={} status={}", layout.diagnostics, layout.status);
            println!("error={} failed={}", layout.error_code, layout.status_error);
        }
    }
    Ok(())
}
