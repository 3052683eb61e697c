//! The store against the real embedded ClickHouse, a database per test.

#![expect(clippy::unwrap_used, reason = "a test ends at its first surprise")]

mod claim;
mod crash;
mod events;
mod heads;
mod migrate;
mod people;
mod read;
mod retention;
mod tamper;
mod verify;
mod verify_unproven;
mod write;
