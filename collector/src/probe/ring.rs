//! Reading the kernel's ring buffer without giving up what is not yet safe.
//!
//! The kernel may reuse a record's memory once the consumer position is beyond it. So reading and consuming are apart:
//! [`Ring::next`] goes on from record to record, and [`Ring::commit`] moves the consumer position when the records
//! up to there are on disk. A collector that is killed in between reads them again.
//!
//! Layout (`kernel/bpf/ringbuf.c`): one page with the consumer position, one with the producer position, then the data,
//! whose beginning is mapped again behind its end so that no record is broken. A record is a head of eight bytes (length with a busy and a
//! discard bit, page offset) and the data, padded to eight.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use aya::maps::MapData;
use whence_abi::record::MAX_SQL_BYTES;

const BUSY: u32 = 1 << 31;
const DISCARD: u32 = 1 << 30;
const HEAD_BYTES: u64 = 8;
/// Longer than any record: the longest SQL text with its heads. Whole pages.
const LONGEST_RECORD: u32 = 128 << 10;
const _: () = assert!(LONGEST_RECORD as u64 > MAX_SQL_BYTES + 4096);
/// How long a reader that has records to commit waits for more: the kernel does not wake it then. Each time that it looks
/// takes a processor from somebody, who finds its caches filled with something else.
const BUSY_WAIT: Duration = Duration::from_millis(20);

/// The ring cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RingError {
    #[error("the ring buffer cannot be mapped: {0}")]
    Unmappable(io::Error),
    #[error("cannot wait for the ring buffer: {0}")]
    Unwaitable(io::Error),
}

/// A reader of the ring. There must be one only.
pub struct Ring {
    map: MapData,
    identity: String,
    consumer: Mapping,
    producer: Mapping,
    page_bytes: usize,
    data_bytes: u64,
    /// Position up to which records were given out.
    read: u64,
}

/// One record of the ring.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    pub bytes: &'a [u8],
    /// Position behind it, for [`Ring::commit`].
    pub end: u64,
}

