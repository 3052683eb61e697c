//! Reading the server's memory: numbers, pointers, and strings into a record's tail.

use aya_ebpf::helpers::{
    bpf_probe_read_user,
    generated::{bpf_probe_read_user as read_raw, bpf_probe_read_user_str as read_string_raw},
};
use whence_abi::{
    layout::{ABSENT, StringField},
    record::{Span, TAIL_BYTES, Thread, bit, string},
};

use crate::maps::count_unreadable;

/// The value at `offset` of the object at `base`; None when there is no such field or it cannot be read.
#[inline(always)]
pub fn field<T>(base: u64, offset: u32) -> Option<T> {
    if offset == ABSENT || base == 0 {
        return None;
    }
    // SAFETY: the helper checks the address, whatever it is.
    match unsafe { bpf_probe_read_user::<T>((base + u64::from(offset)) as *const T) } {
        Ok(value) => Some(value),
        Err(_) => {
            count_unreadable();
            None
        }
    }
}

/// Two neighbouring numbers: the one at `offset`, and the one behind it.
#[inline(always)]
pub fn pair(base: u64, offset: u32) -> Option<(u64, u64)> {
    field::<[u64; 2]>(base, offset).map(|[first, second]| (first, second))
}

/// Reads the string field of the object at `base` into the tail.
#[inline(always)]
pub fn string_field<const STRING: usize>(thread: &mut Thread, base: u64, place: StringField) {
    if place.offset == ABSENT || base == 0 {
        return;
    }
    let address = if place.form == StringField::INLINE {
        base + u64::from(place.offset)
    } else {
        match field::<u64>(base, place.offset) {
            Some(address) => address,
            None => return,
        }
    };
    terminated::<STRING>(thread, address);
}

/// Appends the NUL-terminated string at `address` to the tail. A null pointer is no string.
///
/// The answer is the bytes kept, or None when there is none.
#[inline(always)]
pub fn terminated<const STRING: usize>(thread: &mut Thread, address: u64) -> Option<u64> {
    if address == 0 {
        return None;
    }
    let limit = const { string::LIMITS[STRING] };
    let offset = u64::from(thread.record.tail_bytes);
    if offset > TAIL_BYTES as u64 - limit {
        return None;
    }
    // SAFETY: `offset + limit` is within the tail, and the helper checks the address.
    let got = unsafe {
        read_string_raw(
            thread.tail.as_mut_ptr().add(offset as usize).cast(),
            limit as u32,
            address as *const _,
        )
    };
    if got < 1 || got > limit as i64 {
        count_unreadable();
        return None;
    }
    let length = got as u64 - 1;
    if got == limit as i64 {
        thread.record.cut |= bit::of(STRING);
    }
    keep::<STRING>(thread, offset, length);
    Some(length)
}

/// Appends `length` bytes at `address` to the tail, at most the string's limit.
#[inline(always)]
pub fn counted<const STRING: usize>(thread: &mut Thread, address: u64, length: u64) {
    let limit = const { string::LIMITS[STRING] };
    let offset = u64::from(thread.record.tail_bytes);
    if address == 0 || offset > TAIL_BYTES as u64 - limit {
        return;
    }
    let kept = if length > limit { limit } else { length };
    // SAFETY: `offset + kept` is within the tail, and the helper checks the address.
    let failed = unsafe {
        read_raw(thread.tail.as_mut_ptr().add(offset as usize).cast(), kept as u32, address as *const _)
    };
    if failed != 0 {
        return count_unreadable();
    }
    if length > limit {
        thread.record.cut |= bit::of(STRING);
    }
    keep::<STRING>(thread, offset, kept);
}

#[inline(always)]
fn keep<const STRING: usize>(thread: &mut Thread, offset: u64, length: u64) {
    thread.record.strings[STRING] = Span { offset: offset as u16, length: length as u16 };
    thread.record.present |= bit::of(STRING);
    thread.record.tail_bytes = (offset + length) as u32;
}
