//! The server programs and the probes on them: a plan goes in; probes, or the reason why there are none, come out.

use std::collections::HashMap;
use std::path::Path;

use whence_model::{Provider, Server, Timestamp};

use crate::discover::{BinaryId, Plan};
use crate::probe::{Attachment, Probes};

/// So many programs that no process runs keep their probes, so that a server is recorded from its start when it starts
/// again. With containers programs come and go without end, and there is room for 256.
const MOST_IDLE: usize = 64;

/// One server program.
pub struct Program {
    pub plan: Plan,
    /// Its probes; or why it has none.
    pub probes: Result<Attached, String>,
}

/// The probes on a program.
pub struct Attached {
    pub attachment: Attachment,
    pub at: Timestamp,
    /// A process that ran it.
    pub example: Option<Server>,
}

impl Program {
    /// Puts probes on the program at `path`.
    pub fn new(probes: &mut Probes, path: &Path, plan: Plan) -> Self {
        Self { probes: attach(probes, path, &plan), plan }
    }

    /// Tries once more, by another path, where there are none.
    pub fn retry(&mut self, probes: &mut Probes, path: &Path) {
        if self.probes.is_err() {
            self.probes = attach(probes, path, &self.plan);
        }
    }

    /// What its probes are on, for people.
    fn places(&self) -> Option<String> {
        let by = if provider(&self.plan) == Provider::Usdt { "static probes" } else { "functions" };
        let attached = self.probes.as_ref().ok()?;
        Some(format!("{by} {}", attached.attachment.places().join(", ")))
    }
}

/// What probes by this plan give.
pub fn provider(plan: &Plan) -> Provider {
    if matches!(plan, Plan::StaticProbes) { Provider::Usdt } else { Provider::Functions }
}

fn attach(probes: &mut Probes, path: &Path, plan: &Plan) -> Result<Attached, String> {
    let attachment = match plan {
        Plan::StaticProbes => probes.attach_usdt(path),
        Plan::Functions(derived) => probes.attach_functions(path, &derived.targets),
        Plan::Refused(reason) => return Err(reason.clone()),
    };
    let attachment = attachment.map_err(|error| error.to_string())?;
    let provider = provider(plan).as_str();
    tracing::info!(provider, taken_up = attachment.taken_up(), "probes attached");
    Ok(Attached { attachment, at: Timestamp::now(), example: None })
}

/// All programs, and which processes run them.
#[derive(Default)]
pub struct Programs {
    programs: HashMap<BinaryId, Program>,
    /// The program of each process that is watched.
    processes: HashMap<u32, BinaryId>,
}

impl Drop for Programs {
    /// However capturing ends, but for [`Programs::detach_all`], pinned probes stay on for the next collector.
    fn drop(&mut self) {
        for attached in self.programs.drain().filter_map(|(_, program)| program.probes.ok()) {
            attached.attachment.leave();
        }
    }
}

impl Programs {
    pub fn insert(&mut self, binary: BinaryId, program: Program) {
        self.programs.insert(binary, program);
    }

    pub fn get_mut(&mut self, binary: BinaryId) -> Option<&mut Program> {
        self.programs.get_mut(&binary)
    }

    /// The program whose probes' records have `slot` as their target.
    pub fn by_slot(&self, slot: u32) -> Option<(BinaryId, &Program, &Attached)> {
        let mut attached = self
            .programs
            .iter()
            .filter_map(|(binary, program)| Some((*binary, program, program.probes.as_ref().ok()?)));
        attached.find(|(.., attached)| attached.attachment.slot() == slot)
    }

    /// Process `tgid`, which is watched, runs `binary`.
    pub fn add_process(&mut self, tgid: u32, binary: BinaryId) {
        self.processes.insert(tgid, binary);
    }

    /// Process `tgid` has ended. Takes the probes off the program that had them first of those that nobody runs, when
    /// they are too many; they are put on again when somebody does.
    pub fn remove_process(&mut self, tgid: u32) {
        self.processes.remove(&tgid);
        let is_idle = |binary: &BinaryId| !self.processes.values().any(|running| running == binary);
        let attached = |program: &Program| program.probes.as_ref().ok().map(|attached| attached.at);
        let idle = self.programs.iter().filter(|(binary, _)| is_idle(binary));
        let idle: Vec<_> = idle.filter_map(|(binary, program)| Some((attached(program)?, *binary))).collect();
        let first = idle.iter().min_by_key(|(at, _)| *at).filter(|_| idle.len() > MOST_IDLE);
        if let Some((_, first)) = first {
            self.detach(*first, "no process ran it");
        }
    }

    /// The program of a process that is watched, and the other processes of it.
    pub fn of_process(&self, tgid: u32) -> Option<(BinaryId, Vec<u32>)> {
        let binary = *self.processes.get(&tgid)?;
        let beside = self.processes.iter().filter(|&(other, program)| *other != tgid && *program == binary);
        Some((binary, beside.map(|(other, _)| *other).collect()))
    }

    /// What the probes of this process are on, for people.
    pub fn places(&self, tgid: u32) -> Option<String> {
        self.programs.get(self.processes.get(&tgid)?)?.places()
    }

    /// Takes the probes off a program; another process of it gets another trial.
    pub fn detach(&mut self, binary: BinaryId, reason: &str) {
        if let Some(program) = self.programs.get_mut(&binary) {
            // Dropping it detaches.
            program.probes = Err(reason.to_owned());
        }
    }

    /// Takes all probes off.
    pub fn detach_all(&mut self) {
        self.programs.clear();
    }
}
