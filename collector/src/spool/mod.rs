//! The spool: sealed batches on disk until ingest has confirmed them. This is its specification.
//!
//! ```text
//! spool/
//!   lock                        held by the collector that uses it
//!   acknowledged                JSON: the newest confirmed batch; replaced by rename
//!   00000000000000000001.spool  a segment, named by the number of its first batch
//!   quarantine/N.batch          a batch that ingest will never accept, …
//!   quarantine/N.counted        … and one whose events are counted as lost in a later batch
//! ```
//!
//! A **segment** is a sequence of records, appended to and never changed. A **record** is a head of
//! [`record::HEAD_BYTES`] bytes and a batch as it is sent; the head holds the length and the CRC-32C of the rest.
//! A record is in the spool when [`Spool::append`] has returned: it is then on disk (`fdatasync`), and the ring's
//! position behind its last event is with it, so that after a crash reading goes on there.
//!
//! - Only the last segment is written. At [`SEGMENT_BYTES`] a new one begins.
//! - A segment is deleted when all its batches are confirmed and a later one has begun; so the newest record, from
//!   which numbering goes on, is always there. (Were it not, `acknowledged` is enough to go on without using a
//!   number twice.)
//! - **Torn tail**: a last segment that ends in an incomplete or wrong record is cut behind its last good record.
//!   What was torn off had not been confirmed to the ring, and is read from there again.
//! - **Damage** elsewhere: reading goes on at the next good record. What lies between is counted as lost, by the
//!   sequence numbers that are missing.
//! - **Full**: when the batches waiting exceed the bytes allowed, the oldest segment is given up and what it held is
//!   counted as lost, per server.
//! - **Losses** are told by [`Spool::take_lost`], and what they are known by (a given-up segment, a file in quarantine)
//!   stays until [`Spool::settle_lost`] says that a batch with their count is on disk. After a crash in between they are
//!   told again, or the segment is shipped after all: a gap may say too much, never too little.

mod record;

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use crate::seal::{Link, SealedBatch};
pub use record::RingMark;
use record::{HEAD_BYTES, Head};

/// Size at which a new segment begins.
const SEGMENT_BYTES: u64 = 16 << 20;
/// More batches than one segment can hold.
const MOST_DAMAGED: u64 = SEGMENT_BYTES / HEAD_BYTES as u64;
const ACKNOWLEDGED: &str = "acknowledged";
const QUARANTINE: &str = "quarantine";
const UNCOUNTED: &str = "batch";
const COUNTED: &str = "counted";

/// The spool cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    #[error("another collector uses the spool {path}")]
    Locked { path: PathBuf },
    #[error("{path}: {source}")]
    File { path: PathBuf, source: io::Error },
    #[error("{path} is damaged: {source}")]
    Acknowledged { path: PathBuf, source: serde_json::Error },
    #[error("batch {number} lies in the spool but cannot be read any more")]
    Damaged { number: u64 },
}

/// Events that the spool had and will not ship.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lost {
    /// The oldest batches were given up for room. They can still be read, to say what they held.
    Full { batches: Vec<Vec<u8>> },
    /// This many events were in a part of a file that is damaged.
    Corrupt { events: u64 },
    /// Ingest will never accept this batch.
    Refused { batch: Vec<u8> },
}

/// What a spool says when it is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovery {
    pub link: Link,
    /// The ring's position behind the newest event in the spool.
    pub ring: Option<RingMark>,
}

/// A batch to be shipped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    pub number: u64,
    pub events: u32,
    pub bytes: Vec<u8>,
}

/// The newest confirmed batch, and where the chain goes on behind it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Acknowledged {
    number: u64,
    next_sequence: u64,
    batch_hash: [u8; 32],
}

struct Segment {
    path: PathBuf,
    bytes: u64,
    last_number: u64,
}

#[derive(Clone, Copy)]
struct Entry {
    head: Head,
    /// Where its batch begins in its segment.
    offset: u64,
    /// Number of the first batch of its segment.
    segment: u64,
}

/// The open spool.
pub struct Spool {
    directory: PathBuf,
    limit_bytes: u64,
    segments: VecDeque<(u64, Segment)>,
    /// Batches that are not confirmed, in order.
    waiting: VecDeque<Entry>,
    last: File,
    acknowledged: u64,
    /// Not told yet.
    lost: Vec<Lost>,
    /// Files that hold what is lost, until that is counted: first those not told yet.
    untold: Vec<LostFile>,
    told: Vec<LostFile>,
    _lock: Flock<File>,
}

enum LostFile {
    Segment(PathBuf),
    Quarantined(PathBuf),
}

