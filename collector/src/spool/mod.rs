//! The spool: sealed batches on disk until ingest has confirmed them. This is its specification.
//!
//! ```text
//! spool/
//!   lock                        held by the collector that uses it
//!   acknowledged                JSON: the newest confirmed batch; replaced by rename
//!   newest                      the head of the newest record once more: see the module `newest`
//!   losses                      JSON: which losses which batch counts: see the module `losses`
//!   00000000000000000001.spool  a segment, named by the number of its first batch
//!   quarantine/N.batch          a batch that ingest will never accept, …
//!   quarantine/N.counted        … and one whose events are counted as lost in a later batch
//!   quarantine/N.damaged        JSON: a batch that became unreadable before it was confirmed, until it is counted
//! ```
//!
//! A **segment** is a sequence of records, appended to and never changed. A **record** is a head of
//! [`record::HEAD_BYTES`] bytes and a batch as it is sent; the head holds the length and the CRC-32C of the rest.
//! A record is in the spool when [`Spool::append`] has returned: it is then on disk (`fdatasync`), and the ring's
//! position behind its last event is with it, so that after a crash reading goes on there.
//!
//! - Only the last segment is written. At [`SEGMENT_BYTES`], or an eighth of the bytes allowed, a new one begins.
//! - A segment is deleted when all its batches are confirmed and a later one has a record; so the newest record, from
//!   which numbering goes on, is always there. (Were it not, `acknowledged` is enough to go on without using a
//!   number twice.)
//! - **Torn tail**: a last segment that ends in an incomplete or wrong record is cut behind its last good record.
//!   What was torn off had not been confirmed to the ring, and is read from there again; unless `newest` says that it was
//!   in the spool: then it was damaged, and is counted as lost.
//! - **Damage** elsewhere: reading goes on at the next good record. What lies between is counted as lost, by the
//!   sequence numbers that are missing, unless it had been confirmed.
//! - **Full**: when the segments exceed the bytes allowed, one is given up and what it held is counted as lost, per
//!   server: the oldest but one, since a batch of the oldest may be on its way, and be stored after all.
//! - **Age**: where a limit is set, what was written longer ago is given up in the same way, segment by segment, when the
//!   next batch is appended.
//! - **Losses** are told by [`Spool::take_lost`], and what they are known by (a given-up segment, a file in quarantine)
//!   stays until [`Spool::settle_lost`] says that a batch with their count is on disk. `losses` says before that which
//!   batch it is, so that after a crash in between nothing is told twice. Batches behind damage or a given-up segment are
//!   not shipped before: once a later one is confirmed, nothing on disk would tell of those that never were.
//! - **Refused** batches go to quarantine. They are lost when ingest says that it misses them, or at the next start: an
//!   ingest that takes the next batch without a word has them, since its answer was lost and the refusal came after.

pub mod inspect;
mod losses;
mod newest;
mod record;
mod scan;

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use crate::seal::{Link, SealedBatch};
pub use losses::ToldGap;
use losses::{Entry as LossEntry, Hole, Losses};
use newest::Newest;
pub use record::RingMark;
use record::{HEAD_BYTES, Head};
use scan::Scan;

/// Size at which a new segment begins.
const SEGMENT_BYTES: u64 = 16 << 20;
/// At least so many segments are made of the bytes allowed.
const SEGMENTS: u64 = 8;
const LOCK: &str = "lock";
const ACKNOWLEDGED: &str = "acknowledged";
const QUARANTINE: &str = "quarantine";
const UNCOUNTED: &str = "batch";
const COUNTED: &str = "counted";
const DAMAGED: &str = "damaged";

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
    /// This many events, these gaps among them, were in a part of a file that is damaged.
    Corrupt { events: u64, gaps: Vec<ToldGap> },
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

impl Acknowledged {
    const NONE: Self = Self {
        number: Link::FIRST.number - 1,
        next_sequence: Link::FIRST.sequence,
        batch_hash: Link::FIRST.previous_hash,
    };
}

struct Segment {
    path: PathBuf,
    bytes: u64,
    last_number: u64,
    /// When its newest record was written.
    written: Instant,
}

impl Segment {
    fn begin(path: PathBuf) -> Self {
        Self { path, bytes: 0, last_number: 0, written: Instant::now() }
    }

