//! Coverage: in which spans each server was watched, and what became of every event seen in them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::event::text_enum;
use crate::{InstanceId, Provider, Server, Timestamp};

/// One span in the life of one server, as one collector saw it.
///
/// Spans of one instance do not overlap. A time that no span covers was not watched by anyone. Spans with the provider
/// [`Provider::Collector`] are of no server: they tell the collector's own life ([`crate::Life`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coverage {
    pub server: Server,
    pub state: CoverageState,
    /// Set when `state` is [`CoverageState::Watched`].
    pub provider: Option<Provider>,
    pub from: Timestamp,
    pub to: Timestamp,
    /// Events that happened in the kernel in this span: `seen = stored + filtered + lost`.
    pub seen: u64,
    pub stored: u64,
    /// Left out because a rule of the collector says so.
    pub filtered: u64,
    /// The same by the name of the rule; they sum up to `filtered`.
    pub filtered_by: BTreeMap<String, u64>,
    pub lost: BTreeMap<LossReason, u64>,
    /// For people: why the server could not be watched.
    pub detail: Option<String>,
}

impl Coverage {
    pub fn instance(&self) -> InstanceId {
        self.server.instance
    }

    /// Whether `seen = stored + filtered + lost`, and the rules' counts make `filtered`.
    pub fn adds_up(&self) -> bool {
        let sum = |counts: &mut dyn Iterator<Item = u64>| counts.map(u128::from).sum::<u128>();
        let parts = sum(&mut [self.stored, self.filtered].into_iter().chain(self.lost.values().copied()));
        let filtered = sum(&mut self.filtered_by.values().copied());
        parts == self.seen.into() && filtered == self.filtered.into()
    }

    pub fn address(&self) -> (Option<IpAddr>, Option<u16>) {
        (self.server.address, self.server.port)
    }
}

text_enum! {
    /// What a coverage span says of its server.
    CoverageState {
        /// Probes were attached from the first to the last moment.
        Watched = "watched",
        /// The collector looked, and the server was not running.
        NotRunning = "not_running",
        /// The server ran, and could not be watched; `detail` says why.
        Unattachable = "unattachable",
    }
}

text_enum! {
    /// Why events were lost.
    LossReason {
        /// The kernel's ring buffer had no room.
        RingFull = "ring_full",
        /// The kernel's table of commands under way had no room.
        TableFull = "table_full",
        /// Memory of the server could not be read at that moment.
        UnreadableMemory = "unreadable_memory",
        /// The spool gave up space before the batch could be shipped.
        SpoolFull = "spool_full",
        /// A spool segment was damaged.
        SpoolCorrupt = "spool_corrupt",
        /// The record could not be decoded.
        Undecodable = "undecodable",
        /// Ingest will never accept the batch; it is in quarantine on the host.
        Refused = "refused",
    }
}
