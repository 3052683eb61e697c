//! `cargo xtask tamper` and `cargo xtask faults`: the long forms of tests that go on for as many rounds as one likes.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::toolchain;

/// A long series of random changes to a stored audit, each of which must be found: ends with `found F of N`.
pub const TAMPER: Series = Series {
    target: &["--package", "whence-store", "--test", "it"],
    test: "tamper::every_random_change_is_found",
    variables: "WHENCE_TAMPER",
    result: "found ",
    failure: "not every change was found",
};

/// Rounds of faults, after each of which everything is accounted for: ends with `rounds N findings F seed S`.
pub const FAULTS: Series = Series {
    target: &["--package", "whence-e2e", "--test", "faults"],
    test: "nothing_is_lost_in_silence_and_nothing_is_there_twice",
    variables: "WHENCE_FAULT",
    result: "rounds ",
    failure: "not everything was accounted for",
};

/// A test that reads its rounds and its seed from the environment, and prints one line of result.
pub struct Series {
    target: &'static [&'static str],
    test: &'static str,
    /// Begin of the names of its variables.
    variables: &'static str,
    /// Begin of its last line.
    result: &'static str,
    failure: &'static str,
}

impl Series {
    /// Runs it, and ends with its result.
    pub fn run(&self, rounds: u32, seed: Option<u64>, first: Option<u64>) -> Result<()> {
        let mut command = Command::new(toolchain::cargo());
        command.args(["test", "--quiet"]).args(self.target).args(["--", "--exact", self.test, "--nocapture"]);
        command.env(format!("{}_ROUNDS", self.variables), rounds.to_string());
        for (name, number) in [("SEED", seed), ("FIRST", first)] {
            if let Some(number) = number {
                command.env(format!("{}_{name}", self.variables), number.to_string());
            }
        }
        let mut child = command.stdout(Stdio::piped()).spawn().context("cannot run cargo")?;
        let output = child.stdout.take().context("cargo has no output")?;
        let mut result = None;
        for line in BufReader::new(output).lines() {
            let line = line?;
            if line.starts_with(self.result) {
                result = Some(line);
            } else {
                println!("{line}");
            }
        }
        let status = child.wait()?;
        println!("{}", result.context("the test ended before its time")?);
        if !status.success() {
            bail!(self.failure);
        }
        Ok(())
    }
}
