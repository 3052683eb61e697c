//! What this kernel lacks: each feature that capturing stands on is tried, and what does not work comes out in plain words.
//!
//! Versions are told to people and never asked: distributors add features to old kernels, and switch them off in new ones.

use std::fmt;
use std::fs;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd};
use std::path::Path;

use aya::maps::MapType;
use aya::programs::ProgramType;
use aya::sys::{BpfHelper, is_helper_supported, is_map_supported};

use super::attach::{BPF_LINK_CREATE, BPF_PERF_EVENT, LinkCreate, Place, attach, bpf};

/// A feature that capturing needs and this kernel does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lack {
    /// What it is, and what it is called in kernel sources.
    pub feature: &'static str,
    /// What would be right.
    pub remedy: &'static str,
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.feature, self.remedy)
    }
}

/// A kernel that capturing is not possible on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfit {
    /// As `uname -r` says it.
    pub release: String,
    pub lacks: Vec<Lack>,
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lacks: Vec<String> = self.lacks.iter().map(Lack::to_string).collect();
        write!(
            f,
            "Linux {} cannot be captured on, it lacks: {}. Linux 5.15 and newer have all of it as distributors build them",
            self.release,
            lacks.join("; ")
        )
    }
}

const UPROBE_UNIT: &str = "/sys/bus/event_source/devices/uprobe/type";
const SEMAPHORE_FORMAT: &str = "/sys/bus/event_source/devices/uprobe/format/ref_ctr_offset";

/// A way to find out whether a feature is there; None when only root is told.
type Try = fn() -> Option<bool>;

const FEATURES: [(Try, Lack); 9] = [
    (
        has_bpf,
        Lack {
            feature: "BPF programs (the system call bpf)",
            remedy: "the kernel must be built with CONFIG_BPF_SYSCALL",
        },
    ),
    (
        has_ring_buffer,
        Lack {
            feature: "the ring buffer that events come through (BPF_MAP_TYPE_RINGBUF)",
            remedy: "Linux 5.8 brought it",
        },
    ),
    (
        has_cookies,
        Lack {
            feature: "cookies that tell a BPF program which probe was hit (bpf_get_attach_cookie)",
            remedy: "Linux 5.15 brought them",
        },
    ),
    (
        has_perf_links,
        Lack {
            feature: "probes that outlive the collector (BPF_LINK_CREATE on perf events)",
            remedy: "Linux 5.15 brought them",
        },
    ),
    (
        may_read_server_memory,
        Lack {
            feature: "reading a server's memory from BPF programs (bpf_probe_read_user)",
            remedy: "Linux 5.5 brought it",
        },
    ),
    (
        may_read_registers,
        Lack {
            feature: "reading registers from BPF programs (bpf_probe_read_kernel)",
            remedy: "Linux 5.5 brought it; a kernel locked down for confidentiality forbids it: \
                     start it with lockdown=integrity or none",
        },
    ),
    (
        || Some(Path::new(UPROBE_UNIT).exists()),
        Lack {
            feature: "probes in programs (the uprobe performance unit)",
            remedy: "the kernel must be built with CONFIG_UPROBE_EVENTS and /sys be mounted",
        },
    ),
    (
        || Some(Path::new(SEMAPHORE_FORMAT).exists()),
        Lack {
            feature: "semaphores of static probes (ref_ctr_offset of uprobes)",
            remedy: "Linux 4.20 brought them",
        },
    ),
    (
        has_bpf_files,
        Lack {
            feature: "the file system that probes are pinned in (bpf)",
            remedy: "the kernel must be built with CONFIG_BPF_SYSCALL and /proc be mounted",
        },
    ),
];

/// Tries each feature. What only root may find out is not called lacking without root.
pub fn missing() -> Vec<Lack> {
    FEATURES.iter().filter(|(has, _)| has() == Some(false)).map(|&(_, lack)| lack).collect()
}

/// This kernel with what it lacks, or nothing when it can be captured on.
pub fn check() -> Result<(), Unfit> {
    let lacks = missing();
    if lacks.is_empty() {
        return Ok(());
    }
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    Err(Unfit { release: release.trim().to_owned(), lacks })
}

fn has_bpf() -> Option<bool> {
    // No such command: a kernel with the call says so, or that one may not ask.
    let refused = bpf(-1, &[0_u64; 4]).err()?;
    Some(refused.raw_os_error() != Some(libc::ENOSYS))
}

