//! Attaching a loaded BPF program to a place in a binary, by the kernel's perf interface.
//!
//! aya offers neither attach cookies with semaphores nor probes on every process of a binary, so this speaks to the
//! kernel itself: `perf_event_open` for the place, `BPF_LINK_CREATE` for the program and its cookie.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Where to attach, and with what.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The binary; `/proc/PID/exe` or `/proc/PID/root/…` for one in a container. The probe is on its inode: every
    /// process that runs it, now or later, is probed.
    pub binary: &'a Path,
    /// File offset of the instruction.
    pub offset: u64,
    /// File offset of the counter that the kernel raises while the probe is attached; 0: none.
    pub semaphore: u64,
    /// Whether the program runs when the function returns.
    pub at_return: bool,
    pub cookie: u64,
}

const BPF_OBJ_PIN: libc::c_long = 6;
const BPF_OBJ_GET: libc::c_long = 7;
pub(super) const BPF_LINK_CREATE: libc::c_long = 28;
pub(super) const BPF_PERF_EVENT: u32 = 41;
const PERF_FLAG_FD_CLOEXEC: libc::c_ulong = 8;

/// `struct perf_event_attr` up to `config2`; the kernel takes a shorter one by its `size`.
#[repr(C)]
#[derive(Default)]
struct PerfEventAttr {
    kind: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup_events: u32,
    bp_type: u32,
    config1: u64,
    config2: u64,
}

/// `PERF_ATTR_SIZE_VER1`: up to and with `config2`.
const PERF_ATTR_BYTES: u32 = 72;

const _: () = assert!(size_of::<PerfEventAttr>() == PERF_ATTR_BYTES as usize);

/// The part of `union bpf_attr` that `BPF_LINK_CREATE` for a perf event uses.
#[repr(C)]
#[derive(Default)]
pub(super) struct LinkCreate {
    pub program: u32,
    pub target: u32,
    pub attach_type: u32,
    pub flags: u32,
    pub cookie: u64,
    pub padding: [u64; 5],
}

/// The part of `union bpf_attr` that pinning uses.
#[repr(C)]
#[derive(Default)]
struct Pin {
    path: u64,
    object: u32,
    flags: u32,
}

/// Attaches `program`; it is detached when the answer is closed, unless it was pinned.
pub fn attach(program: BorrowedFd<'_>, place: &Place<'_>) -> io::Result<OwnedFd> {
    let event = open_event(place)?;
    let attr = LinkCreate {
        program: program.as_raw_fd().cast_unsigned(),
        target: event.as_raw_fd().cast_unsigned(),
        attach_type: BPF_PERF_EVENT,
        cookie: place.cookie,
        ..LinkCreate::default()
    };
    // The link holds the event: closing ours does not end it.
    bpf(BPF_LINK_CREATE, &attr).map(|fd| {
        // SAFETY: the kernel has just given us this descriptor.
        unsafe { OwnedFd::from_raw_fd(fd) }
    })
}

/// Gives `object` a name in the BPF file system, under which it outlives this process.
pub fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let name = CString::new(path.as_os_str().as_bytes())?;
    let attr = Pin { path: name.as_ptr() as u64, object: object.as_raw_fd().cast_unsigned(), flags: 0 };
    bpf(BPF_OBJ_PIN, &attr).map(drop)
}

/// Opens what is pinned at `path`.
pub fn open_pinned(path: &Path) -> io::Result<OwnedFd> {
    let name = CString::new(path.as_os_str().as_bytes())?;
    let attr = Pin { path: name.as_ptr() as u64, ..Pin::default() };
    // SAFETY: the kernel has just given us this descriptor.
    bpf(BPF_OBJ_GET, &attr).map(|fd| unsafe { OwnedFd::from_raw_fd(fd) })
}

fn open_event(place: &Place<'_>) -> io::Result<OwnedFd> {
    let kind = fs::read_to_string("/sys/bus/event_source/devices/uprobe/type")?;
    let kind = kind.trim().parse().map_err(|_| io::ErrorKind::InvalidData)?;
    let path = CString::new(place.binary.as_os_str().as_bytes())?;
    let attr = PerfEventAttr {
        kind,
        size: PERF_ATTR_BYTES,
        // Bit 0: at return. The upper half: the semaphore's offset.
        config: u64::from(place.at_return) | place.semaphore << 32,
        config1: path.as_ptr() as u64,
        config2: place.offset,
        ..PerfEventAttr::default()
    };
    let (every_process, first_cpu, no_group) = (-1_i32, 0_i32, -1_i32);
    // SAFETY: `attr` and the path it points to live until the call returns, and its size is what it says.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            &raw const attr,
            every_process,
            first_cpu,
            no_group,
            PERF_FLAG_FD_CLOEXEC,
        )
    };
    let fd = i32::try_from(fd).map_err(|_| io::ErrorKind::InvalidData)?;
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given us this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

pub(super) fn bpf<T>(command: libc::c_long, attr: &T) -> io::Result<i32> {
    // SAFETY: `attr` is the C layout that `command` takes, with its size; what it points to lives in the caller.
    let answer = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attr), size_of::<T>()) };
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    i32::try_from(answer).map_err(|_| io::ErrorKind::InvalidData.into())
}
