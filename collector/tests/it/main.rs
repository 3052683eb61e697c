//! The collector against real database servers and the real kernel.

mod capture;
mod client;
mod offsets;
mod watched;
