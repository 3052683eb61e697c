//! All of capturing, from the probes to the spool. The tests tell it what discovery would find, and nothing is shipped.

use std::path::Path;
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use whence_collector::account::Accounts;
use whence_collector::capture::{self, Capture, CaptureError, Parts};
use whence_collector::decode::Decoder;
use whence_collector::discover::process::inspect;
use whence_collector::discover::{BinaryId, Finding, Plan};
use whence_collector::identity::Identity;
use whence_collector::metrics::Metrics;
use whence_collector::probe::{Config, Probes};
use whence_collector::seal::Sealer;
use whence_collector::spool::Spool;
use whence_collector::spool::inspect::Contents;
use whence_model::{Coverage, CoverageState, Event, Outcome};
use whence_wire::{Batch, Limits};

use crate::pins::Pins;
use crate::server::Server;

const DEADLINE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);
const HOST: &str = "test";

/// Where one collector after the other runs: its probes and its spool stay.
pub struct Place {
    pins: Pins,
    directory: TempDir,
    pub ring_bytes: u32,
}

/// A collector that runs.
pub struct Collector {
    tell: Sender<Finding>,
    shutdown: CancellationToken,
    thread: JoinHandle<Result<(), CaptureError>>,
}

impl Place {
    pub fn new() -> Self {
        let directory = TempDir::new().unwrap();
        Self { pins: Pins::new(), directory, ring_bytes: Config::default().ring_bytes }
    }

    fn spool(&self) -> &Path {
        self.directory.path()
    }

    pub fn start(&self, keep_probes: bool) -> Collector {
        let config = Config { ring_bytes: self.ring_bytes, ..self.pins.config() };
        let mut probes = Probes::load(&config).expect("this test needs root");
        let mut ring = probes.take_ring().unwrap().unwrap();
        let (spool, recovery) = Spool::open(self.spool(), 64 << 20).unwrap();
        if let Some(mark) = recovery.ring.filter(|mark| mark.ring == capture::ring_tag(&ring)) {
            ring.skip_to(mark.position);
        }
        let identity = Identity::load_or_create(self.spool()).unwrap();
        let accounts = Accounts::open(self.spool(), ring.identity(), recovery.link.number - 1);
        let (tell, findings) = mpsc::channel();
        let shutdown = CancellationToken::new();
        let capture = Capture::new(Parts {
            host: HOST.into(),
            probes,
            ring,
            decoder: Decoder::new(identity.id, recovery.link.sequence, Arc::default()),
            policy: Arc::default(),
            sealer: Sealer::new(identity.id, identity.key, recovery.link).unwrap(),
            spool: Arc::new(Mutex::new(spool)),
            accounts,
            findings,
            metrics: Metrics::default(),
            status_file: self.spool().join("status.json"),
            keep_probes,
            shutdown: shutdown.clone(),
        });
        Collector { tell, shutdown, thread: std::thread::spawn(move || capture.run()) }
    }

    fn batches(&self) -> Vec<Batch> {
        let contents = Contents::read(self.spool()).unwrap();
        let batches = contents
            .read_waiting()
            .map(|waiting| whence_wire::decode(&waiting.unwrap().bytes, &Limits::default()).unwrap());
        batches.collect()
    }

    /// The events that are stored of `server`, and the gaps.
    pub fn events(&self, server: &Server) -> Vec<Event> {
        let events = self.batches().into_iter().flat_map(|batch| batch.events);
        events.filter(|event| event.server.process_id == server.pid()).collect()
    }

    /// The SQL of the commands of `server` that are stored, and whether they were finished.
    pub fn commands(&self, server: &Server) -> Vec<(String, bool)> {
        let of = |event: Event| {
            let sql = event.statement?.sql?.text;
            Some((sql, event.outcome != Some(Outcome::Unfinished)))
        };
        self.events(server).into_iter().filter_map(of).collect()
    }

    pub fn coverage(&self, server: &Server) -> Vec<Coverage> {
        let spans = self.batches().into_iter().flat_map(|batch| batch.coverage);
        spans.filter(|span| span.server.process_id == server.pid()).collect()
    }

    /// Whether `server` is in the collector's status.
    pub fn knows(&self, server: &Server) -> bool {
        let status = std::fs::read_to_string(self.spool().join("status.json"));
        status.is_ok_and(|status| status.contains(&format!("(pid {})", server.pid())))
    }

    /// How many programs have probes.
    pub fn probed_programs(&self) -> usize {
        self.pins.programs()
    }

    /// Waits until one more span of `server` tells that it is watched.
    pub fn until_watched(&self, server: &Server) {
        let watched = || {
            let spans = self.coverage(server);
            spans.iter().filter(|span| span.state == CoverageState::Watched).count()
        };
        let before = watched();
        self.until("no span of it", || watched() > before);
    }

    pub fn until(&self, otherwise: &str, done: impl Fn() -> bool) {
        let deadline = Instant::now() + DEADLINE;
        while !done() {
            assert!(Instant::now() < deadline, "{otherwise}: {:#?}", self.batches());
            std::thread::sleep(POLL);
        }
    }
}

impl Collector {
    /// Discovery finds the program of `server` …
    pub fn find_program(&self, server: &Server) {
        let path = server.executable();
        let binary = BinaryId::of(&path).unwrap();
        self.tell.send(Finding::Binary { binary, path, plan: Plan::StaticProbes }).unwrap();
    }

    /// … and its process …
    pub fn find(&self, server: &Server) {
        let binary = BinaryId::of(&server.executable()).unwrap();
        let process = inspect(server.pid(), HOST).unwrap();
        self.tell.send(Finding::Process { binary, process }).unwrap();
    }

    /// Ends `server`, and discovery sees it.
    pub fn ended(&self, server: &mut Server) {
        let id = inspect(server.pid(), HOST).unwrap().id;
        server.kill();
        self.tell.send(Finding::Ended(id)).unwrap();
    }

    /// … and has looked at all.
    pub fn looked_once(&self) {
        self.tell.send(Finding::LookedOnce).unwrap();
    }

    pub fn stop(self) {
        self.shutdown.cancel();
        self.thread.join().unwrap().unwrap();
    }
}
