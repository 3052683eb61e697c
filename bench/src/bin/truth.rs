//! Runs the truth test and exits with 1 when a record and Whence differ.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use whence_bench::truth::run;
use whence_testkit::Product;

/// Holds what Whence recorded of a mixed load against the servers' own logs and the client's journal.
#[derive(Parser)]
struct Cli {
    /// About how many commands are sent to each server.
    #[arg(long, default_value_t = 20_000)]
    commands: usize,
    /// Such as mariadb-10.11 or mysql-9.7, several divided by commas; all by default.
    #[arg(long, value_parser = product, value_delimiter = ',')]
    server: Vec<Product>,
    /// The load is the same for the same seed; a random one by default.
    #[arg(long)]
    seed: Option<u64>,
    /// Leave the servers' logs and Whence's data in a directory in here.
    #[arg(long, value_name = "DIRECTORY")]
    keep: Option<PathBuf>,
}

/// The server that `key` names.
fn product(key: &str) -> Result<Product, String> {
    let known = || Product::ALL.map(Product::key).join(", ");
    Product::ALL
        .into_iter()
        .find(|product| product.key() == key)
        .ok_or_else(|| format!("the servers are {}", known()))
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let cli = Cli::parse();
    let seed = cli.seed.unwrap_or_else(|| u64::from(rand::random::<u32>()));
    println!("seed {seed}");
    let products = if cli.server.is_empty() { Product::ALL.to_vec() } else { cli.server };
    let mut is_true = true;
    for product in products {
        let report = run(product, cli.commands, seed, cli.keep.as_deref()).await?;
        println!("{report}");
        is_true &= report.is_true();
    }
    Ok(if is_true { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
