//! What strangers' bytes are read by, each as a target for a fuzzer: bytes go in, and nothing must come out but an end.
//!
//! `cargo xtask fuzz TARGET` runs one with libFuzzer, guided by coverage. The tests change the seeds at random a few
//! thousand times.

pub mod seeds;

mod batch;
mod notes;
mod record;
mod sql;

/// One reader of strangers' bytes.
pub struct Target {
    pub name: &'static str,
    /// Panics where the reader does, or where what it gives is not what it promises.
    pub run: fn(&[u8]),
    /// Inputs to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All targets.
pub const TARGETS: [Target; 5] = [
    Target { name: "notes", run: notes::binary, seeds: seeds::binaries },
    Target { name: "arguments", run: notes::arguments, seeds: seeds::arguments },
    Target { name: "sql", run: sql::analyze, seeds: seeds::statements },
    Target { name: "record", run: record::decode, seeds: seeds::records },
    Target { name: "batch", run: batch::decode, seeds: seeds::batches },
];
