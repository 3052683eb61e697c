//! Makes an entry of the table of offsets: a binary that tells goes in, what its stripped copies need comes out.

use std::path::Path;

use super::image::{give_back_memory, with_debug_file};
use super::table::{Entry, Fields};
use super::{Derived, OffsetsError, Table, addresses, by_itself};

/// What `binary` tells, with the debug information in `debug_file` or where that of installed programs lies.
///
/// Of `table` only the names of entry points are used: what it says of single builds proves nothing.
pub fn learn(
    binary: &Path,
    debug_file: Option<&Path>,
    table: &Table,
) -> Result<(Entry, Derived), OffsetsError> {
    let learnt = with_debug_file(binary, debug_file, |image| {
        if image.has_compressed_debug_information() {
            return Err(OffsetsError::Compressed);
        }
        let derived = by_itself(image, table)?;
        let (_, functions) = addresses(image, table)?;
        let entry = Entry {
            key: image.key().ok_or(OffsetsError::NoKey)?,
            product: derived.product,
            version: derived.version.clone(),
            learnt_from: derived.source.to_string(),
            functions,
            layout: Fields(derived.targets.layout),
        };
        Ok((entry, derived))
    });
    give_back_memory();
    learnt
}
