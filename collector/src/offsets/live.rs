//! What only a running server knows.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::image::with_image;

/// The version that process `pid` reports, such as `10.11.19-MariaDB-0+deb12u1`: read from its memory, where its program
/// exports the variable. None where it does not, or the process is gone.
pub fn running_version(pid: u32) -> Option<String> {
    let program = format!("/proc/{pid}/exe");
    let (symbol, first) = with_image(Path::new(&program), |image| {
        Ok((image.symbol("server_version"), image.first_address()))
            .map(|(symbol, first)| (symbol.map(|symbol| symbol.address), first))
    })
    .ok()?;
    let address = symbol?.wrapping_sub(first).wrapping_add(loaded_at(pid)?);
    let mut bytes = [0; 64];
    File::open(format!("/proc/{pid}/mem")).ok()?.read_exact_at(&mut bytes, address).ok()?;
    let end = bytes.iter().position(|&byte| byte == 0)?;
    let text = std::str::from_utf8(&bytes[..end]).ok()?;
    let is_version = text.starts_with(|first: char| first.is_ascii_digit())
        && text.bytes().all(|byte| byte.is_ascii_graphic());
    is_version.then(|| text.to_owned())
}

/// Where the beginning of the process's program is in its memory.
fn loaded_at(pid: u32) -> Option<u64> {
    let program = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    let program = program.to_str()?;
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).ok()?;
    // 56000-57000 r--p 00000000 fe:01 1234   /usr/sbin/mariadbd
    let of_start = maps.lines().find(|line| {
        let mut words = line.split_ascii_whitespace();
        words.nth(2) == Some("00000000") && line.ends_with(program)
    })?;
    u64::from_str_radix(of_start.split_once('-')?.0, 16).ok()
}
