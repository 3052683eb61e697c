//! Which places of a binary are probed: a binary goes in, its points and the programs for them come out.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use whence_abi::usdt::Argument;

use super::attach::Place;
use super::{FunctionTargets, ProbeError, notes};

/// The static probes that are used: probe, program, whether the binary must have it, arguments that it must have.
const STATIC_PROBES: [(&str, &str, bool, usize); 6] = [
    // Ends before beginnings, so that nothing is begun whose end is not seen.
    ("command__done", "command_done", true, 1),
    ("connection__done", "connection_done", false, 2),
    ("query__exec__start", "query_start", false, 3),
    ("query__start", "query_start", true, 3),
    ("connection__start", "connection_start", false, 3),
    ("command__start", "command_start", true, 4),
];

/// A place to probe.
#[derive(Clone, Debug)]
pub struct Point {
    /// Name of the function or static probe, for people.
    pub place: String,
    /// The BPF program for it.
    pub program: &'static str,
    /// File offset of the instruction.
    pub offset: u64,
    /// File offset of the static probe's counter of tracers; 0: none.
    pub semaphore: u64,
    pub at_return: bool,
    /// Arguments, for a static probe.
    pub arguments: Option<Vec<Argument>>,
}

impl Point {
    /// The point in `binary`, with what the program gets as its cookie.
    pub fn on<'a>(&self, binary: &'a Path, cookie: u64) -> Place<'a> {
        Place { binary, offset: self.offset, semaphore: self.semaphore, at_return: self.at_return, cookie }
    }
}

/// The points among the functions of `binary`, in the order in which they are to be attached.
pub fn of_functions(binary: &Path, targets: &FunctionTargets) -> io::Result<Vec<Point>> {
    let file = File::open(binary)?;
    let point = |place: &str, program, offset, at_return| Point {
        place: place.to_owned(),
        program,
        offset: behind_branch_target(&file, offset),
        semaphore: 0,
        at_return,
        arguments: None,
    };
    // Returns before entries, so that nothing is begun whose end is not seen.
    let mut points = vec![point("dispatch_command", "dispatch_return", targets.dispatch_command, true)];
    for &offset in &targets.stmt_execute {
        points.push(point("mysqld_stmt_execute", "execute_return", offset, true));
    }
    if let Some(offset) = targets.close_connection {
        points.push(point("close_connection", "close_entry", offset, false));
    }
    if let Some(offset) = targets.acl_authenticate {
        points.push(point("acl_authenticate", "login_return", offset, true));
        points.push(point("acl_authenticate", "login_entry", offset, false));
    }
    points.push(point("dispatch_command", "dispatch_entry", targets.dispatch_command, false));
    Ok(points)
}

/// The points of `binary` that are its static probes, in the order in which they are to be attached.
pub fn of_static_probes(binary: &Path) -> Result<Vec<Point>, ProbeError> {
    let locations = notes::locations(binary, "mysql")
        .map_err(|source| ProbeError::Notes { binary: binary.into(), source })?;
    let mut points = Vec::new();
    for (probe, program, needed, arguments) in STATIC_PROBES {
        let mut found = locations.iter().filter(|location| location.name == probe).peekable();
        if needed && found.peek().is_none() {
            return Err(ProbeError::NoProbe { binary: binary.into(), probe });
        }
        for location in found {
            let read = location
                .first_arguments(arguments)
                .map_err(|source| ProbeError::Arguments { probe: probe.to_owned(), source })?;
            if read.len() < arguments {
                return Err(ProbeError::TooFewArguments {
                    binary: binary.into(),
                    probe,
                    found: read.len(),
                    needed: arguments,
                });
            }
            points.push(Point {
                place: probe.to_owned(),
                program,
                offset: location.offset,
                semaphore: location.semaphore,
                at_return: false,
                arguments: Some(read),
            });
        }
    }
    Ok(points)
}

/// The offset behind an `endbr64`, which the kernel cannot emulate: a probe on it costs several times as much.
/// Nothing has been moved there yet, neither arguments nor the return address.
fn behind_branch_target(file: &File, offset: u64) -> u64 {
    const ENDBR64: [u8; 4] = [0xf3, 0x0f, 0x1e, 0xfa];
    let mut code = [0; 4];
    match file.read_exact_at(&mut code, offset) {
        Ok(()) if code == ENDBR64 => offset + 4,
        _ => offset,
    }
}
