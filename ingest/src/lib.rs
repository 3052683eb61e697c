//! The receiver of batches: bytes from collectors flow in, rows in ClickHouse flow out, each batch once.
//!
//! receive → authenticate → check → write. A batch is acknowledged when ClickHouse has confirmed all of it. Ingest
//! keeps nothing of its own, so that several may run at once; what they must agree on, they read from ClickHouse. Whoever gets a
//! collector's batch takes the collector over from the others, which takes half a second: a balancer in front of them should
//! keep a collector with one of them while that one answers.
//!
//! Nothing may be lost on the way: a batch is refused for good only when it cannot be what its collector signed, or
//! cannot be stored. What is merely odd (a clock that is ahead, counts that do not add up) is stored as it was
//! signed, counted and logged.

mod authenticate;
mod batches;
mod check;
mod config;
mod enroll;
mod external;
mod group;
mod health;
mod lane;
mod metrics;
mod receive;
mod refusal;
mod router;
mod serve;
mod tls;
mod write;

pub use config::IngestConfig;
pub use external::{Sources, SourcesError};
pub use router::router;
pub use serve::serve;
pub use tls::{TlsError, TlsFiles};
