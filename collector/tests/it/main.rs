//! The collector against real database servers and the real kernel.

#![expect(clippy::unwrap_used, reason = "a test ends at its first surprise")]

mod capture;
mod discovery;
mod events;
mod offsets;
mod overlay;
mod servers;
mod spool;
mod thread_pool;
mod told;
mod trial;
mod watched;
