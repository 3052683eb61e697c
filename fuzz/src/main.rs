//! libFuzzer around the target that `WHENCE_FUZZ_TARGET` names; see `cargo xtask fuzz`.
#![no_main]

use std::path::Path;
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use whence_fuzz::{TARGETS, Target};

static TARGET: OnceLock<&Target> = OnceLock::new();

fuzz_target!(
    init: {
        // Before libFuzzer reads the directory.
        let named = std::env::var("WHENCE_FUZZ_TARGET").unwrap_or_default();
        let target = TARGETS.iter().find(|target| target.name == named);
        let target = target.unwrap_or_else(|| panic!("WHENCE_FUZZ_TARGET names no target: {named:?}"));
        if let Ok(directory) = std::env::var("WHENCE_FUZZ_SEED_DIRECTORY") {
            for (number, seed) in (target.seeds)().iter().enumerate() {
                let path = Path::new(&directory).join(format!("seed-{number}"));
                std::fs::write(&path, seed).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            }
        }
        TARGET.get_or_init(|| target);
    },
    |bytes: &[u8]| {
        if let Some(target) = TARGET.get() {
            (target.run)(bytes);
        }
    }
);
