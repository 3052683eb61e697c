//! The life of a record: begun when a thread takes up a command, kept in the thread's entry, submitted at the end.

use aya_ebpf::{
    bindings::{BPF_NOEXIST, BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP},
    helpers::{
        bpf_get_current_pid_tgid,
        generated::{
            bpf_ktime_get_boot_ns, bpf_probe_read_user as read_raw,
            bpf_probe_read_user_str as read_string_raw,
        },
    },
};
use whence_abi::{
    layout::ready::{ON, is_leaving},
    record::{INLINE_SQL_BYTES, Overflow, Record, TAIL_BYTES, Thread, bit, kind, outcome, phase, string},
};

use crate::{
    filter,
    maps::{EMPTY_THREAD, RING, THREADS, count, count_of, sql_bytes},
    owner, read,
};

/// Bits and strings of the principal: what is the same for all commands of a connection.
const PRINCIPAL: u32 = bit::of(string::PRIV_USER)
    | bit::of(string::LOGIN_USER)
    | bit::of(string::HOST)
    | bit::of(string::IP)
    | bit::of(string::HOST_OR_IP)
    | bit::PEER_PORT;

#[inline(always)]
pub fn now_ns() -> u64 {
    // SAFETY: takes nothing, and always works.
    unsafe { bpf_ktime_get_boot_ns() }
}

/// The entry of the current thread, where it has one.
#[inline(always)]
pub fn current() -> Option<&'static mut Thread> {
    entry(bpf_get_current_pid_tgid())
}

#[inline(always)]
fn entry(id: u64) -> Option<&'static mut Thread> {
    // SAFETY: only this thread touches its entry, and it is in one probe at a time.
    THREADS.get_ptr_mut(id).map(|thread| unsafe { &mut *thread })
}

/// What begins.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Beginning {
    Login,
    Command,
    /// The end of a connection.
    End,
}

/// The entry of the current thread for `what` begins there, made when it is the first time. None when the attachment in
/// `slot` does not record it, and when the table is full: that is counted as a loss.
#[inline(always)]
pub fn beginning(slot: u32, what: Beginning) -> Option<&'static mut Thread> {
    let ready = owner::ready(slot);
    // One that is half attached would begin what it does not see the end of, and keep it from one that does.
    if ready == 0 {
        return None;
    }
    let number = ready | ON;
    let id = bpf_get_current_pid_tgid();
    let known = entry(id);
    // What has begun something for this attachment before needs no look at whose the process is.
    if known.as_ref().is_some_and(|thread| thread.owner == number) {
        return known;
    }
    if is_leaving(ready) {
        // Where a connection of its own has ended, the other one may just have told so and forgotten the thread.
        if known.is_some() || what == Beginning::End {
            return None;
        }
    } else if !owner::owns(slot) || known.as_ref().is_some_and(|thread| has_just_begun(thread, slot, what)) {
        return None;
    }
    let mut thread = known;
    if thread.is_none() {
        if let Some(empty) = EMPTY_THREAD.get(0) {
            let _ = THREADS.insert(id, empty, u64::from(BPF_NOEXIST));
        }
        thread = entry(id);
    }
    let Some(thread) = thread else {
        count(|counters| {
            counters.seen += 1;
            counters.table_full += 1;
        });
        return None;
    };
    thread.owner = number;
    thread.record.tgid = (id >> 32) as u32;
    thread.record.tid = id as u32;
    Some(thread)
}

/// Whether an attachment that leaves has begun the same, for which its probe has fired before that of `slot`.
#[inline(always)]
fn has_just_begun(thread: &Thread, slot: u32, what: Beginning) -> bool {
    let begun = match what {
        Beginning::Login => matches!(thread.record.kind, kind::CONNECT | kind::CONNECT_FAILED),
        Beginning::Command => thread.phase == phase::COMMAND,
        Beginning::End => thread.record.kind == kind::DISCONNECT,
    };
    begun && thread.record.target != slot && is_leaving(owner::ready(thread.record.target))
}

