//! The thread that turns what the kernel recorded into batches in the spool.
//!
//! Records of the ring and findings of the discovery go in; events, gaps and coverage spans go into batches. The ring's
//! memory is given back to the kernel only when the batch that its records went into is on disk.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use whence_abi::record::{Counters, Plain as _, Record};
use whence_model::{
    Coverage, CoverageState, Gap, InstanceId, LossReason, Principal, Provider, Server, Timestamp,
};

use crate::account::{Accounts, Former};
use crate::decode::{DecodeError, Decoded, Decoder};
use crate::discover::process::inspect;
use crate::discover::{BinaryId, Finding, Plan, Process, ProcessId};
use crate::life::OwnLife;
use crate::metrics::Metrics;
use crate::policy::Policy;
use crate::probe::{Attachment, ProbeError, Probes, Ring};
use crate::seal::{SealedBatch, Sealer};
use crate::ship::{self, SharedSpool};
use crate::spool::{Lost, RingMark, ToldGap};
use crate::status::{ServerStatus, SpoolStatus, Status};
use crate::trial::{Look, Refusal, Trials};

/// A coverage span is this long: a page may call a time unwatched only when it is older than a few of them.
const SPAN: Duration = Duration::from_secs(10);
/// The first span of a server is this long, so that a page soon knows that it is watched.
const FIRST_SPAN: Duration = Duration::from_secs(1);
const LOOK_FOR_LOSSES: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_millis(50);
const SPOOL_RETRY: Duration = Duration::from_millis(200);
/// How often a stopping collector tries to write what it has.
const LAST_ATTEMPTS: u32 = 10;

/// Capturing cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    #[error(transparent)]
    Probe(#[from] ProbeError),
    #[error(transparent)]
    Ring(#[from] crate::probe::RingError),
    #[error(
        "the last events could not be written to the spool; the kernel holds them if its probes are pinned"
    )]
    Unsaved,
    #[error("nobody looks for servers any more")]
    NoDiscovery,
}

/// What became of a server program.
enum Watch {
    Attached {
        attachment: Attachment,
        at: Timestamp,
        provider: Provider,
        plan: Plan,
        /// A process that ran it.
        example: Option<Box<Server>>,
    },
    Failed {
        plan: Plan,
        reason: String,
    },
}

/// What capturing needs.
pub struct Parts {
    pub host: String,
    pub probes: Probes,
    pub ring: Ring,
    pub decoder: Decoder,
    pub policy: Arc<Policy>,
    pub sealer: Sealer,
    pub spool: SharedSpool,
    pub accounts: Accounts,
    pub findings: Receiver<Finding>,
    pub metrics: Metrics,
    pub status_file: PathBuf,
    /// Whether the probes outlive this process when it is told to stop.
    pub keep_probes: bool,
    pub shutdown: CancellationToken,
}

/// The capturing thread's state.
pub struct Capture {
    parts: Parts,
    own_life: OwnLife,
    ring_tag: [u8; 16],
    watches: HashMap<BinaryId, Watch>,
    /// The program of each process that is watched.
    programs: HashMap<u32, BinaryId>,
    trials: Trials,
    /// Processes that had ended before anyone looked at them, and whether they are known for what they were.
    gone: Vec<(ProcessId, bool)>,
    /// Processes of which nothing is kept in the kernel when the batch to come is on disk.
    settled: Vec<u32>,
    /// The kernel's counters of processes that found no room of their own, as far as they are told.
    roomless: Counters,
    /// Whether all that ran at the start has been looked at. Before that the status would be half of it.
    looked_once: bool,
    /// End of the last record that was decoded.
    position: u64,
    /// Whether records were filtered since the last batch: they leave no event that would make one.
    has_filtered: bool,
    span_until: Instant,
    losses_until: Instant,
    losses_since: Timestamp,
}

/// Lost events to be told: how many, from when to when.
type Losses = HashMap<(Server, LossReason), (u64, Timestamp, Timestamp)>;

