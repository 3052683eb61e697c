//! Chores of those who work on Whence: `cargo xtask <chore>`.

mod build;
mod fuzz;
mod kernels;
mod packages;
mod series;
mod toolchain;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Chores of those who work on Whence.
#[derive(Parser)]
#[command(name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Build the BPF object collector-ebpf/prebuilt/whence.bpfel.o, installing the compiler for it into the cache
    /// (`WHENCE_CACHE`, else /var/cache/whence for root, else ~/.cache/whence) the first time.
    Ebpf {
        /// Write nothing; fail when the object that is there is not what the source builds to.
        #[arg(long)]
        check: bool,
    },
    /// Fuzz what reads strangers' bytes, guided by coverage.
    Fuzz {
        /// One of notes, arguments, sql, record, batch; all when there is none.
        target: Option<String>,
        /// How long, of each target.
        #[arg(long, default_value_t = 300)]
        seconds: u32,
    },
    /// Capture on other kernels: boot each in qemu with a MariaDB, a program with static probes and the collector, and hold
    /// what was recorded against what was done. Kernels and tools are Debian's; kernels are kept in the cache.
    Kernels {
        /// Kernels to try: 5.10, 6.1, 6.12; all of them by default.
        versions: Vec<String>,
        /// Use the processor's virtualisation, where /dev/kvm works; without it the machine is emulated, which takes
        /// about a minute each and works everywhere.
        #[arg(long)]
        kvm: bool,
    },
    /// Kill, cut off, hold up, fill and damage the parts of Whence under load, again and again, and see that nothing is lost
    /// in silence and nothing is there twice. Needs root.
    Faults {
        /// How many rounds, of about ten seconds each.
        #[arg(long, default_value_t = 100)]
        rounds: u32,
        /// Seed of the schedule, as an earlier run printed it.
        #[arg(long)]
        seed: Option<u64>,
        /// Which round of the schedule is the first.
        #[arg(long)]
        first: Option<u64>,
    },
    /// Change a stored audit at random, again and again, and see that `whence verify` would find every change.
    Tamper {
        /// How many changes.
        #[arg(long, default_value_t = 1000)]
        rounds: u32,
        /// Seed of the choices, as an earlier run printed it.
        #[arg(long)]
        seed: Option<u64>,
    },
}

fn main() -> Result<()> {
    match Arguments::parse().chore {
        Chore::Ebpf { check } => build::object(check),
        Chore::Fuzz { target, seconds } => fuzz::run(target.as_deref(), seconds),
        Chore::Kernels { versions, kvm } => kernels::run(&versions, kvm),
        Chore::Faults { rounds, seed, first } => series::FAULTS.run(rounds, seed, first),
        Chore::Tamper { rounds, seed } => series::TAMPER.run(rounds, seed, None),
    }
}