/// The entry of the current thread, whose command ends. None when the attachment in `slot` does not record this process,
/// and when the beginning was not seen: that is counted.
#[inline(always)]
pub fn ending(slot: u32) -> Option<&'static mut Thread> {
    let thread = current();
    let is_begun = thread.as_ref().is_some_and(|thread| thread.phase == phase::COMMAND);
    let is_own = thread.as_ref().is_none_or(|thread| thread.record.target == slot);
    // What was begun for an attachment that has gone since ends here.
    if !(is_begun && is_own) && owner::is_of_another(slot) {
        return None;
    }
    if is_begun {
        return thread;
    }
    // Not where another one that leaves has just ended it.
    if is_own {
        count(|counters| counters.unmatched += 1);
    }
    None
}

/// Forgets the current thread: its connection has ended. While the attachment in `slot` leaves the entry stays, for the one
/// that takes over to see that it was told.
#[inline(always)]
pub fn forget(slot: u32) {
    if !is_leaving(owner::ready(slot)) {
        let _ = THREADS.remove(bpf_get_current_pid_tgid());
    }
}

/// Begins a record, keeping the principal that is in the entry.
#[inline(always)]
pub fn begin(thread: &mut Thread, of_kind: u32, provider: u32, target: u32) {
    let record = &mut thread.record;
    record.kind = of_kind;
    record.provider = provider;
    record.target = target;
    record.present &= PRINCIPAL;
    record.cut &= PRINCIPAL;
    record.outcome = outcome::UNKNOWN;
    record.start_ns = now_ns();
    record.sql_bytes = 0;
    record.tail_bytes = thread.principal_bytes;
}

/// Drops the principal, to read another.
#[inline(always)]
pub fn clear_principal(thread: &mut Thread) {
    thread.thd = 0;
    thread.principal_connection = 0;
    thread.principal_bytes = 0;
    thread.record.present &= !PRINCIPAL;
    thread.record.cut &= !PRINCIPAL;
    thread.record.tail_bytes = 0;
}

/// Sets how long it took, until now.
#[inline(always)]
pub fn set_duration(thread: &mut Thread) {
    thread.record.duration_ns = now_ns().saturating_sub(thread.record.start_ns);
    thread.record.present |= bit::DURATION;
}

/// A command that this thread began and did not end goes out as it is.
#[inline(always)]
pub fn submit_unfinished(thread: &mut Thread) {
    if thread.phase == phase::COMMAND {
        thread.record.outcome = outcome::UNFINISHED;
        submit(thread);
    }
}

/// Sends the record, unless a rule leaves it out.
#[inline(always)]
pub fn submit(thread: &mut Thread) {
    thread.phase = phase::IDLE;
    if filter::drops(thread) {
        return;
    }
    let mut bytes = u64::from(thread.record.tail_bytes);
    if bytes > TAIL_BYTES as u64 {
        bytes = TAIL_BYTES as u64;
    }
    bytes += size_of::<Record>() as u64;
    let flags = wake_flags();
    // SAFETY: the tail follows the record in the entry, and `bytes` ends within it.
    let failed = unsafe {
        aya_ebpf::helpers::generated::bpf_ringbuf_output(
            (&raw const RING).cast_mut().cast(),
            (&raw mut thread.record).cast(),
            bytes,
            flags,
        )
    };
    count_of(thread.record.tgid, |counters| {
        counters.seen += 1;
        if failed == 0 {
            counters.submitted += 1;
        } else {
            counters.ring_full += 1;
        }
    });
}

/// An idle reader is woken by the first record, a busy one comes by itself every few ms: a wake-up costs more than a
/// record. (What it has read stays in the ring until it is on disk, so that much waiting does not mean that it is idle.)
#[inline(always)]
fn wake_flags() -> u64 {
    if RING.query(u64::from(BPF_RB_AVAIL_DATA)) == 0 {
        u64::from(BPF_RB_FORCE_WAKEUP)
    } else {
        u64::from(BPF_RB_NO_WAKEUP)
    }
}

/// Keeps SQL of known length. What is too long for the record goes out at once, before the server reuses the memory.
#[inline(always)]
pub fn sql_counted(thread: &mut Thread, address: u64, length: u64) {
    thread.record.sql_bytes = length;
    let most = sql_bytes();
    if length <= most || most > INLINE_SQL_BYTES {
        read::counted::<{ string::SQL }>(thread, address, length);
    } else {
        read::counted::<{ string::SQL }>(thread, address, most);
        thread.record.cut |= bit::of(string::SQL);
    }
    let wanted = if length > most { most } else { length };
    if wanted <= INLINE_SQL_BYTES || address == 0 {
        return;
    }
    let sent = if wanted <= 4096 {
        overflow::<4096>(thread, address, wanted)
    } else if wanted <= 16384 {
        overflow::<16384>(thread, address, wanted)
    } else {
        overflow::<65536>(thread, address, wanted)
    };
    if sent {
        thread.record.present |= bit::OVERFLOW;
    } else {
        count(|counters| counters.sql_cut += 1);
    }
}

