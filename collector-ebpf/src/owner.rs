//! Which attachment records a process: the first that sees it begin something.
//!
//! Containers of one image run one file through mounts of their own. To the collector these are several binaries and it
//! attaches to each, to the kernel they are one inode: every probe of each attachment fires for the processes of all.

use aya_ebpf::{bindings::BPF_NOEXIST, helpers::bpf_get_current_pid_tgid};

use crate::maps::{LAYOUTS, OWNERS};

/// The number of the attachment in `slot`, 0 unless all its probes are on.
#[inline(always)]
pub fn ready(slot: u32) -> u32 {
    LAYOUTS.get(slot).map_or(0, |layout| layout.ready)
}

/// Whether the attachment in `slot`, which is so `ready`, records what begins now in the current process.
#[inline(always)]
pub fn owns(slot: u32, ready: u32) -> bool {
    if let Some(owner) = current() {
        return owner == slot;
    }
    // One that is half attached would begin what it does not see the end of, and keep it from one that does.
    if ready == 0 {
        return false;
    }
    let _ = OWNERS.insert(tgid(), slot, u64::from(BPF_NOEXIST));
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
