//! What stands in the way of watching this host's servers: the host, `/proc` and a collector's files go in, a
//! [`Report`] for people comes out. It changes nothing and waits for nobody: a collector that runs is not disturbed.

mod collector;
mod host;
mod servers;

use std::path::PathBuf;

use serde::Serialize;

use crate::offsets::Table;
pub use collector::Collector;
pub use servers::{Offset, Server};

/// How something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    Good,
    /// Worth knowing; in nobody's way.
    Note,
    /// Something cannot be watched.
    Bad,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    pub state: State,
    pub subject: &'static str,
    pub detail: String,
}

impl Check {
    fn new(state: State, subject: &'static str, detail: impl Into<String>) -> Self {
        Self { state, subject, detail: detail.into() }
    }
}

/// Where a collector on this host keeps its things.
#[derive(Clone, Debug)]
pub struct Places {
    pub status_file: PathBuf,
    pub spool_dir: PathBuf,
    pub pin_dir: PathBuf,
}

/// Everything that was found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub host: Vec<Check>,
    pub servers: Vec<Server>,
    pub collector: Collector,
}

impl Report {
    /// Looks at this host.
    pub fn make(table: &Table, places: &Places) -> Self {
        let collector = Collector::look(places);
        let servers = servers::look(table, places, collector.status.as_ref());
        Self { host: host::look(&places.pin_dir), servers, collector }
    }

    /// Whether everything here can be watched.
    pub fn is_well(&self) -> bool {
        let mut checks = self.host.iter().chain(&self.collector.checks);
        checks.all(|check| check.state != State::Bad) && self.servers.iter().all(Server::is_well)
    }
}
