//! What people and programs see of the audit: pages, an API, reports and exports over the questions of
//! `whence-store`.
//!
//! In flows a request; it gets an id, its sender is made known ([`visitor`]), what is asked is read from the URL
//! ([`query`]), a handler asks the store, the read is written to the audit of the audit, and only then a page, JSON
//! or a stream flows out. Everything audited is a stranger's text and is treated so. No state is kept here, but for what
//! the collectors told in the last seconds.

mod audit;
mod collectors;
mod config;
mod export;
mod handlers;
mod keys;
mod layers;
mod metrics;
mod openapi;
mod page;
pub mod people;
mod problem;
mod query;
mod refusals;
mod routes;
mod serve;
mod state;
mod statement;
mod text;
mod visitor;

pub use config::WebConfig;
pub use routes::router;
pub use serve::serve;
