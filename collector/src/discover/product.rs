//! Product and version of a running server, from its own memory: nothing is executed to learn them.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use object::{Object as _, ObjectSymbol as _, ReadCache};

use super::process::{ProcessId, program_name};

/// The variable that holds what `SELECT VERSION()` says, in MySQL and MariaDB.
const VERSION_SYMBOL: &str = "server_version";
/// More than any version has.
const VERSION_BYTES: usize = 100;

/// `MySQL`, `MariaDB` or the name of the program; the version where it can be had.
pub fn of(id: ProcessId) -> (String, Option<String>) {
    let version = version(id);
    let name = program_name(id);
    let is_maria =
        version.as_deref().is_some_and(|version| version.contains("MariaDB")) || name.starts_with("mariadb");
    let product = match () {
        () if is_maria => "MariaDB".to_owned(),
        () if name.starts_with("mysqld") => "MySQL".to_owned(),
        () => name,
    };
    (product, version)
}

fn version(id: ProcessId) -> Option<String> {
    let cache = ReadCache::new(File::open(id.executable()).ok()?);
    let file = object::File::parse(&cache).ok()?;
    // Exported, so the short table is enough; a server that was not linked for plugins has it in the long one.
    let symbol = file
        .dynamic_symbols()
        .chain(file.symbols())
        .find(|symbol| symbol.is_definition() && symbol.name() == Ok(VERSION_SYMBOL))?;
    let base = if matches!(file.kind(), object::ObjectKind::Executable) { 0 } else { load_address(id)? };
    let mut bytes = [0; VERSION_BYTES];
    let memory = File::open(format!("/proc/{}/mem", id.tgid)).ok()?;
    let read = memory.read_at(&mut bytes, base.checked_add(symbol.address())?).ok()?;
    let text = bytes.get(..read)?.split(|&byte| byte == 0).next()?;
    // Debian's MariaDB 11.8 says `11.8.9-MariaDB-0+deb13u1 from Debian`.
    let is_text = |byte: &u8| byte.is_ascii_graphic() || *byte == b' ';
    let is_version = text.first()?.is_ascii_digit() && text.iter().all(is_text);
    is_version.then(|| String::from_utf8_lossy(text).into_owned())
}

/// Where a position-independent program begins: the first mapping of its file.
fn load_address(id: ProcessId) -> Option<u64> {
    let maps = std::fs::read_to_string(format!("/proc/{}/maps", id.tgid)).ok()?;
    let path = std::fs::read_link(id.executable()).ok()?;
    let first = maps.lines().find(|line| line.ends_with(path.to_string_lossy().as_ref()))?;
    u64::from_str_radix(first.split('-').next()?, 16).ok()
}
