//! What proves something of the audit outside of ClickHouse: exports with a signed manifest, and the daily heads of
//! the collectors' chains. Facts come in, documents and files go out; and the other way round to be verified.

pub mod export;
pub mod heads;
mod signed;

pub use signed::{SignedError, read_signed, sign};
