//! The floor: a binary goes in, and on each place of it that the collector probes comes an empty probe, which only counts
//! that it was hit. No recorder can cost less that is on the same places.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd};
use std::path::Path;

use whence_collector::offsets;
use whence_collector::probe::attach::attach;
use whence_collector::probe::points::{Point, of_functions, of_static_probes};

const BPF_MAP_CREATE: libc::c_long = 0;
const BPF_MAP_LOOKUP_ELEM: libc::c_long = 1;
const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_MAP_TYPE_PERCPU_ARRAY: u32 = 6;
const BPF_PROG_TYPE_KPROBE: u32 = 2;

/// The part of `union bpf_attr` that makes a map.
#[repr(C)]
#[derive(Default)]
struct MapCreate {
    kind: u32,
    key_bytes: u32,
    value_bytes: u32,
    entries: u32,
}

/// The part of `union bpf_attr` that reads a map.
#[repr(C)]
#[derive(Default)]
struct MapElement {
    map: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// The part of `union bpf_attr` that loads a program.
#[repr(C)]
#[derive(Default)]
struct ProgramLoad {
    kind: u32,
    instructions: u32,
    code: u64,
    licence: u64,
    log_level: u32,
    log_bytes: u32,
    log: u64,
}

/// `struct bpf_insn`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Instruction {
    code: u8,
    /// Target in the lower four bits, source in the upper.
    registers: u8,
    offset: i16,
    immediate: i32,
}

/// `count[0] += 1; return 0`, on this processor's own counter.
fn counting(map: i32) -> [Instruction; 12] {
    let one = |code, registers, offset, immediate| Instruction { code, registers, offset, immediate };
    [
        one(0x62, 0x0a, -4, 0), // *(u32 *)(r10 - 4) = 0
        one(0xbf, 0xa2, 0, 0),  // r2 = r10
        one(0x07, 0x02, 0, -4), // r2 += -4
        one(0x18, 0x11, 0, map),
        one(0, 0, 0, 0),       // r1 = map, in two instructions
        one(0x85, 0, 0, 1),    // r0 = bpf_map_lookup_elem(r1, r2)
        one(0x15, 0, 3, 0),    // if r0 == 0, go on behind the third
        one(0x79, 0x01, 0, 0), // r1 = *(u64 *)r0
        one(0x07, 0x01, 0, 1), // r1 += 1
        one(0x7b, 0x10, 0, 0), // *(u64 *)r0 = r1
        one(0xb7, 0, 0, 0),    // r0 = 0
        one(0x95, 0, 0, 0),    // return r0
    ]
}

/// Empty probes on one binary, until it is dropped.
pub struct Floor {
    counters: OwnedFd,
    _links: Vec<OwnedFd>,
}

impl Floor {
    /// Puts the probes on: on static probes where the binary has them, else on functions, as the collector does.
    pub fn attach(binary: &Path) -> anyhow::Result<Self> {
        let create = MapCreate { kind: BPF_MAP_TYPE_PERCPU_ARRAY, key_bytes: 4, value_bytes: 8, entries: 1 };
        let counters = opened(bpf(BPF_MAP_CREATE, &create)?);
        let code = counting(counters.as_raw_fd());
        let load = ProgramLoad {
            kind: BPF_PROG_TYPE_KPROBE,
            instructions: u32::try_from(code.len())?,
            code: code.as_ptr() as u64,
            licence: c"GPL".as_ptr() as u64,
            ..ProgramLoad::default()
        };
        let program = opened(bpf(BPF_PROG_LOAD, &load)?);
        let links: io::Result<_> =
            points(binary)?.iter().map(|point| attach(program.as_fd(), &point.on(binary, 0))).collect();
        Ok(Self { counters, _links: links? })
    }

    /// How often the probes were hit, all of them together.
    pub fn hits(&self) -> anyhow::Result<u64> {
        let key = 0_u32;
        let possible = std::fs::read_to_string("/sys/devices/system/cpu/possible")?;
        let last: usize = possible.trim().rsplit(['-', ',']).next().unwrap_or("0").parse()?;
        let mut values = vec![0_u64; last + 1];
        let element = MapElement {
            map: self.counters.as_raw_fd().cast_unsigned(),
            key: (&raw const key) as u64,
            value: values.as_mut_ptr() as u64,
            ..MapElement::default()
        };
        bpf(BPF_MAP_LOOKUP_ELEM, &element)?;
        Ok(values.iter().sum())
    }
}

/// What the collector would probe.
fn points(binary: &Path) -> anyhow::Result<Vec<Point>> {
    match of_static_probes(binary) {
        Ok(points) => Ok(points),
        Err(_) => Ok(of_functions(binary, &offsets::derive(binary, &offsets::Table::load(None)?)?.targets)?),
    }
}

fn opened(fd: i32) -> OwnedFd {
    // SAFETY: the kernel has just given us this descriptor.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn bpf<T>(command: libc::c_long, attr: &T) -> io::Result<i32> {
    // SAFETY: `attr` is the C layout that `command` takes, with its size; what it points to lives in the caller.
    let answer = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attr), size_of::<T>()) };
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    i32::try_from(answer).map_err(|_| io::ErrorKind::InvalidData.into())
}
