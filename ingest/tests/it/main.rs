//! Ingest against the real embedded ClickHouse, a database per test.

#![expect(clippy::unwrap_used, reason = "a test ends at its first surprise")]

mod crowd;
mod enroll;
mod external;
mod health;
mod hostile;
mod order;
mod run;
mod sender;
mod serve;
mod ship;
mod store;
mod tls;