impl Drop for Capture {
    /// However capturing ends, but for [`Capture::stop`], pinned probes stay on for the next collector.
    fn drop(&mut self) {
        for (_, watch) in self.watches.drain() {
            if let Watch::Attached { attachment, .. } = watch {
                attachment.leave();
            }
        }
    }
}

/// The tag by which the spool knows a ring.
pub fn ring_tag(ring: &Ring) -> [u8; 16] {
    Uuid::new_v5(&Uuid::NAMESPACE_OID, ring.identity().as_bytes()).into_bytes()
}

impl Capture {
    pub fn new(parts: Parts) -> Self {
        Self {
            own_life: OwnLife::begin(parts.accounts.began()),
            ring_tag: ring_tag(&parts.ring),
            watches: HashMap::new(),
            programs: HashMap::new(),
            trials: Trials::default(),
            gone: Vec::new(),
            settled: Vec::new(),
            roomless: Counters::default(),
            looked_once: false,
            position: 0,
            has_filtered: false,
            span_until: Instant::now() + SPAN,
            losses_until: Instant::now() + LOOK_FOR_LOSSES,
            losses_since: parts.accounts.recorded_since().unwrap_or_else(Timestamp::now),
            parts,
        }
    }

    /// Captures until it is told to stop. Blocks.
    pub fn run(mut self) -> Result<(), CaptureError> {
        // At once, however soon it ends.
        self.tell_own_life(false, Timestamp::now());
        for former in self.parts.accounts.former_processes() {
            self.parts.decoder.add_server(former.process.tgid, former.server);
        }
        self.roomless = self.parts.probes.counters(0)?;
        // Records of before are read when it is known which of their servers still run.
        while !self.is_stopping() && !self.looked_once {
            match self.parts.findings.recv_timeout(LONGEST_WAIT) {
                Ok(finding) => self.handle(finding)?,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) if self.is_stopping() => break,
                Err(RecvTimeoutError::Disconnected) => return Err(CaptureError::NoDiscovery),
            }
        }
        while !self.is_stopping() {
            loop {
                match self.parts.findings.try_recv() {
                    Ok(finding) => self.handle(finding)?,
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) if self.is_stopping() => break,
                    Err(TryRecvError::Disconnected) => return Err(CaptureError::NoDiscovery),
                }
            }
            for refusal in self.trials.on_time() {
                self.refuse(&refusal);
            }
            let is_idle = self.drain();
            if is_idle {
                self.end_gone()?;
            }
            self.on_time()?;
            self.tell_lost_batches();
            if self.is_due() {
                self.flush()?;
            }
            if is_idle {
                self.parts.ring.wait(LONGEST_WAIT)?;
            }
        }
        self.stop()
    }

    fn is_stopping(&self) -> bool {
        self.parts.shutdown.is_cancelled()
    }

    fn stop(mut self) -> Result<(), CaptureError> {
        if !self.parts.keep_probes {
            // On disk before it is so: a hole is never taken for a time that was watched.
            self.parts.accounts.detach();
            self.checkpoint(false);
            self.flush()?;
            // Dropping it detaches.
            self.watches.clear();
        }
        self.drain_all()?;
        self.tell_losses()?;
        self.parts.accounts.end();
        self.checkpoint(true);
        self.flush()?;
        if !self.parts.keep_probes {
            self.parts.probes.unpin()?;
        }
        Ok(())
    }

    fn handle(&mut self, finding: Finding) -> Result<(), CaptureError> {
        match finding {
            Finding::Binary { binary, path, plan } => self.attach(binary, &path, plan),
            Finding::Process { binary, process } => {
                self.register(binary, process);
                self.write_status();
            }
            Finding::Ended(id) => {
                self.drain_all()?;
                self.process_ended(id, true)?;
                self.write_status();
            }
            Finding::LookedOnce => {
                self.look_at_former()?;
                self.looked_once = true;
                self.write_status();
            }
        }
        Ok(())
    }

    fn attach(&mut self, binary: BinaryId, path: &Path, plan: Plan) {
        let attached = match &plan {
            Plan::StaticProbes => self.parts.probes.attach_usdt(path).map(|made| (made, Provider::Usdt)),
            Plan::Functions(derived) => self
                .parts
                .probes
                .attach_functions(path, &derived.targets)
                .map(|made| (made, Provider::Functions)),
            Plan::Refused(reason) => {
                let reason = reason.clone();
                self.watches.insert(binary, Watch::Failed { plan, reason });
                return;
            }
        };
        let watch = match attached {
            Ok((attachment, provider)) => {
                tracing::info!(
                    provider = provider.as_str(),
                    taken_up = attachment.taken_up(),
                    "probes attached"
                );
                Watch::Attached { attachment, at: Timestamp::now(), provider, plan, example: None }
            }
            Err(error) => Watch::Failed { plan, reason: error.to_string() },
        };
        self.watches.insert(binary, watch);
    }

    /// Opens the account of a process.
    fn register(&mut self, binary: BinaryId, process: Process) {
        let id = process.id;
        if self.parts.accounts.is_open(id) {
            return;
        }
        // The process that the program was found by may have ended before probes could be put on it.
        if let Some(Watch::Failed { plan, .. }) = self.watches.get(&binary) {
            let plan = plan.clone();
            self.attach(binary, &id.executable(), plan);
        }
        let server = self.parts.accounts.known_server(id).cloned().unwrap_or(process.server);
        let spans = match self.watches.get_mut(&binary) {
            Some(Watch::Attached { attachment, at, provider, plan, example }) => {
                self.programs.insert(id.tgid, binary);
                if let Plan::Functions(derived) = plan {
                    self.trials.begin(id.tgid, derived.by_table());
                }
                *example = Some(Box::new(server.clone()));
                // Probes that were on already recorded since the collector before this one was last seen to be alive.
                let recorded_since = self.parts.accounts.recorded_since().filter(|_| attachment.taken_up());
                let since = server.process_started_at.max(recorded_since.unwrap_or(*at));
                self.parts.decoder.add_server(id.tgid, server.clone());
                self.span_until = self.span_until.min(Instant::now() + FIRST_SPAN);
                self.parts.accounts.watch(id, &server, *provider, since, attachment.taken_up())
            }
            Some(Watch::Failed { reason, .. }) => {
                self.parts.accounts.refuse(id, &server, reason, Timestamp::now())
            }
            None => Vec::new(),
        };
        self.seal_spans(spans);
    }

    /// Servers that the collector before this one watched, and that ended since.
    fn look_at_former(&mut self) -> Result<(), CaptureError> {
        for former in self.parts.accounts.former_processes() {
            let since = former.server.process_started_at;
            // Its probes went on to its end, so no span ends here.
            let Former { process, provider, server } = former;
            let spans = self.parts.accounts.watch(process, &server, provider, since, true);
            self.seal_spans(spans);
            self.gone.push((process, true));
        }
        let spans = self.parts.accounts.looked_once(Timestamp::now());
        self.seal_spans(spans);
        Ok(self.parts.probes.forget_ended_processes(&self.parts.accounts.watched())?)
    }

    /// Decodes what is in the ring, until it is empty or a batch is full. Whether it is empty.
    fn drain(&mut self) -> bool {
        while !self.is_due() {
            if let Some((bytes, end)) = self.trials.release() {
                self.decode(&bytes, end);
                continue;
            }
            if !self.read_one() {
                return true;
            }
        }
        false
    }

    /// Reads and decodes everything, also what is kept back.
    fn drain_all(&mut self) -> Result<(), CaptureError> {
        while !self.drain() {
            self.flush()?;
        }
        for refusal in self.trials.end() {
            self.refuse(&refusal);
        }
        while !self.drain() {
            self.flush()?;
        }
        Ok(())
    }

    /// Takes one record from the ring; false: it is empty.
    fn read_one(&mut self) -> bool {
        let Some(entry) = self.parts.ring.next() else { return false };
        let end = entry.end;
        match self.trials.look(entry.bytes, end) {
            Look::KeptBack => {}
            Look::Refuses(refusal) => self.refuse(&refusal),
            Look::Passes => match self.parts.decoder.decode(entry.bytes) {
                Err(DecodeError::UnknownProcess { tgid }) if !self.trials.is_refused(tgid) => {
                    let bytes = entry.bytes.to_vec();
                    self.introduce(tgid, &bytes);
                    match self.trials.look(&bytes, end) {
                        Look::KeptBack => {}
                        Look::Refuses(refusal) => self.refuse(&refusal),
                        Look::Passes => self.decode(&bytes, end),
                    }
                }
                decoded => {
                    self.position = end;
                    self.take(decoded);
                }
            },
        }
        true
    }

    fn decode(&mut self, bytes: &[u8], end: u64) {
        let decoded = match self.parts.decoder.decode(bytes) {
            Err(DecodeError::UnknownProcess { tgid }) if !self.trials.is_refused(tgid) => {
                self.introduce(tgid, bytes);
                self.parts.decoder.decode(bytes)
            }
            other => other,
        };
        self.position = end;
        self.take(decoded);
    }

    /// Ends the watch of a process of which what was read cannot be true, and of its program, unless another process
    /// has shown that its offsets hold: with one of their own, people could end the watch of everyone's.
    fn refuse(&mut self, Refusal { tgid, reason }: &Refusal) {
        tracing::error!(process = tgid, reason, "what is read of a server cannot be true");
        let mut refused = vec![*tgid];
        if let Some(&binary) = self.programs.get(tgid) {
            let beside = self.programs.iter().filter(|&(other, program)| other != tgid && *program == binary);
            let beside: Vec<u32> =
                beside.map(|(other, _)| *other).filter(|other| !self.trials.is_refused(*other)).collect();
            if beside.iter().all(|other| self.trials.is_open(*other)) {
                self.detach(binary, reason);
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

    /// Takes the probes off a program; another process of it gets another trial.
    fn detach(&mut self, binary: BinaryId, reason: &str) {
        if let Some(Watch::Attached { attachment, plan, .. }) = self.watches.remove(&binary) {
            drop(attachment);
            self.watches.insert(binary, Watch::Failed { plan, reason: reason.to_owned() });
        }
    }

    /// Whether a batch is to be made: it is full or has waited, or much of the ring is held by what it brings to disk.
    fn is_due(&self) -> bool {
        let holds = self.has_filtered || !self.parts.sealer.is_empty();
        self.parts.sealer.is_due(Instant::now()) || holds && self.is_ring_held()
    }

    /// Whether a batch would give much of the ring back to the kernel.
    fn is_ring_held(&self) -> bool {
        self.parts.ring.held_bytes(self.position) >= self.parts.ring.capacity_bytes() / 4
    }

    fn take(&mut self, decoded: Result<Decoded, DecodeError>) {
        match decoded {
            Ok(Decoded::Event(event)) => {
                self.parts.accounts.count_stored(event.server.process_id);
                self.parts.metrics.events.inc();
                self.parts.sealer.event(event);
            }
            Ok(Decoded::Filtered { tgid, rule, connection }) => {
                self.parts.accounts.count_filtered(tgid, &rule);
                if let Some((id, principal)) = connection {
                    self.tell_kernel(tgid, id, &principal);
                }
                self.parts.metrics.events_filtered.inc();
                self.has_filtered = true;
            }
            Ok(Decoded::Part) => {}
            // Counted already, or done since it is not watched any more.
            Err(DecodeError::UnknownProcess { tgid }) if self.trials.is_refused(tgid) => {}
            Err(error) => {
                tracing::error!(%error, "a record of the kernel was lost");
                let now = Timestamp::now();
                let nobody = self.own_server();
                self.tell_gap(nobody, LossReason::Undecodable, 1, (now, now));
            }
        }
    }

    /// A connection of which events are left out: the kernel may do that by itself from now on.
    fn tell_kernel(&mut self, tgid: u32, connection: u64, principal: &Principal) {
        let Parts { probes, policy, .. } = &mut self.parts;
        if let Err(error) = probes.tell_connection(policy, tgid, connection, principal) {
            tracing::warn!(%error, "the kernel cannot be told of a connection; its events are filtered here");
        }
    }

    /// Finds out who process `tgid` is, of which there is a record already.
    fn introduce(&mut self, tgid: u32, bytes: &[u8]) {
        let process = inspect(tgid, &self.parts.host);
        let binary = BinaryId::of(&PathBuf::from(format!("/proc/{tgid}/exe")));
        if let (Ok(process), Ok(binary)) = (process, binary)
            && self.watches.contains_key(&binary)
        {
            self.register(binary, process);
        }
        if self.parts.decoder.server(tgid).is_some() {
            return;
        }
        // It has ended. What ran the same program before tells most of what it was.
        let slot = Record::split_from(bytes).map(|(record, _)| record.target);
        let watch = self.watches.values().find_map(|watch| match watch {
            Watch::Attached { attachment, example, plan, .. } if Some(attachment.slot()) == slot => {
                Some((example.clone(), plan))
            }
            _ => None,
        });
        if let Some((_, Plan::Functions(derived))) = &watch {
            self.trials.begin(tgid, derived.by_table());
        }
        let example = watch.and_then(|(example, _)| example);
        let nobody = self.own_server();
        let now = Timestamp::now();
        let server = Server {
            instance: InstanceId::derive(&self.parts.host, "", &format!("process {tgid}")),
            product: example.as_ref().map_or_else(|| "unknown".into(), |example| example.product.clone()),
            version: example.and_then(|example| example.version.clone()),
            process_id: tgid,
            process_started_at: now,
            container_id: None,
            ..nobody
        };
        let id = ProcessId { tgid, start_ticks: 0 };
        self.parts.decoder.add_server(tgid, server.clone());
        let spans = self.parts.accounts.watch(id, &server, Provider::Functions, now, false);
        self.seal_spans(spans);
        self.gone.push((id, false));
    }

    fn end_gone(&mut self) -> Result<(), CaptureError> {
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
        self.count_filtered(id.tgid)?;
        self.tell_losses_of(id.tgid, &counters, now);
        let span = self.parts.accounts.ended(id.tgid, is_known, now);
        self.seal_spans(span);
        self.parts.decoder.remove_server(id.tgid);
        self.programs.remove(&id.tgid);
        self.trials.forget(id.tgid);
        self.settled.push(id.tgid);
        Ok(())
    }

    fn on_time(&mut self) -> Result<(), CaptureError> {
        let now = Instant::now();
        if now >= self.losses_until {
            self.losses_until = now + LOOK_FOR_LOSSES;
            self.tell_losses()?;
            whence_service::notify::watchdog();
        }
        if now >= self.span_until {
            self.span_until = now + SPAN;
            self.checkpoint(false);
            self.parts.probes.forget_ended_threads()?;
            self.write_status();
        }
        Ok(())
    }

    /// Ends every coverage span and begins the next. `ended`: these are the last.
    fn checkpoint(&mut self, ended: bool) {
        let now = Timestamp::now();
        let spans = self.parts.accounts.checkpoint(now);
        self.seal_spans(spans);
        self.tell_own_life(ended, now);
    }

    fn tell_own_life(&mut self, ended: bool, now: Timestamp) {
        let own = self.own_life.span(self.own_server(), ended, now);
        self.seal_spans([own]);
    }

    fn seal_spans(&mut self, spans: impl IntoIterator<Item = Coverage>) {
        for span in spans {
            self.parts.sealer.coverage(span);
        }
    }

    fn tell_losses(&mut self) -> Result<(), CaptureError> {
        let now = Timestamp::now();
        for tgid in self.parts.accounts.watched() {
            let counters = self.parts.probes.counters(tgid)?;
            self.count_filtered(tgid)?;
            self.tell_losses_of(tgid, &counters, now);
        }
        let roomless = self.parts.probes.counters(0)?;
        for (reason, events) in crate::decode::losses(&self.roomless, &roomless) {
            let nobody = self.own_server();
            self.tell_gap(nobody, reason, events, (self.losses_since, now));
        }
        self.roomless = roomless;
        self.losses_since = now;
        Ok(())
    }

    /// Takes in what the kernel has left out of process `tgid`.
    fn count_filtered(&mut self, tgid: u32) -> Result<(), CaptureError> {
        let counts = self.parts.probes.filtered(tgid)?;
        self.parts.accounts.count_filtered_in_kernel(tgid, counts);
        Ok(())
    }

    fn tell_losses_of(&mut self, tgid: u32, counters: &Counters, now: Timestamp) {
        let losses = self.parts.accounts.count_lost(tgid, counters);
        let Some(server) = self.parts.decoder.server(tgid).cloned() else { return };
        for (reason, events) in losses {
            self.tell_gap(server.clone(), reason, events, (self.losses_since, now));
        }
    }

    fn tell_gap(
        &mut self,
        server: Server,
        reason: LossReason,
        events: u64,
        (from, to): (Timestamp, Timestamp),
    ) {
        tracing::warn!(reason = reason.as_str(), events, "events were lost");
        self.parts.metrics.count_lost(reason, events);
        let gap = self.parts.decoder.gap(server, Gap { reason, events }, from, to);
        self.parts.sealer.event(gap);
    }

    /// Batches that the spool gave up, lost or put aside, as gaps of their servers.
    fn tell_lost_batches(&mut self) {
        let lost = ship::lock(&self.parts.spool).take_lost();
        if lost.is_empty() {
            return;
        }
        let nobody = self.own_server();
        let (mut losses, mut retold) = (Losses::new(), Vec::new());
        for lost in lost {
            match lost {
                Lost::Corrupt { events, gaps } => {
                    let now = Timestamp::now();
                    if events > 0 {
                        self.tell_gap(nobody.clone(), LossReason::SpoolCorrupt, events, (now, now));
                    }
                    retold.extend(gaps);
                }
                Lost::Refused { batch } => {
                    drop(add_losses(&batch, LossReason::Refused, &nobody, &mut losses, &mut retold));
                }
                Lost::Full { batches } => {
                    for batch in batches {
                        let coverage =
                            add_losses(&batch, LossReason::SpoolFull, &nobody, &mut losses, &mut retold);
                        // It still holds. (That of a refused batch may be what was refused.)
                        self.seal_spans(coverage);
                    }
                }
            }
        }
        for ((server, reason), (events, from, to)) in losses {
            self.tell_gap(server, reason, events, (from, to));
        }
        for gap in retold {
            self.tell_gap(gap.server, gap.reason, gap.events, (gap.from, gap.to));
        }
    }

    /// Seals what there is and puts it into the spool; tries until it is there, or, when stopping, some times.
    fn flush(&mut self) -> Result<(), CaptureError> {
        if self.has_filtered && self.is_ring_held() {
            // The spans that count it make a batch.
            self.checkpoint(false);
        }
        let batch = match self.parts.sealer.seal() {
            Ok(Some(batch)) => batch,
            Ok(None) => return Ok(()),
            Err(error) => {
                tracing::error!(%error, "cannot encode a batch, trying again");
                std::thread::sleep(SPOOL_RETRY);
                return Ok(());
            }
        };
        let mark = RingMark { position: self.position, ring: self.ring_tag };
        let mut attempts = 0;
        while let Err(error) = self.append(&batch, &mark) {
            if attempts == 0 {
                tracing::error!(error, "cannot write to the spool; the kernel's ring holds what comes");
            }
            attempts += 1;
            self.parts.metrics.spool_failures.inc();
            if self.is_stopping() && attempts >= LAST_ATTEMPTS {
                return Err(CaptureError::Unsaved);
            }
            whence_service::notify::watchdog();
            std::thread::sleep(SPOOL_RETRY);
        }
        self.parts.accounts.confirm();
        self.has_filtered = false;
        self.parts.ring.commit(self.position);
        for tgid in std::mem::take(&mut self.settled) {
            self.parts.probes.forget_process(tgid)?;
        }
        self.parts.metrics.batches_sealed.inc();
        let mut spool = ship::lock(&self.parts.spool);
        spool.settle_lost();
        let (batches, bytes) = spool.backlog();
        self.parts.metrics.backlog_batches.set(i64::try_from(batches).unwrap_or(i64::MAX));
        self.parts.metrics.backlog_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        self.parts.sealer.adapt(batches, self.parts.metrics.ship.last_answer());
        Ok(())
    }

    fn append(&mut self, batch: &SealedBatch, mark: &RingMark) -> Result<(), String> {
        self.parts.accounts.save(batch.number).map_err(|error| error.to_string())?;
        ship::lock(&self.parts.spool).append(batch, Some(mark)).map_err(|error| error.to_string())
    }

    /// What this collector's own life is filed under, and gaps that belong to no server.
    fn own_server(&self) -> Server {
        Server {
            host: self.parts.host.clone(),
            instance: InstanceId::of_collector(&self.parts.host),
            product: "Whence collector".into(),
            version: Some(env!("CARGO_PKG_VERSION").into()),
            address: None,
            port: None,
            process_id: std::process::id(),
            process_started_at: Timestamp(0),
            container_id: None,
        }
    }

    fn write_status(&self) {
        if !self.looked_once {
            return;
        }
        let servers = self.parts.accounts.servers();
        self.parts.metrics.set_servers(servers.iter().map(|(_, state, _)| *state));
        let servers = servers.into_iter().map(|(server, state, detail)| ServerStatus {
            process_id: server.process_id,
            server: describe(server),
            state: state.as_str().to_owned(),
            detail: match (state, detail) {
                (_, Some(detail)) => detail.to_owned(),
                (CoverageState::Watched, None) => self.places(server),
                (CoverageState::NotRunning, None) => {
                    "it has ended; captured again as soon as it starts".into()
                }
                (CoverageState::Unattachable, None) => String::new(),
            },
        });
        let (batches, bytes) = ship::lock(&self.parts.spool).backlog();
        let shipped_at = self.parts.metrics.ship.shipped_at_seconds.get();
        let status = Status {
            updated_at: Timestamp::now(),
            process_id: std::process::id(),
            spool: SpoolStatus {
                batches: batches as u64,
                bytes,
                shipped_at: (shipped_at > 0).then(|| Timestamp(shipped_at * 1_000_000_000)),
            },
            servers: servers.collect(),
        };
        if let Err(error) = status.write(&self.parts.status_file) {
            tracing::warn!(%error, "cannot say what is attached");
        }
    }

    /// What the probes of this server are on, for people.
    fn places(&self, server: &Server) -> String {
        let binary = BinaryId::of(&PathBuf::from(format!("/proc/{}/exe", server.process_id)));
        match binary.ok().and_then(|binary| self.watches.get(&binary)) {
            Some(Watch::Attached { attachment, provider, .. }) => {
                let by = if *provider == Provider::Usdt { "static probes" } else { "functions" };
                format!("{by} {}", attachment.places().join(", "))
            }
            _ => String::new(),
        }
    }
}

/// Adds the events of a lost batch to `losses` and its gaps to `retold`; the answer is its coverage.
fn add_losses(
    batch: &[u8],
    reason: LossReason,
    nobody: &Server,
    losses: &mut Losses,
    retold: &mut Vec<ToldGap>,
) -> Vec<Coverage> {
    let Ok(batch) = whence_wire::decode(batch, &whence_wire::Limits::default()) else {
        tracing::error!("a lost batch cannot be read");
        return Vec::new();
    };
    for event in batch.events {
        let at = event.started_at;
        let mut server = event.server.clone();
        if let Some(gap) = ToldGap::of(&event) {
            retold.push(gap);
            // Its number has no event now, which nothing but the collector has lost.
            server = nobody.clone();
        }
        let loss = losses.entry((server, reason)).or_insert((0, at, at));
        *loss = (loss.0 + 1, loss.1.min(at), loss.2.max(at));
    }
    batch.coverage
}

/// `MariaDB 10.11.19 on 127.0.0.1:3306 (pid 812)`.
fn describe(server: &Server) -> String {
    let version = server.version.as_ref().map(|version| format!(" {version}")).unwrap_or_default();
    let at = match (server.address, server.port) {
        (Some(address), Some(port)) => format!(" on {}", std::net::SocketAddr::new(address, port)),
        _ => String::new(),
    };
    format!("{}{version}{at} (pid {})", server.product, server.process_id)
}
