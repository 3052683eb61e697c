//! The first program of a virtual machine that `cargo xtask kernels` boots: the programs in its initial file system go in,
//! what was done to the database servers and what the collector recorded of it comes out at the second serial line.
//!
//! It starts MariaDB, a program with static probes and the collector, does things to the servers, kills the collector
//! under load and starts it again, stops it, and reads its spool. Each line that comes out is one JSON object; the host
//! (`xtask/src/kernels/check.rs`) holds them against each other.

mod collector;
mod database;
mod machine;
mod report;
mod static_probes;
mod wait;

use anyhow::Result;
use collector::{Collector, Start};
use report::Report;
use static_probes::StaticProbes;

/// How often the collector is killed under load.
const KILLS: usize = 2;

fn main() {
    // There is nobody to return to: whatever happens, the machine goes off.
    let played = machine::prepare().and_then(|()| {
        let report = Report::open()?;
        let played = play(&report);
        if let Err(error) = &played {
            report.problem(&format!("{error:#}"))?;
        }
        report.end()
    });
    if let Err(error) = played {
        println!("{error:#}");
    }
    machine::power_off();
}

fn play(report: &Report) -> Result<()> {
    report.kernel()?;
    let mut collector = match Collector::start(&[])? {
        Start::Refused { status, said } => return report.refused(status, &said),
        Start::Runs(collector) => collector,
    };
    database::start()?;
    let mut static_probes = StaticProbes::start()?;
    let servers = ["MariaDB", "usdt-server"];
    collector.wait_until_watching(&servers)?;

    database::make_accounts(report)?;
    database::ordinary_work(report)?;
    static_probes.ordinary_work(report)?;
    for _ in 0..KILLS {
        let load = database::load();
        load.wait_until_under_way()?;
        static_probes.command(report, "SELECT 'before the collector is killed'")?;
        collector.kill()?;
        static_probes.command(report, "SELECT 'while no collector runs'")?;
        collector = match Collector::start(&servers)? {
            Start::Refused { said, .. } => anyhow::bail!("the second collector did not start: {said}"),
            Start::Runs(collector) => collector,
        };
        load.end(report)?;
    }
    collector.stop()?;
    collector::tell_spool(report)
}