    /// The last batch that it holds, or held, when the next segment begins with `next`: one that is damaged throughout may
    /// have held all up to that.
    fn last_before(&self, next: u64) -> u64 {
        if self.last_number == 0 { next - 1 } else { self.last_number }
    }
}

#[derive(Clone, Copy, Debug)]
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
    limit_age: Option<Duration>,
    segments: VecDeque<(u64, Segment)>,
    /// Batches that are not confirmed, in order.
    waiting: VecDeque<Entry>,
    last: File,
    acknowledged: u64,
    newest: Newest,
    losses: Losses,
    /// Not told yet.
    lost: Vec<Lost>,
    /// What is lost and not counted yet: first what is not told yet.
    untold: Vec<Missing>,
    told: Vec<Missing>,
    /// Refused batches of which it will be known with the next answer whether ingest has them all the same.
    held: Vec<Refused>,
    _lock: Flock<File>,
}

/// What a loss is known by, until it is counted.
enum Missing {
    /// Batches that are damaged.
    Hole(Hole),
    /// A segment that is given up.
    Segment(PathBuf, Hole),
    Quarantined(PathBuf),
    /// A note of a batch that became unreadable.
    Damaged(PathBuf),
}

/// A batch in quarantine.
struct Refused {
    number: u64,
    path: PathBuf,
    batch: Vec<u8>,
}

/// A note of a batch that became unreadable.
#[derive(Serialize, Deserialize)]
struct DamagedBatch {
    events: u64,
    gaps: Vec<ToldGap>,
}

