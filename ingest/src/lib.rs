//! The receiver of batches: bytes from collectors flow in, rows in ClickHouse flow out, each batch once.
//!
//! receive → authenticate → check → write. A batch is acknowledged when ClickHouse has confirmed all of it. Ingest
//! keeps nothing of its own, so that several may run behind one balancer; what they must agree on, they read from
//! ClickHouse.
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
mod health;
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