impl Spool {
    /// Opens or makes the spool in `directory`, which may hold `limit_bytes` of waiting batches.
    pub fn open(directory: &Path, limit_bytes: u64) -> Result<(Self, Recovery), SpoolError> {
        let quarantine = directory.join(QUARANTINE);
        // What is in it was said to a database, by name.
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&quarantine);
        made.map_err(file_error(&quarantine))?;
        let lock_path = directory.join("lock");
        let lock = File::create(&lock_path).map_err(file_error(&lock_path))?;
        let lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock)
            .map_err(|_| SpoolError::Locked { path: directory.into() })?;
        let mut scan = Scan::default();
        let mut paths = segment_paths(directory)?;
        paths.sort();
        let count = paths.len();
        for (position, path) in paths.into_iter().enumerate() {
            scan.segment(path, position + 1 == count)?;
        }
        let acknowledged = read_acknowledged(directory, scan.newest.is_some())?;
        let link = scan.link(acknowledged.as_ref());
        let last = match scan.segments.back() {
            Some((_, segment)) => open_to_append(&segment.path)?,
            None => scan.begin(directory, link.number)?,
        };
        let confirmed = acknowledged.map_or(0, |acknowledged| acknowledged.number);
        let recovery = Recovery { link, ring: scan.ring() };
        scan.entries.retain(|entry| entry.head.number > confirmed);
        let mut spool = Self {
            directory: directory.into(),
            limit_bytes,
            segments: scan.segments,
            waiting: scan.entries,
            last,
            acknowledged: confirmed,
            lost: scan.lost,
            untold: Vec::new(),
            told: Vec::new(),
            _lock: lock,
        };
        spool.delete_confirmed()?;
        spool.find_uncounted(&quarantine)?;
        Ok((spool, recovery))
    }

    /// Writes a batch and returns when it is on disk. What has to be given up for it is told by [`Spool::take_lost`].
    pub fn append(&mut self, batch: &SealedBatch, ring: Option<&RingMark>) -> Result<(), SpoolError> {
        if self.segments.back().is_none_or(|(_, segment)| segment.bytes >= SEGMENT_BYTES) {
            self.roll(batch.number)?;
        }
        let head = Head::of(batch, ring);
        let Some((first, segment)) = self.segments.back_mut() else { return Ok(()) };
        let start = segment.bytes;
        let written = self
            .last
            .write_all(&head.encode(&batch.bytes))
            .and_then(|()| self.last.write_all(&batch.bytes))
            .and_then(|()| self.last.sync_data());
        if let Err(source) = written {
            // A part of it may be there; the next attempt begins at the same place.
            let undone = self.last.set_len(start).and_then(|()| self.last.seek(SeekFrom::Start(start)));
            undone.map_err(file_error(&segment.path))?;
            return Err(file_error(&segment.path)(source));
        }
        segment.bytes += head.record_bytes();
        segment.last_number = batch.number;
        self.waiting.push_back(Entry { head, offset: start + HEAD_BYTES as u64, segment: *first });
        self.give_up();
        Ok(())
    }

    /// What was lost and is not told yet.
    pub fn take_lost(&mut self) -> Vec<Lost> {
        self.told.append(&mut self.untold);
        std::mem::take(&mut self.lost)
    }

    /// All that was taken is counted in a batch that is on disk.
    pub fn settle_lost(&mut self) {
        for file in std::mem::take(&mut self.told) {
            let settled = match &file {
                LostFile::Segment(path) => fs::remove_file(path),
                LostFile::Quarantined(path) => fs::rename(path, path.with_extension(COUNTED)),
            };
            if let Err(error) = settled {
                let (LostFile::Segment(path) | LostFile::Quarantined(path)) = &file;
                tracing::warn!(file = %path.display(), %error, "what is lost and counted stays in the spool");
            }
        }
    }

    /// The oldest batch that is not confirmed.
    pub fn oldest(&self) -> Result<Option<Waiting>, SpoolError> {
        self.waiting.front().map(|entry| self.read(entry)).transpose()
    }

    /// Batches and bytes that are not confirmed.
    pub fn backlog(&self) -> (usize, u64) {
        (self.waiting.len(), self.waiting.iter().map(|entry| entry.head.record_bytes()).sum())
    }

    /// Ingest has confirmed batch `number`, the oldest one.
    pub fn acknowledge(&mut self, number: u64) -> Result<(), SpoolError> {
        let Some(entry) = self.waiting.front().filter(|entry| entry.head.number == number).copied() else {
            return Ok(());
        };
        let acknowledged = Acknowledged {
            number,
            next_sequence: entry.head.first_sequence + u64::from(entry.head.event_count),
            batch_hash: entry.head.batch_hash,
        };
        let path = self.directory.join(ACKNOWLEDGED);
        let partial = path.with_extension("partial");
        let text = serde_json::to_vec(&acknowledged)
            .map_err(|source| SpoolError::Acknowledged { path: path.clone(), source })?;
        // Not synced: were it lost, the batch would be sent again, and ingest knows it.
        fs::write(&partial, text).and_then(|()| fs::rename(&partial, &path)).map_err(file_error(&path))?;
        self.waiting.pop_front();
        self.acknowledged = number;
        self.delete_confirmed()
    }

    /// Puts batch `number`, the oldest one, aside: ingest will never accept it.
    pub fn quarantine(&mut self, number: u64) -> Result<(), SpoolError> {
        let Some(entry) = self.waiting.front().filter(|entry| entry.head.number == number).copied() else {
            return Ok(());
        };
        if let Ok(waiting) = self.read(&entry) {
            let path = self.directory.join(QUARANTINE).join(format!("{number}.{UNCOUNTED}"));
            let mut file = File::create(&path).map_err(file_error(&path))?;
            file.write_all(&waiting.bytes).and_then(|()| file.sync_all()).map_err(file_error(&path))?;
            self.acknowledge(number)?;
            self.untold.push(LostFile::Quarantined(path));
            self.lost.push(Lost::Refused { batch: waiting.bytes });
        } else {
            self.acknowledge(number)?;
            self.lost.push(Lost::Corrupt { events: entry.head.event_count.into() });
        }
        Ok(())
    }

    /// Batches in quarantine whose count no batch in the spool is known to hold.
    fn find_uncounted(&mut self, quarantine: &Path) -> Result<(), SpoolError> {
        for path in files(quarantine, UNCOUNTED)? {
            let batch = fs::read(&path).map_err(file_error(&path))?;
            self.untold.push(LostFile::Quarantined(path));
            self.lost.push(Lost::Refused { batch });
        }
        Ok(())
    }

    fn read(&self, entry: &Entry) -> Result<Waiting, SpoolError> {
        let number = entry.head.number;
        let segment = self.segments.iter().find(|(first, _)| *first == entry.segment);
        let (_, segment) = segment.ok_or(SpoolError::Damaged { number })?;
        let failed = file_error(&segment.path);
        let mut bytes = vec![0; entry.head.length as usize];
        let read = File::open(&segment.path).and_then(|mut file| {
            file.seek(SeekFrom::Start(entry.offset))?;
            file.read_exact(&mut bytes)
        });
        read.map_err(failed)?;
        if !entry.head.matches(&bytes) {
            return Err(SpoolError::Damaged { number });
        }
        Ok(Waiting { number, events: entry.head.event_count, bytes })
    }

    fn roll(&mut self, number: u64) -> Result<(), SpoolError> {
        let path = segment_path(&self.directory, number);
        self.last = new_segment(&path)?;
        self.segments.push_back((number, Segment { path, bytes: 0, last_number: 0 }));
        self.delete_confirmed()
    }

    /// Deletes the segments whose batches are all confirmed, but never the last.
    fn delete_confirmed(&mut self) -> Result<(), SpoolError> {
        while self.segments.len() > 1 {
            let Some((_, segment)) = self.segments.front() else { break };
            if segment.last_number > self.acknowledged {
                break;
            }
            fs::remove_file(&segment.path).map_err(file_error(&segment.path))?;
            self.segments.pop_front();
        }
        Ok(())
    }

    /// Gives up oldest segments until what is left is within the limit.
    fn give_up(&mut self) {
        while self.segments.len() > 1
            && self.segments.iter().map(|(_, segment)| segment.bytes).sum::<u64>() > self.limit_bytes
        {
            let Some(&(first, _)) = self.segments.front() else { break };
            let mut batches = Vec::new();
            while let Some(entry) = self.waiting.front().filter(|entry| entry.segment == first).copied() {
                match self.read(&entry) {
                    Ok(waiting) => batches.push(waiting.bytes),
                    Err(_) => self.lost.push(Lost::Corrupt { events: entry.head.event_count.into() }),
                }
                self.waiting.pop_front();
            }
            if let Some((_, segment)) = self.segments.pop_front() {
                self.untold.push(LostFile::Segment(segment.path));
            }
            self.lost.push(Lost::Full { batches });
        }
    }
}

