//! `cargo xtask fuzz`: libFuzzer, guided by coverage, on what reads strangers' bytes.
//!
//! The coverage is put in by the compiler itself, so that the stable one does; it takes a C++ compiler for libFuzzer.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::{build, toolchain};

const TARGETS: [&str; 5] = ["notes", "arguments", "sql", "record", "batch"];
#[cfg(target_arch = "x86_64")]
const TRIPLE: &str = "x86_64-unknown-linux-gnu";
#[cfg(target_arch = "aarch64")]
const TRIPLE: &str = "aarch64-unknown-linux-gnu";
/// What `cargo fuzz` gives too, but for the sanitizers, which the stable compiler does not have.
const COVERAGE: [&str; 8] = [
    "--cfg=fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Ccodegen-units=1",
    "-Cdebug-assertions",
];

/// Runs `target`, or all of them, each for `seconds`.
pub fn run(target: Option<&str>, seconds: u32) -> Result<()> {
    let targets: Vec<&str> = match target {
        None => TARGETS.to_vec(),
        Some(target) if TARGETS.contains(&target) => vec![target],
        Some(target) => bail!("no such target: {target}; there are {}", TARGETS.join(", ")),
    };
    let checkout = build::checkout()?;
    let directory = build::target(checkout).join("fuzz");
    let mut compile = Command::new(toolchain::cargo());
    compile
        .current_dir(checkout)
        .args(["build", "--release", "--locked", "--package=whence-fuzz", "--features=libfuzzer"])
        .args(["--target", TRIPLE, "--target-dir"])
        .arg(&directory)
        .env("RUSTFLAGS", COVERAGE.join(" "));
    build::run(&mut compile)
        .context("among other things this needs a C++ compiler (Debian's package g++)")?;
    let program = directory.join(TRIPLE).join("release/fuzz");
    let mut failed = Vec::new();
    for target in targets {
        // What was found stays there, and the next run goes on from it.
        let corpus = directory.join("corpus").join(target);
        fs::create_dir_all(&corpus).with_context(|| format!("cannot make {}", corpus.display()))?;
        println!("fuzz {target}: {seconds} s, its corpus in {}", corpus.display());
        let status = Command::new(&program)
            .arg(&corpus)
            .args([format!("-max_total_time={seconds}"), format!("-artifact_prefix={}-", corpus.display())])
            .args([
                "-print_final_stats=1",
                "-timeout=5",
                "-rss_limit_mb=2048",
                "-max_len=65536",
                "-verbosity=0",
            ])
            .env("WHENCE_FUZZ_TARGET", target)
            .env("WHENCE_FUZZ_SEED_DIRECTORY", &corpus)
            .status()
            .context("cannot run the fuzzer")?;
        if !status.success() {
            failed.push(target);
        }
    }
    if !failed.is_empty() {
        bail!("failed: {}; the input is beside the corpus", failed.join(", "));
    }
    Ok(())
}
