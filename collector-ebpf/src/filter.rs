//! What the collector's rules leave out, where the kernel can tell: see [`whence_abi::filter`].

use core::hint::black_box;

use aya_ebpf::{
    bindings::{BPF_ANY, BPF_NOEXIST},
    helpers::generated::bpf_get_prandom_u32,
};
use whence_abi::{
    filter::{Connection, Filtered, Known, Profile, becomes},
    record::{Record, Thread, bit, kind, string},
};

use crate::maps::{ACTIVE, CONNECTIONS, FILTERED, PROFILES, RULES, count_of};

/// Whether a rule leaves the thread's record out, which is counted then. Of a rule that keeps one of so many, the one is
/// marked.
#[inline(always)]
pub fn drops(thread: &mut Thread) -> bool {
    let record = &mut thread.record;
    record.sampled_one_in = 0;
    if record.kind == kind::CHANGE_USER {
        let known = Known { generation: 0, profile: Known::CHANGED };
        let _ = CONNECTIONS.insert(connection(record), known, u64::from(BPF_ANY));
        return false;
    }
    let Some(active) = ACTIVE.get(0) else {
        return false;
    };
    if active.on == 0
        || record.kind != kind::COMMAND
        || record.present & bit::COMMAND == 0
        || record.command > 0xff
    {
        return false;
    }
    let has_sql = record.present & (bit::of(string::SQL) | bit::OVERFLOW) != 0;
    let place = Profile::place(record.command, has_sql);
    let mut becoming = look(active.profile, place);
    if becoming == becomes::ASKED {
        becoming = match known(record, active.generation) {
            Some(profile) => look(profile, place),
            None => becomes::SENT,
        };
    }
    if becoming == becomes::SENT || becoming == becomes::ASKED {
        return false;
    }
    let Some(rule) = RULES.get(u32::from(becoming)) else {
        return false;
    };
    // SAFETY: takes nothing, and always works.
    if rule.one_in != 0 && unsafe { bpf_get_prandom_u32() } % rule.one_in == 0 {
        record.sampled_one_in = rule.one_in;
        return false;
    }
    left_out(Filtered { rule: rule.name, tgid: record.tgid })
}

#[inline(always)]
fn look(profile: u32, place: usize) -> u8 {
    match PROFILES.get(profile) {
        // The compiler leaves the limit out where it knows it; the verifier before 6.3 does not know it behind an `or`.
        Some(profile) => profile.places[black_box(place) & (Profile::PLACES - 1)],
        None => becomes::SENT,
    }
}

#[inline(always)]
fn connection(record: &Record) -> Connection {
    Connection { id: record.connection_id, tgid: record.tgid, reserved: 0 }
}

/// The profile of the record's connection, where the collector has given it one of this generation.
#[inline(always)]
fn known(record: &Record, generation: u32) -> Option<u32> {
    if record.present & bit::CONNECTION_ID == 0 {
        return None;
    }
    // SAFETY: the map holds pairs of aligned numbers. One that is replaced meanwhile is of another generation, or `CHANGED`.
    let known = unsafe { CONNECTIONS.get_ptr(connection(record))?.read_volatile() };
    (known.generation == generation).then_some(known.profile)
}

/// Counts what is left out; without a place for the count it is not left out.
#[inline(always)]
fn left_out(key: Filtered) -> bool {
    let mut place = FILTERED.get_ptr_mut(key);
    if place.is_none() {
        // Another CPU may have been first.
        let _ = FILTERED.insert(key, 0, u64::from(BPF_NOEXIST));
        place = FILTERED.get_ptr_mut(key);
    }
    let Some(events) = place else {
        return false;
    };
    // SAFETY: the kernel's map holds a number for this CPU alone, and programs on one CPU do not interleave here.
    unsafe { *events += 1 };
    count_of(key.tgid, |counters| {
        counters.seen += 1;
        counters.filtered += 1;
    });
    true
}
