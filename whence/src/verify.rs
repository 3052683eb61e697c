//! `whence verify`: recomputes from ClickHouse what the collectors signed, and names whatever was changed since; or
//! compares an exported file with its signed manifest.

mod file;

use std::io::{BufWriter, IsTerminal, Stdout, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use chrono::{DateTime, NaiveDate};
use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use whence_chain::PublicKey;
use whence_model::{CollectorId, InstanceId, Timestamp};
use whence_proof::heads::{DayHeads, Head, Target};
use whence_service::config::EXIT_BAD_CONFIG;
use whence_store::read::Window;
use whence_store::verify::{Chain, Finding, KnownHead, Outside, Scope, Step, Summary};

use crate::database::ClickHouse;
use crate::heads::Bucket;
use crate::terminal::printable;

/// Exit status when the record is not what was signed.
const EXIT_FINDINGS: u8 = 1;
/// Exit status when it could not be verified.
const EXIT_NOT_VERIFIED: u8 = 2;

#[derive(Args)]
#[command(mut_arg("clickhouse_url", |url| url.required(false).default_value("").hide_default_value(true)))]
pub struct Settings {
    /// Verify this exported file instead, a .zip or a file with its manifest beside it. Needs no ClickHouse; with one,
    /// also that the chains still hold what they held when it was exported.
    #[arg(value_name = "FILE", conflicts_with_all = ["from", "instance", "collector", "heads"])]
    file: Option<PathBuf>,
    /// The file's manifest, when it is not FILE.manifest.json.
    #[arg(long, value_name = "FILE", requires = "file")]
    manifest: Option<PathBuf>,
    /// Public key of the service that signs exports and declares what expired: 64 hexadecimal digits, as
    /// `/api/v1/keys` shows it, or a file with them. Can be given several times.
    #[arg(long = "key", env = "WHENCE_SERVICE_KEYS", value_name = "KEY", value_delimiter = ',', value_parser = key)]
    key: Vec<PublicKey>,
    /// Compare with the daily heads in this file, or under `s3://BUCKET/PREFIX`.
    #[arg(long, env = "WHENCE_HEADS", value_name = "FILE|s3://…")]
    heads: Option<String>,
    #[command(flatten)]
    s3: Bucket,
    /// Verify what happened from this time on: `2026-11-23` or `2026-11-23T08:00:00Z`. Needs --to.
    #[arg(long, value_name = "TIME", value_parser = time, requires = "to")]
    from: Option<Timestamp>,
    /// … and before this time. Needs --from.
    #[arg(long, value_name = "TIME", value_parser = time, requires = "from")]
    to: Option<Timestamp>,
    /// Verify the collectors that watched this instance.
    #[arg(long, value_name = "ID")]
    instance: Option<InstanceId>,
    /// Verify this collector only.
    #[arg(long, value_name = "ID")]
    collector: Option<CollectorId>,
    /// Print findings, chains and the summary as JSON lines.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    clickhouse: ClickHouse,
}

fn time(text: &str) -> Result<Timestamp, String> {
    if let Ok(at) = DateTime::parse_from_rfc3339(text) {
        return Ok(Timestamp::from(at.to_utc()));
    }
    let day = text.parse::<NaiveDate>().ok().and_then(|day| day.and_hms_opt(0, 0, 0));
    let wrong = || "not a time: give 2026-11-23 (UTC) or 2026-11-23T08:00:00Z".to_owned();
    Ok(Timestamp::from(day.ok_or_else(wrong)?.and_utc()))
}

fn key(text: &str) -> Result<PublicKey, String> {
    let wrong = "no public key: give 64 hexadecimal digits, as /api/v1/keys shows them, or a file with them";
    if let Some(key) = PublicKey::parse(text) {
        return Ok(key);
    }
    let held = std::fs::read_to_string(text).map_err(|error| format!("{wrong} ({error})"))?;
    PublicKey::parse(&held).ok_or_else(|| wrong.to_owned())
}

/// Exit status: 0 clean, 1 with findings, 2 when it could not be verified, 64 for a window that is none.
pub fn run(settings: &Settings) -> ExitCode {
    if let Some(file) = &settings.file {
        return file::run(settings, file);
    }
    if settings.clickhouse.clickhouse_url.is_empty() {
        eprintln!("whence: say what to verify: --clickhouse-url URL, or an exported FILE");
        return ExitCode::from(EXIT_BAD_CONFIG);
    }
    let window = settings.from.zip(settings.to).map(|(from, to)| Window { from, to });
    if window.is_some_and(|window| window.from >= window.to) {
        eprintln!("whence: --from must be before --to");
        return ExitCode::from(EXIT_BAD_CONFIG);
    }
    let scope = Scope { window, instance: settings.instance, collector: settings.collector };
    let is_named = settings.collector.is_some() || settings.instance.is_some();
    match verify(settings, &scope) {
        Ok(Summary { findings: 0, collectors: 0, .. }) if is_named => {
            eprintln!("whence: not verified: nothing of this collector or instance is stored");
            ExitCode::from(EXIT_NOT_VERIFIED)
        }
        Ok(Summary { findings: 0, .. }) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::from(EXIT_FINDINGS),
        Err(error) => {
            eprintln!("whence: not verified: {error:#}");
            ExitCode::from(EXIT_NOT_VERIFIED)
        }
    }
}

#[tokio::main]
async fn verify(settings: &Settings, scope: &Scope) -> anyhow::Result<Summary> {
    let store = settings.clickhouse.store()?;
    let outside = outside(settings).await?;
    let mut output = Output::new(settings.json, progress());
    let verified = store.verify_against(scope, &outside, |step| output.step(step)).await;
    output.progress.finish_and_clear();
    let summary = verified?;
    output.summary(&summary);
    output.failed?;
    Ok(summary)
}

/// What was kept outside of ClickHouse.
async fn outside(settings: &Settings) -> anyhow::Result<Outside> {
    let mut outside = Outside { service_keys: settings.key.clone(), heads: Vec::new() };
    let Some(target) = &settings.heads else { return Ok(outside) };
    let target = Target::open(target, &settings.s3.options()?)?;
    let days = target.read().await?;
    anyhow::ensure!(!days.is_empty(), "there are no heads in {target}");
    for day in days {
        for head in &day.collectors {
            outside
                .heads
                .push(signed(&day, head).with_context(|| format!("the heads of {} are damaged", day.day))?);
        }
        if settings.key.is_empty() {
            outside.service_keys.extend(day.service_key.as_deref().and_then(PublicKey::parse));
        }
    }
    Ok(outside)
}

/// A head as it must be in ClickHouse. One that its own collector did not sign says nothing.
fn signed(day: &DayHeads, head: &Head) -> Option<KnownHead> {
    let key = head.public_key.as_deref().and_then(PublicKey::parse);
    let source = format!("head of {}", day.day);
    let known = known(source, head.collector_id, key, head.batch, &head.batch_hash)?;
    let mut signature = [0; 64];
    hex::decode_to_slice(&head.signature, &mut signature).ok()?;
    key.is_none_or(|key| key.verify(&known.batch_hash, &signature)).then_some(known)
}

/// A batch that a collector's chain had; None when its hash, in hexadecimal, is none.
fn known(
    source: String,
    collector: CollectorId,
    key: Option<PublicKey>,
    batch: u64,
    hash: &str,
) -> Option<KnownHead> {
    let mut batch_hash = [0; 32];
    hex::decode_to_slice(hash, &mut batch_hash).ok()?;
    Some(KnownHead { source, collector, public_key: key.map(PublicKey::to_bytes), batch, batch_hash })
}

/// A bar for a person who waits; nothing where nobody sees it.
fn progress() -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    if !std::io::stderr().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    let template = "{wide_bar} {human_pos} of {human_len} events, {per_sec}, {eta} left";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// Where the lines go.
struct Output<W> {
    json: bool,
    progress: ProgressBar,
    out: W,
    /// The first line that could not be written.
    failed: std::io::Result<()>,
}

impl Output<BufWriter<Stdout>> {
    fn new(json: bool, progress: ProgressBar) -> Self {
        Self { json, progress, out: BufWriter::new(std::io::stdout()), failed: Ok(()) }
    }
}

impl<W: Write> Output<W> {
    fn step(&mut self, step: Step) {
        match step {
            Step::Planned { events } => self.progress.set_length(events),
            Step::Events(events) => self.progress.inc(events),
            Step::Finding(finding) => self.line(&finding_line(&finding, self.json)),
            Step::Chain(chain) => self.line(&chain_line(&chain, self.json)),
        }
    }

    fn summary(&mut self, summary: &Summary) {
        let Summary { events, batches, expired, collectors, findings, notices, unsigned } = *summary;
        if self.json {
            let line = serde_json::json!({ "summary": {
                "events": events, "batches": batches, "expired_batches": expired, "collectors": collectors,
                "findings": findings, "notices": notices, "unsigned": unsigned,
            }});
            self.line(&line.to_string());
            return;
        }
        if unsigned > 0 {
            self.line(&format!("not verified: {unsigned} events of other senders, which are not signed"));
        }
        let expired = if expired == 0 { String::new() } else { format!(" ({expired} of them expired)") };
        let result = counted(findings);
        self.line(&format!(
            "verified {events} events in {batches} batches{expired} of {collectors} collectors: {result}"
        ));
    }

    fn line(&mut self, line: &str) {
        if self.failed.is_ok() {
            let out = &mut self.out;
            self.failed = self.progress.suspend(|| writeln!(out, "{line}").and_then(|()| out.flush()));
        }
    }
}

fn counted(findings: u64) -> String {
    match findings {
        0 => "clean".to_owned(),
        1 => "1 finding".to_owned(),
        _ => format!("{findings} findings"),
    }
}

fn finding_line(finding: &Finding, json: bool) -> String {
    if json {
        return serde_json::to_string(finding).unwrap_or_default();
    }
    let label = if finding.kind.is_tampering() { "FINDING" } else { "note" };
    printable(&format!("{label}: {finding}"))
}

fn chain_line(chain: &Chain, json: bool) -> String {
    let Chain { collector, public_key, first_batch, last_batch, head } = chain;
    let key = public_key.map(hex::encode);
    let head = hex::encode(head);
    if json {
        let line = serde_json::json!({ "chain": {
            "collector_id": collector, "public_key": key, "first_batch": first_batch, "last_batch": last_batch,
            "head": head,
        }});
        return line.to_string();
    }
    let key = key.unwrap_or_else(|| "none".into());
    format!("chain: collector {collector} batches {first_batch} to {last_batch}, key {key}, head {head}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_a_day_or_a_moment() {
        assert_eq!(time("2026-11-23").unwrap(), time("2026-11-23T00:00:00Z").unwrap());
        assert_eq!(time("2026-11-23T08:00:00+08:00").unwrap(), time("2026-11-23").unwrap());
        assert!(time("yesterday").unwrap_err().contains("2026-11-23T08:00:00Z"));
    }
}
