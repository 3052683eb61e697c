//! `whence doctor --learn BINARY`.

use std::path::Path;

use anyhow::Context as _;
use whence_collector::offsets::{Table, learn};

use crate::terminal::printable;

/// Prints the entry for `binary`, or adds it to the file `into`.
pub fn run(
    binary: &Path,
    debug_file: Option<&Path>,
    into: Option<&Path>,
    table: &Table,
) -> anyhow::Result<()> {
    let name = printable(&binary.display().to_string());
    let learnt = learn(binary, debug_file, table);
    let (entry, derived) = learnt.with_context(|| format!("nothing can be learnt from {name}"))?;
    let absent = derived.absent();
    let without =
        if absent.is_empty() { String::new() } else { format!("; it does not tell: {}", absent.join(", ")) };
    eprintln!("learnt {} from the {} of {name}{without}", entry.key, derived.source);
    match into {
        None => print!("{}", entry.text()?),
        Some(path) if entry.add_to(path)? => eprintln!("added to {}", path.display()),
        Some(path) => eprintln!("{} has it already", path.display()),
    }
    Ok(())
}