/// Keeps SQL that ends with a NUL.
#[inline(always)]
pub fn sql_terminated(thread: &mut Thread, address: u64) {
    let Some(length) = read::terminated::<{ string::SQL }>(thread, address) else {
        return;
    };
    if thread.record.cut & bit::of(string::SQL) == 0 {
        thread.record.sql_bytes = length;
        return;
    }
    if sql_bytes() <= INLINE_SQL_BYTES {
        return;
    }
    let mut sent = overflow_terminated::<8192>(thread, address, false);
    if sent == 0 {
        sent = overflow_terminated::<LONGEST>(thread, address, true);
    }
    if sent == 0 {
        return count(|counters| counters.sql_cut += 1);
    }
    thread.record.present |= bit::OVERFLOW;
    // The kernel has not looked behind what it kept: text that fills the room may go on.
    if sent < LONGEST as u64 {
        thread.record.sql_bytes = sent - 1;
    }
}

/// Longest SQL that ends with a NUL, with the NUL.
const LONGEST: usize = 65536;
const OVERFLOW_BYTES: usize = size_of::<Overflow>();

/// One overflow in the ring, with room for `N` bytes of text.
#[repr(C)]
struct Room<const N: usize> {
    head: Overflow,
    text: [u8; N],
}

#[inline(always)]
fn reserve<const N: usize>(thread: &Thread) -> Option<*mut Room<N>> {
    // SAFETY: a map and a constant size; the kernel answers null when there is no room.
    let room = unsafe {
        aya_ebpf::helpers::generated::bpf_ringbuf_reserve(
            (&raw const RING).cast_mut().cast(),
            (OVERFLOW_BYTES + N) as u64,
            0,
        )
    }
    .cast::<Room<N>>();
    if room.is_null() {
        return None;
    }
    // SAFETY: the room is this large, aligned to 8, and ours until it is submitted.
    unsafe {
        (*room).head.kind = kind::OVERFLOW;
        (*room).head.tgid = thread.record.tgid;
        (*room).head.tid = thread.record.tid;
        (*room).head.start_ns = thread.record.start_ns;
    }
    Some(room)
}

#[inline(always)]
fn finish<const N: usize>(room: *mut Room<N>, length: Option<u64>) -> bool {
    // SAFETY: `room` was reserved and is given back here, once.
    unsafe {
        match length {
            Some(length) => {
                (*room).head.length = length as u32;
                aya_ebpf::helpers::generated::bpf_ringbuf_submit(room.cast(), wake_flags());
                true
            }
            None => {
                aya_ebpf::helpers::generated::bpf_ringbuf_discard(room.cast(), u64::from(BPF_RB_NO_WAKEUP));
                false
            }
        }
    }
}

#[inline(always)]
fn overflow<const N: usize>(thread: &Thread, address: u64, wanted: u64) -> bool {
    let Some(room) = reserve::<N>(thread) else {
        return false;
    };
    let length = if wanted > N as u64 { N as u64 } else { wanted };
    // SAFETY: `length` is at most the room's, and the helper checks the address.
    let failed = unsafe { read_raw((&raw mut (*room).text).cast(), length as u32, address as *const _) };
    finish(room, (failed == 0).then_some(length))
}

/// The same for text that ends with a NUL; text that does not fit is sent only when this is the `last` size. The answer is
/// the bytes that were sent, with the NUL; 0: none.
#[inline(always)]
fn overflow_terminated<const N: usize>(thread: &Thread, address: u64, last: bool) -> u64 {
    let Some(room) = reserve::<N>(thread) else {
        return 0;
    };
    // SAFETY: the size is the room's, and the helper checks the address.
    let got = unsafe { read_string_raw((&raw mut (*room).text).cast(), N as u32, address as *const _) };
    let fits = got >= 1 && (got < N as i64 || last);
    if finish(room, fits.then_some(got as u64 - 1)) { got as u64 } else { 0 }
}
