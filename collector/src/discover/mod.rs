//! Finds database servers: `/proc` goes in, [`Finding`]s come out.
//!
//! Every [`LOOK_EVERY`] the process list is read. A program that is new is looked into once: a server is one called
//! `mysqld` or `mariadbd`, or one that carries static probes of the provider `mysql`.

mod container;
mod plan;
pub mod process;
mod product;

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::PathBuf;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::offsets::Table;

pub use plan::Plan;
pub use process::{BinaryId, Process, ProcessId};

const LOOK_EVERY: Duration = Duration::from_millis(300);
/// How long a server that is not one by its name may take to listen before it is taken as it is.
const SETTLED: Duration = Duration::from_secs(1);

/// What was found.
#[derive(Debug)]
pub enum Finding {
    /// A program that servers run; comes before its processes.
    Binary { binary: BinaryId, path: PathBuf, plan: Plan },
    /// A process of such a program that serves clients.
    Process { binary: BinaryId, process: Process },
    /// That process has ended.
    Ended(ProcessId),
    /// Everything that ran when the collector started has been looked at.
    LookedOnce,
}

/// A process of a server program.
struct Known {
    id: ProcessId,
    binary: BinaryId,
    since: Instant,
    told: bool,
}

/// Looks until `shutdown`, or until nobody listens any more.
pub fn run(host: &str, table: &Table, findings: &Sender<Finding>, shutdown: &CancellationToken) {
    let mut discovery = Discovery { host, table, findings, binaries: HashMap::new(), known: HashMap::new() };
    let mut looked_once = false;
    while !shutdown.is_cancelled() {
        let told = discovery.look().and_then(|()| {
            if std::mem::replace(&mut looked_once, true) {
                Ok(())
            } else {
                discovery.tell(Finding::LookedOnce)
            }
        });
        if told.is_err() {
            return;
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// The other end of the channel is closed: the collector ends.
struct NobodyListens;

struct Discovery<'a> {
    host: &'a str,
    table: &'a Table,
    findings: &'a Sender<Finding>,
    /// Every program seen, and whether servers run it.
    binaries: HashMap<BinaryId, bool>,
    known: HashMap<u32, Known>,
}

impl Discovery<'_> {
    fn look(&mut self) -> Result<(), NobodyListens> {
        let running = running();
        self.tell_ended(&running)?;
        let mut seen = HashSet::new();
        for (tgid, binary) in running {
            seen.insert(binary);
            if !self.known.contains_key(&tgid) && self.is_server(tgid, binary)? {
                // It may have ended since the list was read.
                let Ok(id) = ProcessId::of(tgid) else { continue };
                self.known.insert(tgid, Known { id, binary, since: Instant::now(), told: false });
            }
            self.tell_process(tgid)?;
        }
        // A file system gives an inode to another file in time. Programs of servers keep theirs: probes are on them.
        self.binaries.retain(|binary, is_server| *is_server || seen.contains(binary));
        Ok(())
    }

    fn tell(&self, finding: Finding) -> Result<(), NobodyListens> {
        self.findings.send(finding).map_err(|_| NobodyListens)
    }

    fn tell_ended(&mut self, running: &HashMap<u32, BinaryId>) -> Result<(), NobodyListens> {
        let ended =
            |known: &Known| running.get(&known.id.tgid) != Some(&known.binary) || !known.id.is_alive();
        let ended: Vec<u32> =
            self.known.values().filter(|known| ended(known)).map(|known| known.id.tgid).collect();
        for tgid in ended {
            if let Some(known) = self.known.remove(&tgid) {
                self.tell(Finding::Ended(known.id))?;
            }
        }
        Ok(())
    }

    /// Whether servers run this program; looks into it at the first call.
    fn is_server(&mut self, tgid: u32, binary: BinaryId) -> Result<bool, NobodyListens> {
        if let Some(is_server) = self.binaries.get(&binary) {
            return Ok(*is_server);
        }
        let Ok(id) = ProcessId::of(tgid) else { return Ok(false) };
        let plan = Plan::of(id, self.table);
        self.binaries.insert(binary, plan.is_some());
        let Some(plan) = plan else { return Ok(false) };
        self.tell(Finding::Binary { binary, path: id.executable(), plan })?;
        Ok(true)
    }

    fn tell_process(&mut self, tgid: u32) -> Result<(), NobodyListens> {
        let Some(known) = self.known.get_mut(&tgid).filter(|known| !known.told) else { return Ok(()) };
        let Ok(process) = process::inspect(tgid, self.host) else { return Ok(()) };
        // A database server that does not listen yet is starting, or only installs a data directory.
        let is_settled = known.since.elapsed() > SETTLED && !plan::is_server_name(known.id);
        if !process.listens && !is_settled {
            return Ok(());
        }
        known.told = true;
        let binary = known.binary;
        self.tell(Finding::Process { binary, process })
    }
}

/// The server processes that run now, each with its program and how that can be watched.
pub fn servers(table: &Table) -> Vec<(ProcessId, BinaryId, Plan)> {
    let mut plans: HashMap<BinaryId, Option<Plan>> = HashMap::new();
    let processes = running().into_iter().filter_map(|(tgid, binary)| {
        let id = ProcessId::of(tgid).ok()?;
        let plan = plans.entry(binary).or_insert_with(|| Plan::of(id, table));
        plan.clone().map(|plan| (id, binary, plan))
    });
    processes.collect()
}

/// Every process and its program. Kernel threads have none.
fn running() -> HashMap<u32, BinaryId> {
    let Ok(entries) = fs::read_dir("/proc") else { return HashMap::new() };
    let numbers = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    numbers
        .filter_map(|tgid| Some((tgid, BinaryId::of(&PathBuf::from(format!("/proc/{tgid}/exe"))).ok()?)))
        .collect()
}
