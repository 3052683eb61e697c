//! Prints what is read from server binaries: `cargo run --example offsets -- /usr/sbin/mariadbd`.

use std::path::Path;
use std::time::Instant;

fn main() -> Result<(), whence_collector::offsets::TableError> {
    let table = whence_collector::offsets::Table::load(None)?;
    for binary in std::env::args().skip(1) {
        let started = Instant::now();
        let derived = whence_collector::offsets::derive(Path::new(&binary), &table);
        let taken = started.elapsed().as_millis();
        match derived {
            Ok(derived) => println!("{binary}: {taken} ms, absent: {:?}\n{derived:#x?}", derived.absent()),
            Err(error) => println!("{binary}: {taken} ms: {error}"),
        }
    }
    Ok(())
}
