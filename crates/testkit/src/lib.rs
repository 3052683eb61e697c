//! What the tests of several crates need: real servers, a database per test.

mod bucket;
pub mod clickhouse;
pub mod client;
mod container;
pub mod database;
mod npm;
pub mod product;
pub mod sample;
pub mod sender;

pub use bucket::MockS3;
pub use clickhouse::{TestDatabase, clickhouse};
pub use client::{Address, Client};
pub use database::{DatabaseServer, MariaDb, MySql56, Via};
pub use product::Product;
pub use sender::{Sender, SignedBatch};