impl Spool {
    /// Opens or makes the spool in `directory`, which may hold `limit_bytes` of waiting batches.
    pub fn open(directory: &Path, limit_bytes: u64) -> Result<(Self, Recovery), SpoolError> {
        let quarantine = directory.join(QUARANTINE);
        // What is in it was said to a database, by name.
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&quarantine);
        made.map_err(file_error(&quarantine))?;
        let lock_path = directory.join(LOCK);
        let lock = File::create(&lock_path).map_err(file_error(&lock_path))?;
        let lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock)
            .map_err(|_| SpoolError::Locked { path: directory.into() })?;
        let (newest, noted) = Newest::open(directory)?;
        let mut scan = Scan::default();
        let mut paths = segment_paths(directory)?;
        paths.sort();
        let count = paths.len();
        for (position, path) in paths.into_iter().enumerate() {
            scan.segment(path, position + 1 == count)?;
        }
        let acknowledged = read_acknowledged(directory, &scan)?;
        let confirmed = acknowledged.map_or(0, |acknowledged| acknowledged.number);
        if let Some(acknowledged) = &acknowledged {
            scan.note_before(acknowledged);
            if !directory.join(ACKNOWLEDGED).exists() {
                // So that a first segment that is missing later is known to be.
                write_acknowledged(directory, acknowledged)?;
            }
        }
        scan.note_tail(noted, confirmed);
        let link = scan.link(acknowledged.as_ref());
        let recovery = Recovery { link, ring: scan.ring() };
        let losses = Losses::open(directory, link.number, &scan);
        for entry in losses.entries() {
            for hole in &entry.holes {
                scan.remove(hole)?;
            }
            for number in &entry.quarantined {
                count_quarantined(&quarantine, *number);
            }
        }
        let last = match scan.segments.back() {
            Some((_, segment)) => open_to_append(&segment.path)?,
            None => scan.begin(directory, link.number)?,
        };
        scan.entries.retain(|entry| entry.head.number > confirmed);
        let mut spool = Self {
            directory: directory.into(),
            limit_bytes,
            limit_age: None,
            segments: scan.segments,
            waiting: scan.entries,
            last,
            acknowledged: confirmed,
            newest,
            losses,
            lost: Vec::new(),
            untold: Vec::new(),
            told: Vec::new(),
            held: Vec::new(),
            _lock: lock,
        };
        let next_sequence = acknowledged.map_or(0, |acknowledged| acknowledged.next_sequence);
        for hole in scan.holes {
            if let Some(hole) = hole.behind(confirmed + 1, next_sequence) {
                spool.note_hole(hole);
            }
        }
        spool.delete_confirmed()?;
        spool.find_uncounted(&quarantine)?;
        Ok((spool, recovery))
    }

    /// From now on, what is older than `age` is given up as if there were no room for it.
    pub fn limit_age(&mut self, age: Duration) {
        self.limit_age = Some(age);
    }

    /// Writes a batch and returns when it is on disk. What has to be given up for it is told by [`Spool::take_lost`].
    pub fn append(&mut self, batch: &SealedBatch, ring: Option<&RingMark>) -> Result<(), SpoolError> {
        let segment_bytes = SEGMENT_BYTES.min(self.limit_bytes / SEGMENTS);
        if self.segments.back().is_none_or(|(_, segment)| segment.bytes >= segment_bytes) {
            self.roll(batch.number)?;
        }
        self.enter_losses(batch)?;
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
        self.newest.note(&head);
        segment.bytes += head.record_bytes();
        segment.last_number = batch.number;
        segment.written = Instant::now();
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
        for missing in std::mem::take(&mut self.told) {
            let (path, settled) = match &missing {
                Missing::Hole(_) => continue,
                Missing::Segment(path, _) | Missing::Damaged(path) => (path, fs::remove_file(path)),
                Missing::Quarantined(path) => (path, fs::rename(path, path.with_extension(COUNTED))),
            };
            if let Err(error) = settled {
                tracing::warn!(file = %path.display(), %error, "what is lost and counted stays in the spool");
            }
        }
    }

    /// Notes what `batch`, which comes next, counts.
    fn enter_losses(&mut self, batch: &SealedBatch) -> Result<(), SpoolError> {
        let mut entry = LossEntry {
            batch: batch.number,
            batch_hash: batch.batch_hash,
            gaps: batch.gaps.clone(),
            holes: Vec::new(),
            quarantined: Vec::new(),
        };
        for missing in &self.told {
            match missing {
                Missing::Hole(hole) | Missing::Segment(_, hole) => entry.holes.push(*hole),
                Missing::Quarantined(path) | Missing::Damaged(path) => {
                    entry.quarantined.extend(number_of(path));
                }
            }
        }
        let oldest = self.segments.front().map_or(batch.number, |(first, _)| *first);
        self.losses.enter(entry, oldest.min(self.acknowledged + 1))
    }

    /// Batches are missing between two good records, before the first or behind the last.
    fn note_hole(&mut self, hole: Hole) {
        let gaps = self.losses.gaps_in(&hole);
        let events = self.losses.not_counted_in(&hole);
        if events > 0 || !gaps.is_empty() {
            self.lost.push(Lost::Corrupt { events, gaps });
            self.untold.push(Missing::Hole(hole));
        }
    }

    /// The oldest batch that is not confirmed. None also while losses of before it are not counted yet: were it confirmed,
    /// nothing would tell of them after a crash.
    pub fn oldest(&self) -> Result<Option<Waiting>, SpoolError> {
        let Some(entry) = self.waiting.front() else { return Ok(None) };
        let is_before = |missing: &Missing| match missing {
            Missing::Hole(hole) | Missing::Segment(_, hole) => hole.batches.0 < entry.head.number,
            Missing::Quarantined(_) | Missing::Damaged(_) => false,
        };
        if self.untold.iter().chain(&self.told).any(is_before) {
            return Ok(None);
        }
        self.read(entry).map(Some)
    }

    /// Batches and bytes that are not confirmed.
    pub fn backlog(&self) -> (usize, u64) {
        (self.waiting.len(), self.waiting.iter().map(|entry| entry.head.record_bytes()).sum())
    }

    /// Ingest has confirmed batch `number`, the oldest one.
    ///
    /// It takes no batch that does not follow the one before, unless that was declared missing. So it has those that were
    /// put aside meanwhile and not declared missing: it had taken them, its answer was lost, and the next was a refusal.
    pub fn confirm(&mut self, number: u64) -> Result<(), SpoolError> {
        for refused in std::mem::take(&mut self.held) {
            tracing::info!(batch = refused.number, "ingest has a batch that was refused when it came again");
            fs::remove_file(&refused.path).map_err(file_error(&refused.path))?;
        }
        self.acknowledge(number)
    }

    /// Ingest does not have batches `from` to `to`. Those that were put aside are lost.
    pub fn declare_missing(&mut self, from: u64, to: u64) {
        let missing = |refused: &mut Refused| (from..=to).contains(&refused.number);
        let lost: Vec<Refused> = self.held.extract_if(.., missing).collect();
        for Refused { path, batch, .. } in lost {
            self.untold.push(Missing::Quarantined(path));
            self.lost.push(Lost::Refused { batch });
        }
    }

    /// Batch `number`, the oldest one, is not to be shipped any more.
    fn acknowledge(&mut self, number: u64) -> Result<(), SpoolError> {
        let Some(entry) = self.waiting.front().filter(|entry| entry.head.number == number).copied() else {
            return Ok(());
        };
        let acknowledged = Acknowledged {
            number,
            next_sequence: entry.head.next_sequence(),
            batch_hash: entry.head.batch_hash,
        };
        write_acknowledged(&self.directory, &acknowledged)?;
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
            self.put_aside(number, &path, &waiting.bytes)?;
            self.held.push(Refused { number, path, batch: waiting.bytes });
        } else {
            let (events, gaps) = self.held_by(&entry);
            let path = self.directory.join(QUARANTINE).join(format!("{number}.{DAMAGED}"));
            let note = serde_json::to_vec(&DamagedBatch { events, gaps: gaps.clone() })
                .map_err(|source| SpoolError::Acknowledged { path: path.clone(), source })?;
            self.put_aside(number, &path, &note)?;
            self.untold.push(Missing::Damaged(path));
            self.lost.push(Lost::Corrupt { events, gaps });
        }
        Ok(())
    }

    /// Writes the file that stands for batch `number` from now on; none of it stays when that fails, as on a full disk, since
    /// the batch goes on waiting then.
    fn put_aside(&mut self, number: u64, path: &Path, bytes: &[u8]) -> Result<(), SpoolError> {
        let written = File::create(path).and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        });
        let done = written.map_err(file_error(path)).and_then(|()| self.acknowledge(number));
        if done.is_err() && self.acknowledged < number {
            let _ = fs::remove_file(path);
        }
        done
    }

    /// How many events a batch holds, and which of them are gaps, without reading it.
    fn held_by(&self, entry: &Entry) -> (u64, Vec<ToldGap>) {
        let head = entry.head;
        let gaps = self.losses.gaps_in(&Hole {
            batches: (head.number, head.number + 1),
            sequences: (head.first_sequence, head.next_sequence()),
        });
        (u64::from(head.event_count), gaps)
    }

    /// What lies in quarantine and is counted in no batch.
    fn find_uncounted(&mut self, quarantine: &Path) -> Result<(), SpoolError> {
        for path in self.given_up_files(quarantine, UNCOUNTED)? {
            let batch = fs::read(&path).map_err(file_error(&path))?;
            self.untold.push(Missing::Quarantined(path));
            self.lost.push(Lost::Refused { batch });
        }
        for path in self.given_up_files(quarantine, DAMAGED)? {
            let text = fs::read(&path).map_err(file_error(&path))?;
            if let Ok(DamagedBatch { events, gaps }) = serde_json::from_slice(&text) {
                self.untold.push(Missing::Damaged(path));
                self.lost.push(Lost::Corrupt { events, gaps });
            }
        }
        Ok(())
    }

    /// Files of batches that will not be shipped. A crash came before the others were given up: they still will be.
    fn given_up_files(&self, quarantine: &Path, extension: &str) -> Result<Vec<PathBuf>, SpoolError> {
        let (given_up, waiting): (Vec<_>, Vec<_>) = files(quarantine, extension)?
            .into_iter()
            .partition(|path| number_of(path).is_some_and(|number| number <= self.acknowledged));
        for path in waiting {
            fs::remove_file(&path).map_err(file_error(&path))?;
        }
        Ok(given_up)
    }

    fn read(&self, entry: &Entry) -> Result<Waiting, SpoolError> {
        let number = entry.head.number;
        let segment = self.segments.iter().find(|(first, _)| *first == entry.segment);
        let (_, segment) = segment.ok_or(SpoolError::Damaged { number })?;
        Self::read_from(entry, &segment.path)
    }

    fn read_from(entry: &Entry, path: &Path) -> Result<Waiting, SpoolError> {
        let number = entry.head.number;
        let mut bytes = vec![0; entry.head.length as usize];
        let read = File::open(path).and_then(|mut file| {
            file.seek(SeekFrom::Start(entry.offset))?;
            file.read_exact(&mut bytes)
        });
        read.map_err(file_error(path))?;
        if !entry.head.matches(&bytes) {
            return Err(SpoolError::Damaged { number });
        }
        Ok(Waiting { number, events: entry.head.event_count, bytes })
    }

    fn roll(&mut self, number: u64) -> Result<(), SpoolError> {
        let path = segment_path(&self.directory, number);
        self.last = new_segment(&path)?;
        self.segments.push_back((number, Segment::begin(path)));
        self.delete_confirmed()
    }

    /// Deletes the segments whose batches are all confirmed, but never the last, and never the newest record.
    fn delete_confirmed(&mut self) -> Result<(), SpoolError> {
        while let (Some((_, segment)), Some((next, _))) = (self.segments.front(), self.segments.get(1)) {
            let has_newer = self.segments.iter().skip(1).any(|(_, segment)| segment.last_number > 0);
            if segment.last_before(*next) > self.acknowledged || !has_newer {
                break;
            }
            fs::remove_file(&segment.path).map_err(file_error(&segment.path))?;
            self.segments.pop_front();
        }
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.segments.iter().map(|(_, segment)| segment.bytes).sum::<u64>() > self.limit_bytes
    }

    /// Whether what would be given up first is too old.
    fn is_too_old(&self) -> bool {
        let age = self.segments.get(1).map(|(_, segment)| segment.written.elapsed());
        self.limit_age.zip(age).is_some_and(|(limit, age)| age > limit)
    }

    /// Gives up segments until what is left is within the limits, but neither the oldest nor the last.
    fn give_up(&mut self) {
        while self.segments.len() > 2 && (self.is_full() || self.is_too_old()) {
            let Some((first, segment)) = self.segments.remove(1) else { break };
            let (given_up, kept) = self.waiting.drain(..).partition(|entry| entry.segment == first);
            self.waiting = kept;
            let given_up: VecDeque<Entry> = given_up;
            let mut batches = Vec::new();
            for entry in &given_up {
                if let Ok(waiting) = Self::read_from(entry, &segment.path) {
                    batches.push(waiting.bytes);
                } else {
                    let (events, gaps) = self.held_by(entry);
                    self.lost.push(Lost::Corrupt { events, gaps });
                }
            }
            if let (Some(oldest), Some(newest)) = (given_up.front(), given_up.back()) {
                let hole = Hole {
                    // From the number in its name: what of it is damaged is told already.
                    batches: (first, newest.head.number + 1),
                    sequences: (oldest.head.first_sequence, newest.head.next_sequence()),
                };
                self.untold.push(Missing::Segment(segment.path, hole));
                self.lost.push(Lost::Full { batches });
            } else if let Err(error) = fs::remove_file(&segment.path) {
                tracing::warn!(file = %segment.path.display(), %error, "a segment without a batch stays in the spool");
            }
        }
    }
}

