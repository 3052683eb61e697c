//! Static probes on the real kernel: a program that carries those of a MySQL built with DTrace performs a script, and the
//! records that come out are compared with what it did.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test ends at its first surprise")]

mod account;
mod churn;
mod coexistence;
mod collector;
mod events;
mod filter;
mod notes;
mod operands;
mod overlay;
mod pins;
mod server;
mod silent;
mod watch;
