//! The database servers of this host, and how each would be watched.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;
use whence_abi::layout::Layout;

use super::Places;
use crate::discover::{self, BinaryId, Plan, ProcessId, process};
use crate::offsets::fields::{FIELDS, Place};
use crate::offsets::{self, Derived, Source, Table};
use crate::probe::pins;
use crate::status::{ServerStatus, Status};

/// What events of static probes never have.
const NOT_BY_STATIC_PROBES: [&str; 7] = [
    "login user",
    "client port",
    "TLS",
    "error number, SQLSTATE and message",
    "rows sent",
    "rows affected",
    "account of refused logins",
];
/// What nobody gives yet.
const NOT_BY_FUNCTIONS: [&str; 1] = ["TLS"];

/// One server process.
#[derive(Clone, Debug, Serialize)]
pub struct Server {
    pub process_id: u32,
    pub product: String,
    pub version: Option<String>,
    /// As its process has it: in a container, a path there.
    pub program: PathBuf,
    /// Id of its container.
    pub container: Option<String>,
    /// Where clients reach it.
    pub address: Option<String>,
    /// `static probes` or `functions`; None: not at all.
    pub watched_by: Option<&'static str>,
    /// Why it cannot be watched.
    pub refused: Option<String>,
    /// What a table of offsets would know this build by.
    pub build: Option<String>,
    pub offsets: Vec<Offset>,
    /// What its events do not have.
    pub null_fields: Vec<&'static str>,
    /// What the collector that runs says of it.
    pub collector_says: Option<ServerStatus>,
    /// Probes pinned on its program: they record also while no collector runs.
    pub pinned_probes: usize,
}

/// One offset and where it is from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Offset {
    pub field: &'static str,
    pub place: Place,
    pub source: Source,
}

impl Server {
    /// Whether it can be watched and, where a collector runs, is.
    pub fn is_well(&self) -> bool {
        let is_refused =
            |status: &ServerStatus| status.state == whence_model::CoverageState::Unattachable.as_str();
        self.refused.is_none() && !self.collector_says.as_ref().is_some_and(is_refused)
    }
}

pub fn look(table: &Table, places: &Places, status: Option<&Status>) -> Vec<Server> {
    let mut servers: Vec<_> = discover::servers(table)
        .into_iter()
        .filter_map(|(id, binary, plan)| server(id, binary, &plan, places, status))
        .collect();
    servers.sort_by_key(|server| server.process_id);
    servers
}

fn server(
    id: ProcessId,
    binary: BinaryId,
    plan: &Plan,
    places: &Places,
    status: Option<&Status>,
) -> Option<Server> {
    // It may have ended meanwhile.
    let found = process::inspect(id.tgid, "").ok()?.server;
    let (watched_by, refused, offsets, null_fields) = match plan {
        Plan::StaticProbes => (Some("static probes"), None, Vec::new(), NOT_BY_STATIC_PROBES.to_vec()),
        Plan::Functions(derived) => {
            let absent = [derived.absent(), NOT_BY_FUNCTIONS.to_vec()].concat();
            (Some("functions"), None, sources(derived), absent)
        }
        Plan::Refused(reason) => (None, Some(reason.clone()), Vec::new(), Vec::new()),
    };
    let key = refused.as_ref().and_then(|_| offsets::key(&id.executable()));
    Some(Server {
        process_id: id.tgid,
        product: found.product,
        version: found.version,
        program: fs::read_link(id.executable()).ok()?,
        container: found.container_id,
        address: found
            .address
            .zip(found.port)
            .map(|(ip, port)| std::net::SocketAddr::new(ip, port).to_string()),
        watched_by,
        refused,
        build: key.map(|key| key.to_string()),
        offsets,
        null_fields,
        collector_says: status
            .and_then(|status| status.servers.iter().find(|server| server.process_id == id.tgid).cloned()),
        pinned_probes: pinned(&places.pin_dir, binary),
    })
}

fn sources(derived: &Derived) -> Vec<Offset> {
    let layout: &Layout = &derived.targets.layout;
    let known = FIELDS.iter().filter_map(|field| {
        let source = if derived.added.contains(&field.key) { Source::Table } else { derived.source };
        Some(Offset { field: field.key, place: field.get(layout)?, source })
    });
    known.collect()
}

fn pinned(pin_dir: &Path, binary: BinaryId) -> usize {
    let builds = fs::read_dir(pin_dir).into_iter().flatten().flatten();
    let links =
        builds.filter_map(|build| fs::read_dir(build.path().join("links").join(binary.to_string())).ok());
    links
        .flatten()
        .flatten()
        .filter(|link| pins::LinkName::parse(&link.file_name().to_string_lossy()).is_some())
        .count()
}
