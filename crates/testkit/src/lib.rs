//! What the tests of several crates need: real servers, a database per test.

pub mod clickhouse;

pub use clickhouse::{TestDatabase, clickhouse};
