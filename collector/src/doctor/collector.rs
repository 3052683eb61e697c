//! A collector that runs here, or ran: its status, its spool, its pinned probes.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use serde::Serialize;
use whence_model::Timestamp;

use super::{Check, Places, State};
use crate::spool::inspect::quarantined;
use crate::status::Status;

/// A status older than this is not of a collector that runs: it writes one every ten seconds.
const STALE_NS: i64 = 30_000_000_000;

/// What is known of it.
#[derive(Clone, Debug, Serialize)]
pub struct Collector {
    /// Process id, where one runs.
    pub process_id: Option<u32>,
    pub checks: Vec<Check>,
    /// What it said of itself last.
    pub status: Option<Status>,
    pub spool_bytes: Option<u64>,
    /// Batches that ingest refused for good.
    pub quarantined_batches: Option<usize>,
}

impl Collector {
    pub fn look(places: &Places) -> Self {
        let process_id = holder(&places.pin_dir);
        let mut checks = Vec::new();
        let status = match Status::read(&places.status_file) {
            Ok(status) => Some(status),
            Err(error) if process_id.is_some() => {
                checks.push(Check::new(State::Note, "status", error.to_string()));
                None
            }
            Err(_) => None,
        };
        checks.insert(0, running(process_id, status.as_ref()));
        let spool_bytes = bytes_of(&places.spool_dir, 0);
        let quarantine = places.spool_dir.join("quarantine");
        let quarantined = quarantined(&quarantine).ok().filter(|_| quarantine.exists());
        let quarantined_batches = quarantined.map(|batches| batches.len());
        checks.extend(shipping(process_id, status.as_ref()));
        if let Some(batches @ 1..) = quarantined_batches {
            let detail = format!("{batches} that ingest refused for good lie in {}", quarantine.display());
            checks.push(Check::new(State::Bad, "quarantine", detail));
        }
        Self { process_id, checks, status, spool_bytes, quarantined_batches }
    }
}

fn running(process_id: Option<u32>, status: Option<&Status>) -> Check {
    let age_ns = status.map(|status| Timestamp::now().since_ns(status.updated_at));
    match (process_id, age_ns) {
        (Some(pid), Some(age_ns)) if age_ns > STALE_NS => {
            let detail = format!("process {pid} runs, but has said nothing for {} s", age_ns / 1_000_000_000);
            Check::new(State::Bad, "collector", detail)
        }
        (Some(pid), _) => Check::new(State::Good, "collector", format!("process {pid} runs")),
        (None, _) => Check::new(State::Note, "collector", "none runs with these settings"),
    }
}

fn shipping(process_id: Option<u32>, status: Option<&Status>) -> Option<Check> {
    let spool = &status?.spool;
    process_id?;
    let shipped = match spool.shipped_at {
        Some(at) => format!("the last batch was confirmed at {at}"),
        None => "ingest has confirmed no batch since the collector started".to_owned(),
    };
    let waiting = format!("{} batches ({} bytes) wait", spool.batches, spool.bytes);
    let behind_ns = Timestamp::now().since_ns(spool.shipped_at.unwrap_or(Timestamp(0)));
    let state = if spool.batches > 0 && behind_ns > STALE_NS { State::Bad } else { State::Good };
    Some(Check::new(state, "shipping", format!("{shipped}; {waiting}")))
}

/// The process that holds the lock on the directory of pinned probes. To try the lock would be in a collector's way.
fn holder(pin_dir: &Path) -> Option<u32> {
    let data = fs::metadata(pin_dir).ok()?;
    let (major, minor) = (nix::sys::stat::major(data.dev()), nix::sys::stat::minor(data.dev()));
    let file = format!("{major:02x}:{minor:02x}:{}", data.ino());
    let locks = fs::read_to_string("/proc/locks").ok()?;
    // `1: FLOCK  ADVISORY  WRITE 812 00:1a:4711 0 EOF`
    let mut lines = locks.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let line =
        lines.find(|fields| fields.get(1) == Some(&"FLOCK") && fields.get(5) == Some(&file.as_str()))?;
    line.get(4)?.parse().ok()
}

fn bytes_of(path: &Path, depth: usize) -> Option<u64> {
    const DEPTH: usize = 3;
    let mut bytes = 0;
    for entry in fs::read_dir(path).ok()?.flatten() {
        let Ok(data) = entry.metadata() else { continue };
        if data.is_dir() && depth < DEPTH {
            bytes += bytes_of(&entry.path(), depth + 1).unwrap_or(0);
        } else if data.is_file() {
            bytes += data.len();
        }
    }
    Some(bytes)
}
