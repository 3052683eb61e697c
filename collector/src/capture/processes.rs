//! The way of a process: found or met in a record, watched or refused, ended. What discovery, trials and records say of it
//! goes in; its account's spans come out.

use std::time::Instant;

use whence_abi::record::{Plain as _, Record};
use whence_model::{InstanceId, LossReason, Provider, Server, Timestamp};

use super::programs::{Program, provider};
use super::{Capture, CaptureError, FIRST_SPAN};
use crate::account::Former;
use crate::discover::process::inspect;
use crate::discover::{BinaryId, Finding, Plan, Process, ProcessId};
use crate::trial::Refusal;

impl Capture {
    pub(super) fn handle(&mut self, finding: Finding) -> Result<(), CaptureError> {
        match finding {
            Finding::Binary { binary, path, plan } => {
                self.programs.insert(binary, Program::new(&mut self.parts.probes, &path, plan));
                return Ok(());
            }
            Finding::Process { binary, process } => self.register(binary, process),
            Finding::Ended(id) => {
                self.drain_all()?;
                self.process_ended(id, true)?;
            }
            Finding::LookedOnce => {
                self.look_at_former();
                self.looked_once = true;
            }
        }
        self.write_status();
        Ok(())
    }

    /// Opens the account of a process that runs `binary`.
    fn register(&mut self, binary: BinaryId, process: Process) {
        let id = process.id;
        if self.parts.accounts.is_open(id) {
            return;
        }
        let Some(program) = self.programs.get_mut(binary) else { return };
        // The process that it was found by may have ended before probes could be put on it.
        program.retry(&mut self.parts.probes, &id.executable());
        if let Err(reason) = &program.probes {
            let server = self.parts.accounts.known_server(id).cloned().unwrap_or(process.server);
            let spans = self.parts.accounts.refuse(id, &server, reason, Timestamp::now());
            self.seal_spans(spans);
        } else {
            self.watch(binary, process);
        }
    }

    /// Opens the account of a process that the probes on `binary` record.
    fn watch(&mut self, binary: BinaryId, process: Process) {
        let id = process.id;
        let Some(Program { plan, probes: Ok(attached) }) = self.programs.get_mut(binary) else { return };
        let server = self.parts.accounts.known_server(id).cloned().unwrap_or(process.server);
        if let Plan::Functions(derived) = plan {
            self.trials.begin(id.tgid, derived.by_table());
        }
        attached.example = Some(server.clone());
        let (at, went_on) = (attached.at, attached.attachment.taken_up());
        let provider = provider(plan);
        self.programs.add_process(id.tgid, binary);
        // Probes that were on already recorded since the collector before this one was last seen to be alive.
        let recorded_since = self.parts.accounts.recorded_since().filter(|_| went_on);
        let since = server.process_started_at.max(recorded_since.unwrap_or(at));
        self.parts.decoder.add_server(id.tgid, server.clone());
        self.span_until = self.span_until.min(Instant::now() + FIRST_SPAN);
        let spans = self.parts.accounts.watch(id, &server, provider, since, went_on);
        self.seal_spans(spans);
    }

    /// Servers that the collector before this one watched, and that ended since.
    fn look_at_former(&mut self) {
        for former in self.parts.accounts.former_processes() {
            let since = former.server.process_started_at;
            // Its probes went on to its end, so no span ends here.
            let Former { process, provider, server } = former;
            let spans = self.parts.accounts.watch(process, &server, provider, since, true);
            self.seal_spans(spans);
            self.gone.push((process, true));
        }
        self.look_at_unseen();
        let spans = self.parts.accounts.looked_once(Timestamp::now());
        self.seal_spans(spans);
    }

    /// Processes that came and went while no collector ran: what the kernel still has of them is told like what it has in
    /// its ring.
    fn look_at_unseen(&mut self) {
        let mut ended = self.parts.probes.processes();
        ended.retain(|tgid| {
            self.parts.decoder.server(*tgid).is_none()
                && !std::fs::exists(format!("/proc/{tgid}")).unwrap_or(true)
        });
        for tgid in ended {
            if self.parts.accounts.was_refused(tgid) {
                self.parts.accounts.settle(tgid);
            } else {
                self.open_gone(tgid, self.parts.probes.owner(tgid));
            }
        }
    }

    /// Finds out who process `tgid` is, of which there is a record already.
    pub(super) fn introduce(&mut self, tgid: u32, bytes: &[u8]) {
        let record = Record::split_from(bytes).map(|(record, _)| record);
        let slot = record.map(|record| record.target);
        let is_it = |id: ProcessId| record.is_none_or(|record| id.started_ns() <= record.start_ns);
        let process = inspect(tgid, &self.parts.host).ok().filter(|process| is_it(process.id));
        let found = process.and_then(|process| Some((BinaryId::of(&process.id.executable()).ok()?, process)));
        let Some((binary, process)) = found else { return self.open_gone(tgid, slot) };
        self.register(binary, process.clone());
        if self.parts.decoder.server(tgid).is_some() {
            return;
        }
        // A container of an image that probes are on already: to the kernel its program is the same file.
        match slot.and_then(|slot| self.programs.by_slot(slot)) {
            Some((binary, ..)) => self.watch(binary, process),
            None => self.open(process.id, &process.server, Provider::Functions),
        }
    }

