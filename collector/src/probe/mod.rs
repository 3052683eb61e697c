//! The kernel's side: binaries to watch go in, records of what their threads do come out of the ring.
//!
//! [`Probes::load`] brings the BPF programs and maps into the kernel. [`Probes::attach_functions`] and
//! [`Probes::attach_usdt`] put them on a binary: every process that runs it, now or later, is watched, until the
//! [`Attachment`] is dropped. [`Probes::take_ring`] gives the reader.

pub mod arguments;
pub mod attach;
mod attachment;
mod filter;
pub mod kernel;
mod maps;
pub mod notes;
pub mod pins;
pub mod points;
pub mod ring;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use aya::maps::{Map, MapData};
use aya::programs::{Program, ProgramError, UProbe};
use aya::{Ebpf, EbpfLoader};
use whence_abi::layout::Layout;
use whence_abi::record::{Counters, MAX_SQL_BYTES};
use whence_model::Principal;

pub use arguments::SpecError;
pub use attachment::Attachment;
use filter::Filters;
use maps::Tables;
use pins::PinDirectory;
pub use ring::{Ring, RingError};

use crate::policy::Policy;

/// The BPF object, built from `collector-ebpf` by `cargo xtask ebpf`.
static OBJECT: &[u8] = aya::include_bytes_aligned!("../../../collector-ebpf/prebuilt/whence.bpfel.o");

/// The programs of the object that are attached to functions and static probes.
const PROGRAMS: [&str; 11] = [
    "dispatch_entry",
    "dispatch_return",
    "execute_return",
    "login_entry",
    "login_return",
    "close_entry",
    "connection_start",
    "connection_done",
    "command_start",
    "query_start",
    "command_done",
];

/// How to load.
#[derive(Clone, Debug)]
pub struct Config {
    /// Bytes of the ring; a power of two, at least one page.
    pub ring_bytes: u32,
    /// Longest SQL kept; at most [`MAX_SQL_BYTES`].
    pub sql_bytes: u32,
    /// Most server threads at one time.
    pub threads: u32,
    /// Directory in a BPF file system, where probes outlive this process. None: they end with it.
    pub pin_directory: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Self { ring_bytes: 16 << 20, sql_bytes: 64 << 10, threads: 4096, pin_directory: None }
    }
}

/// The functions of a server binary, as file offsets, and where it keeps things.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionTargets {
    pub layout: Layout,
    pub dispatch_command: u64,
    /// Without it logins are not seen.
    pub acl_authenticate: Option<u64>,
    /// Without it a disconnect shows as the command Quit only.
    pub close_connection: Option<u64>,
    /// `mysqld_stmt_execute` and its kin: without them prepared statements have no text at execution.
    pub stmt_execute: Vec<u64>,
}

