//! The maps shared with the kernel, and which of their places are in use.

use std::borrow::BorrowMut;
use std::collections::BTreeSet;
use std::mem::offset_of;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use aya::maps::{Array, HashMap, Map, MapData, MapError, PerCpuHashMap};
use aya::{Ebpf, Pod};
use whence_abi::layout::{Layout, ready};
use whence_abi::record::{Counters, Plain, Record, TAIL_BYTES, Thread, outcome, phase};
use whence_abi::usdt::Spec;

use super::ProbeError;
use super::pins::Used;

const LAYOUT_SLOTS: u32 = 256;
const SPEC_SLOTS: u32 = 4096;

pub type Bytes<const N: usize> = [u8; N];
const LAYOUT: usize = size_of::<Layout>();
const SPEC: usize = size_of::<Spec>();
const THREAD: usize = size_of::<Thread>();
const COUNTERS: usize = size_of::<Counters>();

pub struct Tables {
    layouts: Array<MapData, Bytes<LAYOUT>>,
    specs: Array<MapData, Bytes<SPEC>>,
    threads: HashMap<MapData, u64, Bytes<THREAD>>,
    counters: PerCpuHashMap<MapData, u32, Bytes<COUNTERS>>,
    /// The slot that records each process.
    owners: HashMap<MapData, u32, u32>,
    free_layouts: BTreeSet<u32>,
    free_specs: BTreeSet<u32>,
}

/// The tables, whatever happened to another who held them: each change leaves them whole.
pub fn lock(tables: &Mutex<Tables>) -> MutexGuard<'_, Tables> {
    tables.lock().unwrap_or_else(PoisonError::into_inner)
}

pub fn map_error(map: &'static str) -> impl Fn(MapError) -> ProbeError {
    move |source| ProbeError::Map { map, source }
}

/// The bytes of a plain value as an array, which is what aya takes.
pub fn bytes<T: Plain, const N: usize>(value: &T) -> Bytes<N> {
    const { assert!(size_of::<T>() == N) };
    let mut bytes = [0; N];
    bytes.copy_from_slice(value.as_bytes());
    bytes
}

impl Tables {
    /// Takes the maps out of `bpf`; `used` places belong to pinned probes.
    pub fn take(bpf: &mut Ebpf, used: &Used) -> Result<Self, ProbeError> {
        let mut map = |name: &'static str| bpf.take_map(name).ok_or(ProbeError::Incomplete(name));
        let (layouts, specs, threads, counters, owners) =
            (map("LAYOUTS")?, map("SPECS")?, map("THREADS")?, map("COUNTERS")?, map("OWNERS")?);
        let mut tables = Self {
            layouts: typed("LAYOUTS", layouts)?,
            specs: typed("SPECS", specs)?,
            threads: typed("THREADS", threads)?,
            counters: typed("COUNTERS", counters)?,
            owners: typed("OWNERS", owners)?,
            free_layouts: (0..LAYOUT_SLOTS).filter(|slot| !used.layouts.contains(slot)).collect(),
            free_specs: (0..SPEC_SLOTS).filter(|slot| !used.specs.contains(slot)).collect(),
        };
        // For the processes that find no room of their own.
        tables.begin_counters(0)?;
        tables.disown(|_, slot| !used.layouts.contains(&slot))?;
        // A collector may have been killed while it took probes off.
        let unused: Vec<u32> = tables.free_layouts.iter().copied().collect();
        unused.into_iter().try_for_each(|slot| tables.set_ready(slot, |_| 0))?;
        Ok(tables)
    }

