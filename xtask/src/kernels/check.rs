//! What was done in the virtual machine and what the collector recorded go in, as JSON lines; a verdict comes out.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::Kernel;

/// Deeds that are named when they do not fit.
const NAMED: usize = 5;

/// How often each thing was done, less how often it was recorded.
type Balance = BTreeMap<String, i64>;

/// The verdict in words; an error when the collector did not do what it should on this kernel.
pub fn check(kernel: &Kernel, report: &str) -> Result<String> {
    let (mut release, mut refused, mut ended) = (String::new(), None, false);
    let (mut balance, mut done) = (Balance::new(), 0);
    for line in report.lines() {
        let line: Value = serde_json::from_str(line.trim()).with_context(|| format!("not JSON: {line}"))?;
        let (name, value) = line.as_object().and_then(|line| line.iter().next()).context("an empty line")?;
        match name.as_str() {
            "kernel" => value.as_str().unwrap_or_default().clone_into(&mut release),
            "did" => {
                done += 1;
                *balance.entry(value.to_string()).or_default() += 1;
            }
            "recorded" => *balance.entry(value.to_string()).or_default() -= 1,
            "refused" => refused = Some(value.clone()),
            "end" => ended = true,
            // A problem, or a loss.
            _ => bail!(
                "{release}: {name}: {}",
                value.as_str().map_or_else(|| value.to_string(), str::to_owned)
            ),
        }
    }
    ensure!(ended, "{release}: the report breaks off");
    match (kernel.refusal, refused) {
        (Some(words), Some(refused)) => refusal(&release, words, &refused),
        (Some(_), None) => {
            bail!("{release}: captures on it, which was not expected: say so in the documents")
        }
        (None, Some(refused)) => bail!("{release}: the collector refused it: {refused}"),
        (None, None) => verdict(&release, &balance, done),
    }
}

/// `EX_UNAVAILABLE`, and what is lacking by name.
fn refusal(release: &str, words: &[&str], refused: &Value) -> Result<String> {
    let said = refused["said"].as_str().unwrap_or_default();
    ensure!(refused["status"] == 69, "{release}: refused with the exit status {}: {said}", refused["status"]);
    for word in words {
        ensure!(said.contains(word), "{release}: the refusal does not name {word}: {said}");
    }
    Ok(format!("{release} is refused as it should be: {said}"))
}

fn verdict(release: &str, balance: &Balance, done: u64) -> Result<String> {
    let differing = |sign: i64| -> Vec<&str> {
        balance.iter().filter(|(_, left)| left.signum() == sign).map(|(deed, _)| deed.as_str()).collect()
    };
    let (missing, extra) = (differing(1), differing(-1));
    ensure!(
        missing.is_empty() && extra.is_empty(),
        "{release}: of {done} things done {} are missing or too few and {} too many:\n  missing {}\n  extra {}",
        missing.len(),
        extra.len(),
        missing[..missing.len().min(NAMED)].join("\n  missing "),
        extra[..extra.len().min(NAMED)].join("\n  extra ")
    );
    ensure!(done > 0, "{release}: nothing was done");
    Ok(format!("{release}: missing 0 extra 0 lost 0 of {done}"))
}
