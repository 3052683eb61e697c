//! Placeholder so that the crate builds while the helper `offsets` writes the real module: replace all of it.
//! `discover/plan.rs` uses `derive(&Path) -> Result<Derived, OffsetsError>`, `Derived::targets` and `Display` of the error.

use std::path::Path;

use crate::probe::FunctionTargets;

pub struct Derived {
    pub targets: FunctionTargets,
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct OffsetsError(String);

pub fn derive(_binary: &Path) -> Result<Derived, OffsetsError> {
    Err(OffsetsError("offsets cannot be derived yet".into()))
}