    /// Opens the account of a process that is taken as it is.
    fn open(&mut self, id: ProcessId, server: &Server, provider: Provider) {
        self.parts.decoder.add_server(id.tgid, server.clone());
        let spans = self.parts.accounts.watch(id, server, provider, Timestamp::now(), false);
        self.seal_spans(spans);
    }

    /// Opens the account of process `tgid`, which has ended. What ran the program before whose probes have `slot` tells most
    /// of what it was.
    fn open_gone(&mut self, tgid: u32, slot: Option<u32>) {
        let program = slot.and_then(|slot| self.programs.by_slot(slot));
        if let Some((_, Program { plan: Plan::Functions(derived), .. }, _)) = program {
            self.trials.begin(tgid, derived.by_table());
        }
        let provider = program.map_or(Provider::Functions, |(_, program, _)| provider(&program.plan));
        let example = program.and_then(|(.., attached)| attached.example.clone());
        let now = Timestamp::now();
        let server = Server {
            instance: InstanceId::derive(&self.parts.host, "", &format!("process {tgid}")),
            product: example.as_ref().map_or_else(|| "unknown".into(), |example| example.product.clone()),
            version: example.and_then(|example| example.version),
            process_id: tgid,
            process_started_at: now,
            ..self.own_server()
        };
        let id = ProcessId { tgid, start_ticks: 0 };
        self.open(id, &server, provider);
        self.gone.push((id, false));
    }

    pub(super) fn end_gone(&mut self) -> Result<(), CaptureError> {
        if self.parts.ring.is_read() && self.trials.is_empty() {
            for (id, is_known) in std::mem::take(&mut self.gone) {
                self.process_ended(id, is_known)?;
            }
        }
        Ok(())
    }

    /// Closes the account of a process whose records have all been read.
    fn process_ended(&mut self, id: ProcessId, is_known: bool) -> Result<(), CaptureError> {
        let (unfinished, counters) = self.parts.probes.process_ended(id.tgid)?;
        for record in unfinished {
            if self.parts.decoder.server(id.tgid).is_some() {
                let decoded = self.parts.decoder.decode(&record);
                self.take(decoded);
            }
        }
        let now = Timestamp::now();
        self.tell_losses_of(id.tgid, &counters, now)?;
        let span = self.parts.accounts.ended(id.tgid, is_known, now);
        self.seal_spans(span);
        self.parts.decoder.remove_server(id.tgid);
        self.programs.remove_process(id.tgid);
        self.trials.forget(id.tgid);
        self.parts.accounts.settle(id.tgid);
        Ok(())
    }

    /// Takes in the commands that any process is in the middle of, after the probes were taken off: nobody will see their
    /// ends.
    pub(super) fn take_unfinished(&mut self) {
        for tgid in self.parts.probes.processes() {
            for record in self.parts.probes.unfinished(tgid) {
                if self.parts.decoder.server(tgid).is_none() && !self.trials.is_refused(tgid) {
                    self.introduce(tgid, &record);
                }
                let decoded = self.parts.decoder.decode(&record);
                self.take(decoded);
            }
            self.parts.accounts.settle(tgid);
        }
    }

    /// Ends the watch of a process of which what was read cannot be true, and of its program, unless another process
    /// has shown that its offsets hold: with one of their own, people could end the watch of everyone's.
    pub(super) fn refuse(&mut self, Refusal { tgid, reason }: &Refusal) {
        tracing::error!(process = tgid, reason, "what is read of a server cannot be true");
        let mut refused = vec![*tgid];
        if let Some((binary, mut beside)) = self.programs.of_process(*tgid) {
            beside.retain(|other| !self.trials.is_refused(*other));
            if beside.iter().all(|other| self.trials.is_open(*other)) {
                self.programs.detach(binary, reason);
                refused.extend(beside);
            }
        }
        // What they did meanwhile is among what is lost.
        let mut more = Vec::new();
        while let Some(entry) = self.parts.ring.next() {
            more.extend(self.trials.keep(entry.bytes, entry.end));
        }
        let now = Timestamp::now();
        let reason = format!("what was read of it could not be true: {reason}");
        for tgid in refused {
            let events = self.trials.refuse(tgid);
            if let Some(server) = self.parts.decoder.server(tgid).cloned().filter(|_| events > 0) {
                self.parts.accounts.count_undecodable(tgid, events);
                self.tell_gap(server, LossReason::Undecodable, events, (self.losses_since, now));
            }
            let spans = self.parts.accounts.refuse_running(tgid, &reason, now);
            self.seal_spans(spans);
            self.parts.decoder.remove_server(tgid);
        }
        for refusal in more {
            if !self.trials.is_refused(refusal.tgid) {
                self.refuse(&refusal);
            }
        }
        self.write_status();
    }
}
