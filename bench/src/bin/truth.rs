//! Runs the truth test and exits with 1 when a record and Whence differ.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use whence_bench::truth::{Product, run};

/// Holds what Whence recorded of a mixed load against the servers' own logs and the client's journal.
#[derive(Parser)]
struct Cli {
    /// About how many commands are sent to each server.
    #[arg(long, default_value_t = 20_000)]
    commands: usize,
    #[arg(long, value_enum, default_value_t = Choice::All)]
    server: Choice,
    /// The load is the same for the same seed; a random one by default.
    #[arg(long)]
    seed: Option<u64>,
    /// Leave the servers' logs and Whence's data in a directory in here.
    #[arg(long, value_name = "DIRECTORY")]
    keep: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Choice {
    #[value(name = "mariadb")]
    MariaDb,
    #[value(name = "mysql56")]
    MySql56,
    All,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let cli = Cli::parse();
    let seed = cli.seed.unwrap_or_else(|| u64::from(rand::random::<u32>()));
    println!("seed {seed}");
    let products: &[Product] = match cli.server {
        Choice::MariaDb => &[Product::MariaDb],
        Choice::MySql56 => &[Product::MySql56],
        Choice::All => &Product::ALL,
    };
    let mut is_true = true;
    for &product in products {
        let report = run(product, cli.commands, seed, cli.keep.as_deref()).await?;
        println!("{report}");
        is_true &= report.is_true();
    }
    Ok(if is_true { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
