//! The pages and the API against the real embedded ClickHouse, a database per test.

#![expect(clippy::unwrap_used, reason = "a test ends at its first surprise")]

mod api;
mod audited;
mod collectors;
mod events;
mod exports;
mod harness;
mod history;
mod hostile;
mod report;
mod sign_in;