fn count_quarantined(quarantine: &Path, number: u64) {
    let path = |extension: &str| quarantine.join(format!("{number}.{extension}"));
    // They are not there any more unless a crash came between.
    let _ = fs::rename(path(UNCOUNTED), path(COUNTED));
    let _ = fs::remove_file(path(DAMAGED));
}

fn number_of(path: &Path) -> Option<u64> {
    path.file_stem()?.to_str()?.parse().ok()
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

fn write_acknowledged(directory: &Path, acknowledged: &Acknowledged) -> Result<(), SpoolError> {
    let path = directory.join(ACKNOWLEDGED);
    let partial = path.with_extension("partial");
    let text = serde_json::to_vec(acknowledged)
        .map_err(|source| SpoolError::Acknowledged { path: path.clone(), source })?;
    // Not synced: were it lost, the batch would be sent again, and ingest knows it.
    fs::write(&partial, text).and_then(|()| fs::rename(&partial, &path)).map_err(file_error(&path))
}

/// The newest confirmed batch; none before the first. Where the segments tell how to go on, a damaged file, or one that is
/// missing though batches have been confirmed, says nothing: what was confirmed is sent again, and ingest knows it.
fn read_acknowledged(directory: &Path, scan: &Scan) -> Result<Option<Acknowledged>, SpoolError> {
    let path = directory.join(ACKNOWLEDGED);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let is_whole = scan.segments.front().is_none_or(|(first, _)| *first == Link::FIRST.number);
            return Ok(is_whole.then_some(Acknowledged::NONE));
        }
        Err(source) => return Err(SpoolError::File { path, source }),
    };
    match serde_json::from_slice(&text) {
        Ok(acknowledged) => Ok(Some(acknowledged)),
        Err(source) if scan.newest.is_some() => {
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
