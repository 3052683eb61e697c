//! The truth test: a mixed load on a real server, recorded by Whence, by the server's own logs and by the client that
//! sent it; the records are compared command by command.
//!
//! [`load`] sends and keeps a journal, [`record`] reads what each side wrote, [`compare`] holds Whence's events against
//! them, [`truth`] runs it all for one server and says what came of it.
//!
//! What it costs: [`floor`] is the least that probes can cost a server, [`pipeline`] is the way into ClickHouse.

pub mod align;
pub mod compare;
pub mod entry;
pub mod floor;
pub mod load;
pub mod pipeline;
pub mod record;
pub mod truth;
