//! The collector: finds database servers, records what is done in them, and ships it.

pub mod decode;
pub mod probe;
