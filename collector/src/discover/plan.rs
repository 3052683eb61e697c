//! How the servers that run one program can be watched.

use crate::offsets::{self, Derived, Table};
use crate::probe::notes;

use super::process::{ProcessId, program_name};

/// The provider of the static probes, and those of them without which nothing can be told.
const PROVIDER: &str = "mysql";
const NEEDED: [&str; 3] = ["command__start", "command__done", "query__start"];

/// How a server is watched.
#[derive(Clone, Debug)]
pub enum Plan {
    /// By its own static probes.
    StaticProbes,
    /// By its functions.
    Functions(Box<Derived>),
    /// Not at all, and why.
    Refused(String),
}

impl Plan {
    /// The plan for the program of process `id`, with what `table` knows; None when it is no server.
    pub fn of(id: ProcessId, table: &Table) -> Option<Self> {
        let path = id.executable();
        let locations = notes::locations(&path, PROVIDER);
        let has_probes = locations.as_ref().is_ok_and(|locations| !locations.is_empty());
        if !has_probes && !is_server_name(id) {
            return None;
        }
        if let Ok(locations) = &locations
            && NEEDED.iter().all(|name| locations.iter().any(|location| location.name == *name))
        {
            return Some(Self::StaticProbes);
        }
        Some(match offsets::derive(&path, table) {
            Ok(derived) => Self::Functions(Box::new(derived)),
            Err(error) => Self::Refused(error.to_string()),
        })
    }
}

/// Whether the program is called like a server.
pub fn is_server_name(id: ProcessId) -> bool {
    let name = program_name(id);
    ["mysqld", "mariadbd"].iter().any(|server| {
        // `mysqld-debug` is a server; `mysqld_safe` and `mysqld_exporter` are not.
        name.strip_prefix(server).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    })
}
