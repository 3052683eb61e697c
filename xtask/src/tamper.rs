//! `cargo xtask tamper`: a long series of random changes to a stored audit, each of which must be found.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::toolchain;

/// Runs the test that does it, and ends with its `found F of N`.
pub fn run(rounds: u32, seed: Option<u64>) -> Result<()> {
    let mut command = Command::new(toolchain::cargo());
    command.args(["test", "--quiet", "--package", "whence-store", "--test", "it", "--"]);
    command.args(["--exact", "tamper::every_random_change_is_found", "--nocapture"]);
    command.env("WHENCE_TAMPER_ROUNDS", rounds.to_string());
    if let Some(seed) = seed {
        command.env("WHENCE_TAMPER_SEED", seed.to_string());
    }
    let mut child = command.stdout(Stdio::piped()).spawn().context("cannot run cargo")?;
    let output = child.stdout.take().context("cargo has no output")?;
    let mut found = None;
    for line in BufReader::new(output).lines() {
        let line = line?;
        if line.starts_with("found ") {
            found = Some(line);
        } else {
            println!("{line}");
        }
    }
    let status = child.wait()?;
    println!("{}", found.context("the test ended before its time")?);
    if !status.success() {
        bail!("not every change was found");
    }
    Ok(())
}
