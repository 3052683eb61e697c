//! The thread that turns what the kernel recorded into batches in the spool.
//!
//! Records of the ring and findings of the discovery go in; events, gaps and coverage spans go into batches. The ring's
//! memory is given back to the kernel only when the batch that its records went into is on disk.

mod losses;
mod processes;
mod programs;
mod reading;
mod status;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use whence_model::{Coverage, InstanceId, Server, Timestamp};

use crate::account::Accounts;
use crate::decode::{Decoder, Steps};
use crate::discover::{Finding, ProcessId};
use crate::life::OwnLife;
use crate::metrics::Metrics;
use crate::policy::Policy;
use crate::probe::{ProbeError, Probes, Ring};
use crate::seal::{SealedBatch, Sealer};
use crate::ship::{self, SharedSpool};
use crate::spool::RingMark;
use crate::trial::Trials;
use programs::Programs;

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
    programs: Programs,
    parts: Parts,
    own_life: OwnLife,
    steps: Steps,
    ring_tag: [u8; 16],
    trials: Trials,
    /// Processes that had ended before anyone looked at them, and whether they are known for what they were.
    gone: Vec<(ProcessId, bool)>,
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

/// The tag by which the spool knows a ring.
pub fn ring_tag(ring: &Ring) -> [u8; 16] {
    Uuid::new_v5(&Uuid::NAMESPACE_OID, ring.identity().as_bytes()).into_bytes()
}

impl Capture {
    pub fn new(parts: Parts) -> Self {
        Self {
            own_life: OwnLife::begin(parts.accounts.began()),
            steps: Steps::begin(),
            ring_tag: ring_tag(&parts.ring),
            programs: Programs::default(),
            trials: Trials::default(),
            gone: Vec::new(),
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
        for &tgid in self.parts.accounts.settled_before() {
            self.parts.probes.forget_process(tgid)?;
        }
        // Records of before are read when it is known which of their servers still run.
        while !self.is_stopping() && !self.looked_once {
            self.handle_next(LONGEST_WAIT)?;
        }
        while !self.is_stopping() {
            while self.handle_next(Duration::ZERO)? {}
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
            self.programs.detach_all();
        }
        self.drain_all()?;
        if !self.parts.keep_probes {
            self.take_unfinished();
        }
        self.tell_losses()?;
        self.parts.accounts.end();
        self.checkpoint(true);
        self.flush()?;
        if !self.parts.keep_probes {
            self.parts.probes.unpin()?;
        }
        Ok(())
    }

    /// Handles the next finding, if there is one within `wait`; whether there was.
    fn handle_next(&mut self, wait: Duration) -> Result<bool, CaptureError> {
        match self.parts.findings.recv_timeout(wait) {
            Ok(finding) => self.handle(finding).map(|()| true),
            Err(RecvTimeoutError::Disconnected) if !self.is_stopping() => Err(CaptureError::NoDiscovery),
            Err(_) => Ok(false),
        }
    }

    fn on_time(&mut self) -> Result<(), CaptureError> {
        if let Some((before, after)) = self.steps.look() {
            self.clock_was_set(before, after);
        }
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

    /// A span over the time that was leapt would call it watched.
    fn clock_was_set(&mut self, before: Timestamp, after: Timestamp) {
        tracing::warn!(%before, %after, "the clock of this host was set");
        let spans = self.parts.accounts.clock_was_set(before, after);
        self.seal_spans(spans);
        let own = self.own_life.clock_was_set(self.own_server(), before, after);
        self.seal_spans([own]);
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
        let settled = self.parts.accounts.confirm();
        self.has_filtered = false;
        self.parts.ring.commit(self.position);
        for tgid in settled {
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
}
