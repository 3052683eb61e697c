//! The collector: finds database servers, records what is done in them, and ships it.

pub mod probe;
