//! The store against the real embedded ClickHouse, a database per test.

mod crash;
mod events;
mod migrate;
mod read;
mod write;
