//! The collector: finds database servers, records what is done in them, and ships it.

pub mod decode;
pub mod probe;
pub mod seal;
pub mod settings;
pub mod ship;
pub mod spool;
pub mod status;