/// Reads all segments, oldest first.
#[derive(Default)]
struct Scan {
    segments: VecDeque<(u64, Segment)>,
    entries: VecDeque<Entry>,
    newest: Option<Head>,
    lost: Vec<Lost>,
}

impl Scan {
    fn segment(&mut self, path: PathBuf, is_last: bool) -> Result<(), SpoolError> {
        let mut bytes = Vec::new();
        File::open(&path).and_then(|mut file| file.read_to_end(&mut bytes)).map_err(file_error(&path))?;
        let named: Option<u64> =
            path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse().ok());
        let Some(first) = named else { return Ok(()) };
        let mut good = 0;
        let mut last_number = 0;
        while let Some((at, head)) = self.next_good(&bytes, good) {
            self.note_missing(&head);
            self.entries.push_back(Entry { head, offset: (at + HEAD_BYTES) as u64, segment: first });
            self.newest = Some(head);
            last_number = head.number;
            good = at + HEAD_BYTES + head.length as usize;
        }
        if is_last && good < bytes.len() {
            let file = File::options().write(true).open(&path).map_err(file_error(&path))?;
            file.set_len(good as u64).and_then(|()| file.sync_all()).map_err(file_error(&path))?;
        }
        self.segments.push_back((first, Segment { path, bytes: good as u64, last_number }));
        Ok(())
    }

    /// The next good record at or behind `from`, and where it is.
    fn next_good(&self, bytes: &[u8], from: usize) -> Option<(usize, Head)> {
        let head_at = |at: usize| bytes.get(at..).and_then(Head::decode).map(|head| (at, head));
        // Past damage: only what bears a number that can follow is worth its checksum.
        let newest = self.newest.map_or(0, |newest| newest.number);
        let may_follow = |at: &usize| {
            let number = bytes.get(*at..).and_then(Head::number);
            number.is_some_and(|number| number > newest && number - newest < MOST_DAMAGED)
        };
        head_at(from).or_else(|| (from + 1..bytes.len()).filter(may_follow).find_map(head_at))
    }

    /// Sequence numbers that no record has are those of a damaged part.
    fn note_missing(&mut self, head: &Head) {
        let Some(newest) = &self.newest else { return };
        let expected = newest.first_sequence + u64::from(newest.event_count);
        let events = head.first_sequence.saturating_sub(expected);
        if events > 0 {
            self.lost.push(Lost::Corrupt { events });
        }
    }

    fn link(&self, acknowledged: Option<&Acknowledged>) -> Link {
        let confirmed = acknowledged.map_or(Link::FIRST, |acknowledged| Link {
            number: acknowledged.number + 1,
            sequence: acknowledged.next_sequence,
            previous_hash: acknowledged.batch_hash,
        });
        let newest = self.newest.as_ref().map_or(Link::FIRST, |newest| Link {
            number: newest.number + 1,
            sequence: newest.first_sequence + u64::from(newest.event_count),
            previous_hash: newest.batch_hash,
        });
        if newest.number >= confirmed.number { newest } else { confirmed }
    }

    fn ring(&self) -> Option<RingMark> {
        self.newest.as_ref().and_then(Head::ring)
    }

    fn begin(&mut self, directory: &Path, number: u64) -> Result<File, SpoolError> {
        let path = segment_path(directory, number);
        let file = new_segment(&path)?;
        self.segments.push_back((number, Segment { path, bytes: 0, last_number: 0 }));
        Ok(file)
    }
}

