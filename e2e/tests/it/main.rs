//! Whence as a whole: real database servers, the real kernel, the real ClickHouse, a real browser.

#![expect(clippy::unwrap_used, reason = "a test ends at its first surprise")]

mod commands;
mod database;
mod filters;
mod packets;
mod page;
mod static_probes;
mod survival;
mod unprivileged;
