//! Chores of those who work on Whence: `cargo xtask <chore>`.

mod build;
mod packages;
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
}

fn main() -> Result<()> {
    match Arguments::parse().chore {
        Chore::Ebpf { check } => build::object(check),
    }
}
