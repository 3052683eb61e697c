//! Which attachment records a process: the first that sees it begin something.
//!
//! Containers of one image run one file through mounts of their own. To the collector these are several binaries and it
//! attaches to each, to the kernel they are one inode: every probe of each attachment fires for the processes of all.
//!
//! One that is being taken off **leaves**: its processes are anyone's, and its threads go over to the new owner one by one.
//! The probes of both fire where a thread begins a command, in an order that nobody knows, and anything may change between
//! the two. So that exactly one of them begins it, whoever comes first does: the one that leaves goes on with the threads
//! that are still its own, and with new ones, as long as its probe is there; the new owner takes a thread over where it
//! finds that the other has not just begun the same.

use aya_ebpf::{bindings::BPF_NOEXIST, helpers::bpf_get_current_pid_tgid};
use whence_abi::layout::ready::ON;

use crate::maps::{LAYOUTS, OWNERS};

/// How the attachment in `slot` stands.
#[inline(always)]
pub fn ready(slot: u32) -> u32 {
    LAYOUTS.get(slot).map_or(0, |layout| layout.ready)
}

/// Whether the attachment in `slot`, all of whose probes are on, records the current process.
#[inline(always)]
pub fn owns(slot: u32) -> bool {
    if let Some(owner) = current() {
        return owner == slot;
    }
    let taken = OWNERS.insert(tgid(), slot, u64::from(BPF_NOEXIST)).is_ok();
    // What it has was taken from it perhaps, just before it took this.
    if ready(slot) & ON == 0 {
        if taken && current() == Some(slot) {
            let _ = OWNERS.remove(tgid());
        }
        return false;
    }
    // Another CPU may have been first. Without room for it the process belongs to all.
    current().is_none_or(|owner| owner == slot)
}

/// Whether the current process is recorded by another attachment than the one in `slot`.
#[inline(always)]
pub fn is_of_another(slot: u32) -> bool {
    current().is_some_and(|owner| owner != slot)
}

/// The owner of the current process.
#[inline(always)]
fn current() -> Option<u32> {
    // SAFETY: the map holds aligned numbers, which are written whole.
    OWNERS.get_ptr(tgid()).map(|slot| unsafe { slot.read_volatile() })
}

#[inline(always)]
fn tgid() -> u32 {
    (bpf_get_current_pid_tgid() >> 32) as u32
}