fn has_ring_buffer() -> Option<bool> {
    is_map_supported(MapType::RingBuf).ok()
}

fn has_cookies() -> Option<bool> {
    has_helper(BpfHelper::BPF_FUNC_get_attach_cookie)
}

fn may_read_server_memory() -> Option<bool> {
    has_helper(BpfHelper::BPF_FUNC_probe_read_user)
}

fn may_read_registers() -> Option<bool> {
    has_helper(BpfHelper::BPF_FUNC_probe_read_kernel)
}

fn has_helper(helper: BpfHelper) -> Option<bool> {
    is_helper_supported(ProgramType::KProbe, helper).ok()
}

/// A kernel with such links finds no perf event under a descriptor that there is not; another knows no such link.
fn has_perf_links() -> Option<bool> {
    let program = smallest_program().ok()?;
    let attr = LinkCreate {
        program: program.as_raw_fd().cast_unsigned(),
        target: u32::MAX,
        attach_type: BPF_PERF_EVENT,
        ..LinkCreate::default()
    };
    let refused = bpf(BPF_LINK_CREATE, &attr).err()?;
    Some(refused.raw_os_error() == Some(libc::EBADF))
}

fn has_bpf_files() -> Option<bool> {
    let known = fs::read_to_string("/proc/filesystems").ok()?;
    Some(known.lines().any(|line| line.split_whitespace().last() == Some("bpf")))
}

/// Puts a probe on a function of this program and takes it off again: whether this process may.
pub fn try_probe() -> io::Result<()> {
    #[inline(never)]
    extern "C" fn landing() {
        std::hint::black_box(());
    }
    let address = landing as *const () as u64;
    let maps = fs::read_to_string("/proc/self/maps")?;
    // `55d0c000-55d1c000 r-xp 00004000 fe:01 1234 /usr/bin/whence`
    let offset = maps.lines().find_map(|line| {
        let mut fields = line.split_whitespace();
        let (start, end) = fields.next()?.split_once('-')?;
        let [start, end, offset] =
            [start, end, fields.nth(1)?].map(|field| u64::from_str_radix(field, 16).ok());
        (start?..end?).contains(&address).then_some(address - start? + offset?)
    });
    let place = Place {
        binary: Path::new("/proc/self/exe"),
        offset: offset.ok_or(io::ErrorKind::NotFound)?,
        semaphore: 0,
        at_return: false,
        cookie: 0,
    };
    attach(smallest_program()?.as_fd(), &place).map(drop)
}

/// The part of `union bpf_attr` that loading a program uses.
#[repr(C)]
struct ProgramLoad {
    kind: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    rest: [u64; 15],
}

/// A program for probes that returns 0.
fn smallest_program() -> io::Result<OwnedFd> {
    const BPF_PROG_LOAD: libc::c_long = 5;
    const KPROBE: u32 = 2;
    // r0 = 0; exit
    let instructions: [[u8; 8]; 2] = [[0xb7, 0, 0, 0, 0, 0, 0, 0], [0x95, 0, 0, 0, 0, 0, 0, 0]];
    let attr = ProgramLoad {
        kind: KPROBE,
        instruction_count: 2,
        instructions: instructions.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        rest: [0; 15],
    };
    let fd = bpf(BPF_PROG_LOAD, &attr)?;
    // SAFETY: the kernel has just given us this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lacking_is_told_with_the_kernel_and_what_would_be_right() {
        let lacks = [FEATURES[1].1, FEATURES[2].1].to_vec();
        let told = Unfit { release: "5.4.0-test".into(), lacks }.to_string();
        assert_eq!(
            told,
            "Linux 5.4.0-test cannot be captured on, it lacks: the ring buffer that events come through \
             (BPF_MAP_TYPE_RINGBUF) (Linux 5.8 brought it); cookies that tell a BPF program which probe was hit \
             (bpf_get_attach_cookie) (Linux 5.15 brought them). Linux 5.15 and newer have all of it as distributors \
             build them"
        );
    }

    #[test]
    fn a_kernel_that_the_tests_run_on_lacks_nothing() {
        assert_eq!(missing(), []);
        if nix::unistd::geteuid().is_root() {
            for (has, lack) in FEATURES {
                assert_eq!(has(), Some(true), "{lack}");
            }
        }
    }
}