/// The kernel's side cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    #[error("the ring must be a power of two of at least {page} bytes, not {bytes}", page = 4096)]
    InvalidRing { bytes: u32 },
    #[error("{0}")]
    Kernel(kernel::Unfit),
    #[error("the kernel did not take the BPF object: {0}")]
    Load(#[from] aya::EbpfError),
    #[error("the kernel did not take the BPF program {program}: {source}")]
    Program { program: &'static str, source: ProgramError },
    #[error("the BPF object lacks {0}")]
    Incomplete(&'static str),
    #[error("the BPF map {map} cannot be used: {source}")]
    Map { map: &'static str, source: aya::maps::MapError },
    #[error("the directory {path} for pinned probes cannot be used: {source}")]
    Pin { path: PathBuf, source: io::Error },
    #[error("another collector uses the probes pinned in {path}; stop it, or give another --pin-dir")]
    InUse { path: PathBuf },
    #[error(transparent)]
    Ring(#[from] RingError),
    #[error("cannot attach to {place} of {binary}: {source}")]
    Attach { place: String, binary: PathBuf, source: io::Error },
    #[error("{binary}: {source}")]
    Notes { binary: PathBuf, source: notes::NotesError },
    #[error("{binary} lacks the static probe {probe}")]
    NoProbe { binary: PathBuf, probe: &'static str },
    #[error(
        "{binary}: the static probe {probe} has {found} arguments, where that of a MySQL server has {needed}"
    )]
    TooFewArguments { binary: PathBuf, probe: &'static str, found: usize, needed: usize },
    #[error("the arguments of the static probe {probe} cannot be read: {source}")]
    Arguments { probe: String, source: SpecError },
    #[error("more binaries or probe locations than the tables hold")]
    TooMany,
}

/// Has the kernel verify and take `program`. The kernel gives up when the thread has something else to look at first, be
/// it a signal or work of the kernel's own, and asks to be asked again.
fn load(program: &mut UProbe) -> Result<(), ProgramError> {
    const TRIES: usize = 10;
    for _ in 1..TRIES {
        match program.load() {
            Err(ProgramError::LoadError { io_error, .. }) if io_error.kind() == io::ErrorKind::WouldBlock => {
            }
            other => return other,
        }
    }
    program.load()
}

/// The loaded programs and maps.
pub struct Probes {
    bpf: Ebpf,
    tables: Arc<Mutex<Tables>>,
    filters: Filters,
    pins: Option<PinDirectory>,
    ring: Option<MapData>,
}

impl Probes {
    /// Loads programs and maps; with a pin directory, takes up the maps that are pinned there.
    pub fn load(config: &Config) -> Result<Self, ProbeError> {
        if !config.ring_bytes.is_power_of_two() || config.ring_bytes < 4096 {
            return Err(ProbeError::InvalidRing { bytes: config.ring_bytes });
        }
        kernel::check().map_err(ProbeError::Kernel)?;
        let pins =
            config.pin_directory.as_deref().map(|path| PinDirectory::open(path, OBJECT)).transpose()?;
        let sql_bytes = u64::from(config.sql_bytes).min(MAX_SQL_BYTES);
        let map_paths = pins.as_ref().map(PinDirectory::map_paths).unwrap_or_default();
        let mut loader = EbpfLoader::new();
        loader
            .override_global("SQL_BYTES", &sql_bytes, true)
            .map_max_entries("RING", config.ring_bytes)
            .map_max_entries("THREADS", config.threads);
        for (name, path) in &map_paths {
            loader.map_pin_path(name, path.as_path());
        }
        let mut bpf = loader.load(OBJECT)?;
        for name in PROGRAMS {
            let Some(Program::UProbe(program)) = bpf.program_mut(name) else {
                return Err(ProbeError::Incomplete(name));
            };
            load(program).map_err(|source| ProbeError::Program { program: name, source })?;
        }
        let Some(Map::RingBuf(ring)) = bpf.take_map("RING") else {
            return Err(ProbeError::Incomplete("RING"));
        };
        let used = pins.as_ref().map(PinDirectory::used).transpose()?.unwrap_or_default();
        let tables = Arc::new(Mutex::new(Tables::take(&mut bpf, &used)?));
        let filters = Filters::take(&mut bpf)?;
        Ok(Self { bpf, tables, filters, pins, ring: Some(ring) })
    }

    /// The reader of the ring; None after it was taken.
    pub fn take_ring(&mut self) -> Result<Option<Ring>, ProbeError> {
        Ok(self.ring.take().map(Ring::open).transpose()?)
    }

    /// Watches every process of `binary` by its functions.
    pub fn attach_functions(
        &mut self,
        binary: &Path,
        targets: &FunctionTargets,
    ) -> Result<Attachment, ProbeError> {
        attachment::functions(self, binary, targets)
    }

    /// Watches every process of `binary` by the static probes of its provider `mysql`.
    pub fn attach_usdt(&mut self, binary: &Path) -> Result<Attachment, ProbeError> {
        attachment::static_probes(self, binary)
    }

    /// What became of the events of process `tgid` so far, over all CPUs.
    pub fn counters(&self, tgid: u32) -> Result<Counters, ProbeError> {
        maps::lock(&self.tables).counters(tgid)
    }

    /// The processes of which the kernel keeps something.
    pub fn processes(&self) -> BTreeSet<u32> {
        &maps::lock(&self.tables).processes() | &self.filters.processes()
    }

    /// The slot of the attachment that records process `tgid`.
    pub fn owner(&self, tgid: u32) -> Option<u32> {
        maps::lock(&self.tables).owner(tgid)
    }

    /// The records of the commands that process `tgid` is in the middle of, marked unfinished.
    pub fn unfinished(&self, tgid: u32) -> Vec<Vec<u8>> {
        maps::lock(&self.tables).unfinished(tgid)
    }

    /// What is left of process `tgid`, which has ended: the records of the commands that it was in the middle of, marked
    /// unfinished, and its last counters.
    pub fn process_ended(&self, tgid: u32) -> Result<(Vec<Vec<u8>>, Counters), ProbeError> {
        let tables = maps::lock(&self.tables);
        Ok((tables.unfinished(tgid), tables.counters(tgid)?))
    }

    /// Has the kernel decide by these rules, as far as it can.
    pub fn hold_rules(&mut self, policy: &Policy) -> Result<(), ProbeError> {
        self.filters.hold(policy)
    }

    /// Tells the kernel who a connection of process `tgid` belongs to, when that matters to the rules that it holds.
    pub fn tell_connection(
        &mut self,
        policy: &Policy,
        tgid: u32,
        connection: u64,
        principal: &Principal,
    ) -> Result<(), ProbeError> {
        self.filters.tell(policy, tgid, connection, principal)
    }

    /// How many events of process `tgid` the kernel has left out so far, by the name of the rule.
    pub fn filtered(&self, tgid: u32) -> Result<BTreeMap<String, u64>, ProbeError> {
        self.filters.filtered(tgid)
    }

    /// Forgets process `tgid`, when all that was left of it is on disk.
    pub fn forget_process(&mut self, tgid: u32) -> Result<(), ProbeError> {
        self.filters.forget_process(tgid)?;
        maps::lock(&self.tables).forget_process(tgid)
    }

    /// Unpins the maps and the probes that were left, when nothing is to go on without a collector.
    pub fn unpin(&self) -> Result<(), ProbeError> {
        let Some(pins) = &self.pins else { return Ok(()) };
        pins.remove().map_err(|source| ProbeError::Pin { path: pins.path().to_owned(), source })
    }

    /// Forgets threads that have ended without closing a connection.
    pub fn forget_ended_threads(&mut self) -> Result<usize, ProbeError> {
        maps::lock(&self.tables).forget_ended_threads()
    }
}