fn segment_path(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("{number:020}.spool"))
}

fn segment_paths(directory: &Path) -> Result<Vec<PathBuf>, SpoolError> {
    files(directory, "spool")
}

/// The files of a directory whose names end like this.
fn files(directory: &Path, extension: &str) -> Result<Vec<PathBuf>, SpoolError> {
    let entries = fs::read_dir(directory).map_err(file_error(directory))?;
    let paths = entries.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<_>>>();
    let mut paths = paths.map_err(file_error(directory))?;
    paths.retain(|path| path.extension().is_some_and(|found| found == extension));
    Ok(paths)
}

fn new_segment(path: &Path) -> Result<File, SpoolError> {
    let file =
        File::options().create(true).write(true).truncate(true).open(path).map_err(file_error(path))?;
    if let Some(directory) = path.parent() {
        File::open(directory).and_then(|directory| directory.sync_all()).map_err(file_error(directory))?;
    }
    Ok(file)
}

fn open_to_append(path: &Path) -> Result<File, SpoolError> {
    let mut file = File::options().write(true).open(path).map_err(file_error(path))?;
    file.seek(SeekFrom::End(0)).map_err(file_error(path))?;
    Ok(file)
}

/// The newest confirmed batch. Where the segments tell how to go on (`has_records`), a damaged file is as good as none:
/// what was confirmed is sent again, and ingest knows it.
fn read_acknowledged(directory: &Path, has_records: bool) -> Result<Option<Acknowledged>, SpoolError> {
    let path = directory.join(ACKNOWLEDGED);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(SpoolError::File { path, source }),
    };
    match serde_json::from_slice(&text) {
        Ok(acknowledged) => Ok(Some(acknowledged)),
        Err(source) if has_records => {
            tracing::warn!(file = %path.display(), error = %source, "damaged, going on without it");
            Ok(None)
        }
        Err(source) => Err(SpoolError::Acknowledged { path, source }),
    }
}

fn file_error(path: &Path) -> impl FnOnce(io::Error) -> SpoolError {
    let path = path.to_path_buf();
    move |source| SpoolError::File { path, source }
}

#[cfg(test)]
mod tests;
