//! Measures the way from the spool to ClickHouse: see `bench/pipeline`.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::ensure;
use clap::Parser;
use whence_bench::pipeline::parts::{Parts, Usage};
use whence_bench::pipeline::{backlog, crowd, rate};

/// Measures how fast Whence brings events from the spool into ClickHouse.
#[derive(Parser)]
struct Cli {
    /// The program `whence`.
    #[arg(long)]
    program: PathBuf,
    /// Events in the backlog of one collector.
    #[arg(long, default_value_t = 10_000_000)]
    events: u64,
    /// Collectors that send at once; 0 leaves this part out.
    #[arg(long, default_value_t = 1000)]
    collectors: usize,
    /// Events per second of all of them; half of what the backlog reached by default.
    #[arg(long)]
    rate: Option<f64>,
    /// How long they send.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let parts = Parts::start(&cli.program).await?;
    let spool = tempfile::Builder::new().prefix("whence-bench-").tempdir()?;
    let shipped = backlog::ship(&parts, spool.path(), cli.events).await?;
    let stored = parts.clickhouse("whence")?.query("SELECT count() FROM events").fetch_one::<u64>().await?;
    ensure!(stored == cli.events, "{stored} of {} events are stored", cli.events);
    let reached = rate(cli.events, shipped.seconds);
    println!("{} events from the spool to confirmed rows in {:.1} s", cli.events, shipped.seconds);
    print_usage(&shipped.usage, cli.events);
    let (least, most) = shipped.memory.iter().fold((f64::MAX, 0.0_f64), |(a, b), m| (a.min(*m), b.max(*m)));
    println!("bytes on the wire per event: {:.1}", rate(shipped.bytes, rate(cli.events, 1.0)));
    println!("memory of ingest: {least:.0} to {most:.0} MiB");

    if cli.collectors > 0 {
        let per_second = cli.rate.unwrap_or(reached / 2.0);
        let time = Duration::from_secs(cli.seconds);
        let crowd = crowd::run(&parts, cli.collectors, per_second, time).await?;
        println!(
            "\n{} collectors, {:.0} events/s wanted, {:.0} confirmed; event to searchable: median {:.2} s, p99 {:.2} s, \
             longest {:.2} s; {} requests sent again",
            cli.collectors,
            per_second,
            crowd.per_second(),
            crowd.percentile(50),
            crowd.percentile(99),
            crowd.percentile(100),
            crowd.again
        );
        print_usage(&crowd.usage, crowd.events);
        println!("memory of ingest at the end: {:.0} MiB", crowd.usage.ingest_memory);
    }

    let (alone, clickhouse) = backlog::alone(&parts, cli.events.min(2_000_000)).await?;
    println!("\nClickHouse alone, same rows and tables: {clickhouse:.2} s of its CPU per million events");
    parts.stop().await?;
    println!("events_per_second {reached:.0} clickhouse_alone {alone:.0}");
    Ok(())
}

fn print_usage(usage: &Usage, events: u64) {
    let per_million = |seconds: f64| seconds * 1e6 / rate(events, 1.0);
    println!(
        "CPU seconds per million events: collector {:.2}, ingest {:.2}, ClickHouse {:.2}",
        per_million(usage.collector),
        per_million(usage.ingest),
        per_million(usage.clickhouse)
    );
}