    fn begin_counters(&mut self, tgid: u32) -> Result<(), ProbeError> {
        let flags = 1; // BPF_NOEXIST: what is counted already stays.
        let cpus = aya::util::nr_cpus()
            .map_err(|(_, error)| ProbeError::Pin { path: PathBuf::new(), source: error })?;
        let zero = aya::maps::PerCpuValues::try_from(vec![[0; COUNTERS]; cpus])
            .map_err(|source| ProbeError::Pin { path: PathBuf::new(), source })?;
        match self.counters.insert(tgid, zero, flags) {
            Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::EEXIST) => {
                Ok(())
            }
            other => other.map_err(map_error("COUNTERS")),
        }
    }

    /// Writes the layout to a free slot.
    pub fn add_layout(&mut self, layout: &Layout) -> Result<u32, ProbeError> {
        let slot = self.free_layouts.pop_first().ok_or(ProbeError::TooMany)?;
        self.layouts.set(slot, bytes(layout), 0).map_err(map_error("LAYOUTS"))?;
        Ok(slot)
    }

    pub fn add_spec(&mut self, spec: &Spec) -> Result<u32, ProbeError> {
        let slot = self.free_specs.pop_first().ok_or(ProbeError::TooMany)?;
        self.specs.set(slot, bytes(spec), 0).map_err(map_error("SPECS"))?;
        Ok(slot)
    }

    /// Lets the attachment in `slot` record processes: all its probes are on.
    pub fn begin_owning(&mut self, slot: u32) -> Result<(), ProbeError> {
        // One that no attachment had before, and which is not 0 without the bit.
        let number = rand::random::<u32>() << 2 | 2;
        self.set_ready(slot, |_| number | ready::ON)
    }

    /// Takes its processes from the attachment in `slot`, before its probes go: another on the same file may have them.
    pub fn end_owning(&mut self, slot: u32) -> Result<(), ProbeError> {
        self.set_ready(slot, |ready| ready & !ready::ON)?;
        self.disown(|_, owner| owner == slot)
    }

    fn set_ready(&mut self, slot: u32, change: impl Fn(u32) -> u32) -> Result<(), ProbeError> {
        const AT: usize = offset_of!(Layout, ready);
        let mut layout = self.layouts.get(&slot, 0).map_err(map_error("LAYOUTS"))?;
        let (_, rest) = layout.split_at_mut(AT);
        if let Some(ready) = rest.first_chunk_mut() {
            *ready = change(u32::from_ne_bytes(*ready)).to_ne_bytes();
        }
        self.layouts.set(slot, layout, 0).map_err(map_error("LAYOUTS"))
    }

    /// Takes each process, with its slot, that `unwanted` says from its owner.
    fn disown(&mut self, unwanted: impl Fn(u32, u32) -> bool) -> Result<(), ProbeError> {
        let owned = self.owners.iter().filter_map(Result::ok);
        let processes: Vec<u32> =
            owned.filter(|&(tgid, slot)| unwanted(tgid, slot)).map(|(tgid, _)| tgid).collect();
        for tgid in processes {
            remove(&mut self.owners, tgid, "OWNERS")?;
        }
        Ok(())
    }

    /// Gives slots back, whose probes are detached.
    pub fn free(&mut self, layout: u32, specs: &[u32]) -> Result<(), ProbeError> {
        self.set_ready(layout, |_| 0)?;
        self.free_layouts.insert(layout);
        self.free_specs.extend(specs);
        Ok(())
    }

    pub fn counters(&self, tgid: u32) -> Result<Counters, ProbeError> {
        let per_cpu = match self.counters.get(&tgid, 0) {
            Ok(values) => values,
            Err(MapError::KeyNotFound) => return Ok(Counters::default()),
            Err(error) => return Err(map_error("COUNTERS")(error)),
        };
        let each =
            per_cpu.iter().filter_map(|bytes| Counters::split_from(bytes)).map(|(counters, _)| counters);
        Ok(each.fold(Counters::default(), |sum, one| Counters {
            seen: sum.seen + one.seen,
            submitted: sum.submitted + one.submitted,
            filtered: sum.filtered + one.filtered,
            ring_full: sum.ring_full + one.ring_full,
            table_full: sum.table_full + one.table_full,
            fields_unreadable: sum.fields_unreadable + one.fields_unreadable,
            sql_cut: sum.sql_cut + one.sql_cut,
            unmatched: sum.unmatched + one.unmatched,
        }))
    }

    /// The records that process `tgid` did not finish.
    pub fn unfinished(&self, tgid: u32) -> Vec<Vec<u8>> {
        let threads = self.threads.keys().filter_map(Result::ok).filter(|key| key >> 32 == u64::from(tgid));
        let entries = threads.filter_map(|key| self.threads.get(&key, 0).ok());
        entries.filter_map(|bytes| unfinished_record(&bytes)).collect()
    }

    /// Removes all that is kept of process `tgid`.
    pub fn forget_process(&mut self, tgid: u32) -> Result<(), ProbeError> {
        let keys: Vec<u64> =
            self.threads.keys().filter_map(Result::ok).filter(|key| key >> 32 == u64::from(tgid)).collect();
        for key in keys {
            remove(&mut self.threads, key, "THREADS")?;
        }
        remove(&mut self.owners, tgid, "OWNERS")?;
        match self.counters.remove(&tgid) {
            Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
            Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::ENOENT) => {
                Ok(())
            }
            Err(error) => Err(map_error("COUNTERS")(error)),
        }
    }

    /// The processes of which there is something here.
    pub fn processes(&self) -> BTreeSet<u32> {
        let threads =
            self.threads.keys().filter_map(Result::ok).map(|key| u32::try_from(key >> 32).unwrap_or(0));
        let mut known: BTreeSet<u32> = threads.chain(self.counters.keys().filter_map(Result::ok)).collect();
        // Those without a room of their own.
        known.remove(&0);
        known
    }

    /// The slot that records process `tgid`.
    pub fn owner(&self, tgid: u32) -> Option<u32> {
        self.owners.get(&tgid, 0).ok()
    }

    /// Removes the entries of threads that are no more, and the owners of processes that are, whose numbers may be given
    /// to others; the answer is how many threads. Not of one that ended in the middle of a command: its process is ending, and
    /// [`Self::unfinished`] will tell of it.
    pub fn forget_ended_threads(&mut self) -> Result<usize, ProbeError> {
        let ended = |key: &u64| {
            let (tgid, tid) = (key >> 32, key & 0xffff_ffff);
            // A process that has ended is forgotten as a whole, by `forget_process`.
            std::fs::exists(format!("/proc/{tgid}")).unwrap_or(false)
                && !std::fs::exists(format!("/proc/{tgid}/task/{tid}")).unwrap_or(true)
        };
        let is_idle =
            |key: &u64| self.threads.get(key, 0).is_ok_and(|bytes| unfinished_record(&bytes).is_none());
        let keys: Vec<u64> =
            self.threads.keys().filter_map(Result::ok).filter(ended).filter(is_idle).collect();
        for &key in &keys {
            remove(&mut self.threads, key, "THREADS")?;
        }
        self.disown(|tgid, _| !std::fs::exists(format!("/proc/{tgid}")).unwrap_or(true))?;
        Ok(keys.len())
    }
}

/// The map as the type that `T` is.
pub fn typed<T: TryFrom<Map, Error = MapError>>(name: &'static str, map: Map) -> Result<T, ProbeError> {
    T::try_from(map).map_err(map_error(name))
}

/// Removes `key`; that it is gone already is as good.
pub fn remove<T: BorrowMut<MapData>, K: Pod, V: Pod>(
    map: &mut HashMap<T, K, V>,
    key: K,
    name: &'static str,
) -> Result<(), ProbeError> {
    match map.remove(&key) {
        Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        Err(error) => Err(map_error(name)(error)),
    }
}

/// The record that a thread was filling, as the ring would have had it.
fn unfinished_record(bytes: &[u8]) -> Option<Vec<u8>> {
    let (thread, _) = Thread::split_from(bytes)?;
    if thread.phase != phase::COMMAND {
        return None;
    }
    let record = Record { outcome: outcome::UNFINISHED, ..thread.record };
    let tail = &thread.tail[..TAIL_BYTES.min(record.tail_bytes as usize)];
    Some([record.as_bytes(), tail].concat())
}
