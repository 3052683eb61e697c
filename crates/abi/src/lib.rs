//! What the BPF programs and the collector agree on: plain C-layout records, shared by both sides.
#![no_std]

pub mod filter;
pub mod layout;
pub mod record;
pub mod usdt;
