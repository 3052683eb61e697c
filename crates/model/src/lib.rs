//! The audit event, defined once: what one client did to one database server.
//!
//! Everything upstream (kernel records, the wire) is turned into these types, and everything downstream
//! (hashes, ClickHouse rows, pages, exports) is made from them. A field that a source cannot give is `None`,
//! never a made-up value.

mod coverage;
mod event;
mod flaws;
mod id;
mod life;
mod text;
mod time;

pub use coverage::{Coverage, CoverageState, LossReason};
pub use event::{
    Command, Event, EventKind, Gap, Outcome, Principal, Provider, Server, Session, Statement, StatementClass,
    Transport,
};
pub use flaws::Flaws;
pub use id::{BatchId, CollectorId, EventId, InstanceId, InvalidId, Sequence};
pub use life::{Began, ClockQuality, Life};
pub use text::{Text, escape_invalid_utf8};
pub use time::Timestamp;
