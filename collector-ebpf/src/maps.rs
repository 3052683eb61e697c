//! The maps, and the counters kept in them.

use aya_ebpf::{
    helpers::bpf_get_current_pid_tgid,
    macros::map,
    maps::{Array, HashMap, LruHashMap, PerCpuHashMap, RingBuf},
};
use whence_abi::{
    filter::{self, Active, Connection, Filtered, Known, Profile, Rule},
    layout::Layout,
    record::{Counters, MAX_SQL_BYTES, Thread},
    usdt::Spec,
};

/// All records. Its size is set at load.
#[map]
pub static RING: RingBuf = RingBuf::with_byte_size(16 << 20, 0);

/// What each server thread is doing, by `tgid << 32 | tid`. An entry stays from command to command.
#[map]
pub static THREADS: HashMap<u64, Thread> = HashMap::with_max_entries(4096, 0);

/// One zeroed value, to begin an entry of [`THREADS`] with: it is too large for the stack.
#[map]
pub static EMPTY_THREAD: Array<Thread> = Array::with_max_entries(1, 0);

/// Offsets of each attached server binary, by attachment slot.
#[map]
pub static LAYOUTS: Array<Layout> = Array::with_max_entries(256, 0);

/// Arguments of each attached static probe location.
#[map]
pub static SPECS: Array<Spec> = Array::with_max_entries(4096, 0);

/// Counters by process; those of processes that found no room are under 0.
#[map]
pub static COUNTERS: PerCpuHashMap<u32, Counters> = PerCpuHashMap::with_max_entries(1024, 0);

/// The attachment slot that records each process; no process is recorded by two.
#[map]
pub static OWNERS: HashMap<u32, u32> = HashMap::with_max_entries(1024, 0);

/// Which of the rules' profiles holds.
#[map]
pub static ACTIVE: Array<Active> = Array::with_max_entries(1, 0);

/// Rules by number; 0 is none.
#[map]
pub static RULES: Array<Rule> = Array::with_max_entries(1 + 2 * filter::RULES, 0);

/// What becomes of each command.
#[map]
pub static PROFILES: Array<Profile> = Array::with_max_entries(2 * filter::PROFILES, 0);

/// What is known of connections.
#[map]
pub static CONNECTIONS: LruHashMap<Connection, Known> = LruHashMap::with_max_entries(16384, 0);

/// Events that were left out, by process and rule.
#[map]
pub static FILTERED: PerCpuHashMap<Filtered, u64> = PerCpuHashMap::with_max_entries(4096, 0);

/// Longest SQL to keep; set at load.
#[unsafe(no_mangle)]
static SQL_BYTES: u64 = MAX_SQL_BYTES;

#[inline(always)]
pub fn sql_bytes() -> u64 {
    // SAFETY: a valid static; volatile, because the loader changes its value.
    unsafe { core::ptr::read_volatile(&raw const SQL_BYTES) }
}

/// Changes the counters of the current process on this CPU.
#[inline(always)]
pub fn count(change: impl Fn(&mut Counters)) {
    count_of((bpf_get_current_pid_tgid() >> 32) as u32, change);
}

/// Changes the counters of process `tgid`, the current one, on this CPU.
#[inline(always)]
pub fn count_of(tgid: u32, change: impl Fn(&mut Counters)) {
    if let Some(counters) = COUNTERS.get_ptr_mut(tgid) {
        // SAFETY: the kernel's map holds a value for this CPU alone, and programs on one CPU do not interleave here.
        return change(unsafe { &mut *counters });
    }
    let none = Counters {
        seen: 0,
        submitted: 0,
        filtered: 0,
        ring_full: 0,
        table_full: 0,
        fields_unreadable: 0,
        sql_cut: 0,
        unmatched: 0,
    };
    // Another CPU may have been first; either way the look-up below tells.
    let _ = COUNTERS.insert(tgid, none, u64::from(aya_ebpf::bindings::BPF_NOEXIST));
    let mine = COUNTERS.get_ptr_mut(tgid);
    let any = if mine.is_some() { mine } else { COUNTERS.get_ptr_mut(0) };
    if let Some(counters) = any {
        // SAFETY: as above.
        change(unsafe { &mut *counters });
    }
}

/// Counts a field that cannot be read. A function of its own: what is hardly ever run only takes room in the processor's
/// cache of instructions, which the server has to fill again.
#[cold]
#[inline(never)]
pub fn count_unreadable() {
    count(|counters| counters.fields_unreadable += 1);
}
