//! The collector, `whence collect`, as a process of its own; without an ingest, so that all it records stays in its spool.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use whence_collector::spool::Spool;
use whence_collector::status::Status;
use whence_model::{CoverageState, Event, EventKind, Outcome};

use crate::report::{Deed, Report};
use crate::wait;

const LOG: &str = "/tmp/collector.log";
const SPOOL: &str = "/spool";
const STATUS: &str = "/tmp/collector.json";
/// The end of what the collector said that is told when something is wrong.
const SAID_BYTES: usize = 2000;

pub struct Collector(Child);

/// What became of a start.
pub enum Start {
    Runs(Collector),
    /// It ended by itself.
    Refused {
        status: Option<i32>,
        said: String,
    },
}

impl Collector {
    /// Starts it, and waits until it watches these servers, which may be none, or has ended.
    pub fn start(servers: &[&str]) -> Result<Start> {
        // What a killed one left says nothing of this one.
        let _ = fs::remove_file(STATUS);
        let log = File::create(LOG)?;
        let child = Command::new("/usr/bin/whence")
            .args(["collect", "--ingest-url=http://127.0.0.1:9", "--host=guest"])
            .arg(format!("--spool-dir={SPOOL}"))
            .arg(format!("--status-file={STATUS}"))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot run whence")?;
        let mut collector = Self(child);
        let ended = wait::until("the collector watches", || {
            let ended = collector.0.try_wait()?;
            Ok(if ended.is_some() || watches(servers) { Some(ended) } else { None })
        });
        match ended.with_context(said)? {
            Some(status) => Ok(Start::Refused { status: status.code(), said: said() }),
            None => Ok(Start::Runs(collector)),
        }
    }

    pub fn wait_until_watching(&mut self, servers: &[&str]) -> Result<()> {
        wait::until("the collector watches", || {
            ensure!(self.0.try_wait()?.is_none(), "the collector has ended");
            Ok(watches(servers).then_some(()))
        })
        .with_context(said)
    }

    /// As a crash would end it.
    pub fn kill(mut self) -> Result<()> {
        self.0.kill()?;
        self.0.wait()?;
        Ok(())
    }

    /// Stops it in good order.
    pub fn stop(mut self) -> Result<()> {
        kill(Pid::from_raw(self.0.id().cast_signed()), Signal::SIGTERM)?;
        let status = wait::until("the collector stops", || Ok(self.0.try_wait()?))?;
        ensure!(status.success(), "the collector ended with {status}: {}", said());
        Ok(())
    }
}

/// Whether the status file says that all these are watched; with none, whether there is one.
fn watches(servers: &[&str]) -> bool {
    let Ok(status) = Status::read(Path::new(STATUS)) else { return false };
    let watched = |server: &&str| {
        status
            .servers
            .iter()
            .any(|known| known.server.starts_with(server) && known.state == CoverageState::Watched.as_str())
    };
    servers.iter().all(watched)
}

fn said() -> String {
    let said = fs::read_to_string(LOG).unwrap_or_default();
    let status = fs::read_to_string(STATUS).unwrap_or_default();
    let all = said + &status;
    let from = all.char_indices().map(|(at, _)| at).find(|at| at + SAID_BYTES >= all.len());
    all[from.unwrap_or(0)..].trim().to_owned()
}

/// Tells all that lies in the spool.
pub fn tell_spool(report: &Report) -> Result<()> {
    let (mut spool, _) = Spool::open(Path::new(SPOOL), u64::MAX)?;
    ensure!(spool.take_lost().is_empty(), "the spool has lost something");
    while let Some(waiting) = spool.oldest()? {
        let batch = whence_wire::decode(&waiting.bytes, &whence_wire::Limits::default())?;
        batch.events.iter().try_for_each(|event| tell(report, event))?;
        spool.confirm(waiting.number)?;
    }
    Ok(())
}

fn tell(report: &Report, event: &Event) -> Result<()> {
    if let Some(gap) = &event.gap {
        return report.lost(gap.reason.as_str(), gap.events);
    }
    let sql = event.statement.as_ref().and_then(|statement| statement.sql.as_ref());
    // Commands without text (Quit and its kin) are the client's own.
    if event.kind == EventKind::Command && sql.is_none() || event.kind == EventKind::Disconnect {
        return Ok(());
    }
    let result = match &event.outcome {
        Some(Outcome::Error { code: Some(code), .. }) => format!("error {code}"),
        Some(outcome) => outcome.as_str().to_owned(),
        None => "none".to_owned(),
    };
    let principal = &event.principal;
    report.recorded(&Deed {
        server: &event.server.product,
        kind: event.kind.as_str(),
        user: principal.user.as_deref().or(principal.login_user.as_deref()),
        host: principal.client_host.as_deref(),
        sql: sql.map(|text| text.text.as_str()),
        result,
    })
}
