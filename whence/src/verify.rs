//! `whence verify`: recomputes from ClickHouse what the collectors signed, and names whatever was changed since.

use std::io::{BufWriter, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use chrono::{DateTime, NaiveDate};
use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use whence_model::{CollectorId, InstanceId, Timestamp};
use whence_service::config::EXIT_BAD_CONFIG;
use whence_store::read::Window;
use whence_store::verify::{Chain, Finding, Scope, Step, Summary};

use crate::database::ClickHouse;
use crate::terminal::printable;

/// Exit status when the record is not what was signed.
const EXIT_FINDINGS: u8 = 1;
/// Exit status when it could not be verified.
const EXIT_NOT_VERIFIED: u8 = 2;

#[derive(Args)]
pub struct Settings {
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

/// Exit status: 0 clean, 1 with findings, 2 when it could not be verified, 64 for a window that is none.
pub fn run(settings: &Settings) -> ExitCode {
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
    let mut output = Output {
        json: settings.json,
        progress: progress(),
        out: BufWriter::new(std::io::stdout()),
        failed: Ok(()),
    };
    let verified = store.verify(scope, |step| output.step(step)).await;
    output.progress.finish_and_clear();
    let summary = verified?;
    output.summary(&summary);
    output.failed?;
    Ok(summary)
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
        let Summary { events, batches, collectors, findings, notices } = *summary;
        if self.json {
            let line = serde_json::json!({ "summary": {
                "events": events, "batches": batches, "collectors": collectors,
                "findings": findings, "notices": notices,
            }});
            self.line(&line.to_string());
            return;
        }
        let result = match findings {
            0 => "clean".to_owned(),
            1 => "1 finding".to_owned(),
            _ => format!("{findings} findings"),
        };
        self.line(&format!(
            "verified {events} events in {batches} batches of {collectors} collectors: {result}"
        ));
    }

    fn line(&mut self, line: &str) {
        if self.failed.is_ok() {
            let out = &mut self.out;
            self.failed = self.progress.suspend(|| writeln!(out, "{line}").and_then(|()| out.flush()));
        }
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
