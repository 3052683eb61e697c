//! The collector: finds database servers, records what is done in them, and ships it.

pub mod account;
pub mod capture;
pub mod decode;
pub mod discover;
pub mod doctor;
pub mod enroll;
pub mod identity;
mod life;
pub mod metrics;
pub mod offsets;
mod pace;
pub mod policy;
pub mod privileges;
pub mod probe;
pub mod run;
pub mod seal;
pub mod settings;
pub mod ship;
pub mod spool;
pub mod status;
mod trial;