impl Ring {
    /// Maps the ring, to be read from its consumer position.
    pub fn open(map: MapData) -> Result<Self, RingError> {
        // SAFETY: asks for a number.
        let page_bytes = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096);
        let info = map.info().map_err(|error| RingError::Unmappable(io::Error::other(error)))?;
        let data_bytes = info.max_entries();
        // Mapped twice as a whole it would count twice as this process's memory.
        let beginning = LONGEST_RECORD.min(data_bytes);
        let data = usize::try_from(data_bytes).unwrap_or(0) + usize::try_from(beginning).unwrap_or(0);
        let fd = map.fd().as_fd();
        let consumer = Mapping::new(fd, page_bytes, libc::PROT_READ | libc::PROT_WRITE, 0)?;
        let producer = Mapping::new(fd, page_bytes + data, libc::PROT_READ, page_bytes)?;
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").map_err(RingError::Unmappable)?;
        let mut ring = Self {
            identity: format!("{}:{}", boot.trim(), info.id()),
            consumer,
            producer,
            page_bytes,
            data_bytes: u64::from(data_bytes),
            read: 0,
            map,
        };
        ring.read = ring.consumed();
        Ok(ring)
    }

    /// What positions belong to: another boot's ring, or another ring, has another identity.
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// Bytes that the ring holds.
    pub fn capacity_bytes(&self) -> u64 {
        self.data_bytes
    }

    /// Goes on behind `position`, when that is ahead and was reached: the records before it are on disk already.
    pub fn skip_to(&mut self, position: u64) {
        if position > self.read && position <= self.produced() {
            self.read = position;
            self.commit(position);
        }
    }

    /// The next record; None when there is none yet. It stays valid until it is committed.
    #[expect(clippy::should_implement_trait, reason = "an entry borrows from the ring")]
    pub fn next(&mut self) -> Option<Entry<'_>> {
        while self.read < self.produced() {
            let at = self.page_bytes + usize::try_from(self.read & (self.data_bytes - 1)).unwrap_or(0);
            // SAFETY: `at` is in the mapping and aligned to eight; the kernel writes this word atomically.
            let head = unsafe { AtomicU32::from_ptr(self.producer.at(at).cast()) }.load(Ordering::Acquire);
            if head & BUSY != 0 {
                return None;
            }
            let length = head & !DISCARD;
            self.read += (u64::from(length) + HEAD_BYTES).next_multiple_of(8);
            if head & DISCARD == 0 {
                // SAFETY: no record is longer than what is mapped again, so one that begins before the end is within the
                // mapping; the kernel leaves it alone until it is committed, which takes `&mut self`.
                let bytes = unsafe {
                    std::slice::from_raw_parts(self.producer.at(at + 8).cast_const(), length as usize)
                };
                return Some(Entry { bytes, end: self.read });
            }
        }
        None
    }

    /// Whether every record that was written has been given out.
    pub fn is_read(&self) -> bool {
        self.read >= self.produced()
    }

    /// Gives the kernel back all up to `position`, the end of a record that was given out.
    pub fn commit(&mut self, position: u64) {
        if position > self.consumed() && position <= self.read {
            self.consumer_position().store(position, Ordering::Release);
        }
    }

    /// Bytes up to `position` that are not committed.
    pub fn held_bytes(&self, position: u64) -> u64 {
        position.saturating_sub(self.consumed())
    }

    /// Bytes that were written and not committed.
    pub fn waiting_bytes(&self) -> u64 {
        self.produced().saturating_sub(self.consumed())
    }

    /// Blocks until there may be more to read, at most `longest`.
    pub fn wait(&self, longest: Duration) -> Result<(), RingError> {
        if self.waiting_bytes() > 0 {
            // The kernel wakes the reader for the first record and for many; in between the reader comes by itself.
            std::thread::sleep(longest.min(BUSY_WAIT));
            return Ok(());
        }
        let mut poll =
            libc::pollfd { fd: self.map.fd().as_fd().as_raw_fd(), events: libc::POLLIN, revents: 0 };
        let milliseconds = i32::try_from(longest.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: one `pollfd`, which lives until the call returns.
        if unsafe { libc::poll(&raw mut poll, 1, milliseconds) } < 0 {
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(RingError::Unwaitable(error));
            }
        }
        Ok(())
    }

    fn consumer_position(&self) -> &AtomicU64 {
        // SAFETY: the page's first word, aligned, shared with the kernel and accessed atomically by both.
        unsafe { AtomicU64::from_ptr(self.consumer.at(0).cast()) }
    }

    fn consumed(&self) -> u64 {
        self.consumer_position().load(Ordering::Acquire)
    }

    /// The end of all that was written.
    pub fn produced(&self) -> u64 {
        // SAFETY: as for the consumer position; this page is mapped for reading only, and only read.
        unsafe { AtomicU64::from_ptr(self.producer.at(0).cast()) }.load(Ordering::Acquire)
    }
}

/// Memory shared with the kernel.
struct Mapping {
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: the memory belongs to this value alone, and may be unmapped from any thread.
unsafe impl Send for Mapping {}

impl Mapping {
    fn new(fd: BorrowedFd<'_>, bytes: usize, protection: i32, offset: usize) -> Result<Self, RingError> {
        let offset = i64::try_from(offset).unwrap_or(0);
        // SAFETY: a new mapping at an address of the kernel's choice.
        let start = unsafe {
            libc::mmap(ptr::null_mut(), bytes, protection, libc::MAP_SHARED, fd.as_raw_fd(), offset)
        };
        if start == libc::MAP_FAILED {
            return Err(RingError::Unmappable(io::Error::last_os_error()));
        }
        let start = NonNull::new(start.cast())
            .ok_or_else(|| RingError::Unmappable(io::ErrorKind::OutOfMemory.into()))?;
        Ok(Self { start, bytes })
    }

    /// The address `offset` bytes into the mapping, which must be within it.
    fn at(&self, offset: usize) -> *mut u8 {
        debug_assert!(offset < self.bytes);
        // SAFETY: within the mapping.
        unsafe { self.start.as_ptr().add(offset) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and nothing borrows from it any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}
