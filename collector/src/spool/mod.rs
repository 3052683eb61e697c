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
//!   quarantine/N.held           JSON: what a batch in quarantine held, should it be unreadable when it is to be counted
//! ```
//!
//! A **segment** is a sequence of records, appended to and never changed. A **record** is a head of
//! [`record::HEAD_BYTES`] bytes and a batch as it is sent; the head holds the length and the CRC-32C of the rest.
//! A record is in the spool when [`Spool::append`] has returned: it is then on disk (`fdatasync`), and the ring's
//! position behind its last event is with it, so that after a crash reading goes on there.
//!
//! - Only the last segment is written. At [`segment::SEGMENT_BYTES`], or an eighth of the bytes allowed, a new one begins.
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
//! - **Losses** are told by [`Spool::take_lost`], the numbers of the lost batches by [`Spool::lost_batches`]. What they are
//!   known by (a given-up segment, a file in quarantine) stays until [`Spool::settle_lost`] says that a batch that tells them
//!   is on disk. `losses` says before that which batch it is, so that after a crash in between nothing is told twice. Batches
//!   behind damage or a given-up segment are not shipped before: once a later one is confirmed, nothing on disk would tell
//!   of those that never were.
//! - **Refused** batches go to quarantine. They are lost when ingest says that it misses them, or at the next start: an
//!   ingest that takes the next batch without a word has them, since its answer was lost and the refusal came after.

mod acknowledged;
pub mod inspect;
mod losses;
mod newest;
mod quarantine;
mod record;
mod scan;
mod segment;
mod uncounted;

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use crate::seal::{Link, SealedBatch};
use acknowledged::{ACKNOWLEDGED, Acknowledged};
pub use losses::ToldGap;
use losses::{Hole, Losses};
use newest::Newest;
use quarantine::{HELD, Quarantine};
use record::Head;
pub use record::RingMark;
use scan::Scan;
use segment::{Entry, Segments};
use uncounted::{Missing, Uncounted};

const LOCK: &str = "lock";

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
    Full { batches: Vec<LostBatch> },
    /// This many events, these gaps among them, were in a part of a file that is damaged.
    Corrupt { events: u64, gaps: Vec<ToldGap> },
    /// Ingest will never accept this batch.
    Refused { batch: LostBatch },
}

/// A batch that will not be shipped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostBatch {
    pub bytes: Vec<u8>,
    /// For when they cannot be read.
    pub held: Held,
}

/// How many events a batch holds, which of them are gaps, and which batches it tells to be lost: both as far as no later
/// batch has told it again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    pub events: u64,
    pub gaps: Vec<ToldGap>,
    /// Ends are without.
    #[serde(default)]
    pub lost_batches: Vec<(u64, u64)>,
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

/// The open spool.
pub struct Spool {
    directory: PathBuf,
    segments: Segments,
    /// Batches that are not confirmed, in order.
    waiting: VecDeque<Entry>,
    /// Number of the newest batch that is confirmed.
    acknowledged: u64,
    newest: Newest,
    losses: Losses,
    uncounted: Uncounted,
    quarantine: Quarantine,
    _lock: Flock<File>,
}

impl Spool {
    /// Opens or makes the spool in `directory`, which may hold `limit_bytes` of waiting batches.
    pub fn open(directory: &Path, limit_bytes: u64) -> Result<(Self, Recovery), SpoolError> {
        let quarantine = Quarantine::open(directory)?;
        let lock_path = directory.join(LOCK);
        let lock = File::create(&lock_path).map_err(file_error(&lock_path))?;
        let lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock)
            .map_err(|_| SpoolError::Locked { path: directory.into() })?;
        let (newest, noted) = Newest::open(directory)?;
        let mut scan = Scan::read(directory, noted, true)?;
        if let Some(acknowledged) = &scan.acknowledged
            && !directory.join(ACKNOWLEDGED).exists()
        {
            // So that a first segment that is missing later is known to be.
            acknowledged.write(directory)?;
        }
        let recovery = Recovery { link: scan.link(), ring: scan.ring() };
        let losses = Losses::open(directory, &scan);
        for entry in losses.entries() {
            for hole in &entry.holes {
                scan.remove(hole)?;
            }
            for number in &entry.quarantined {
                quarantine.settle(*number);
            }
        }
        let acknowledged = scan.confirmed();
        let mut uncounted = Uncounted::default();
        for hole in scan.missing() {
            let held = losses.held_in(&hole, losses.not_counted_in(&hole));
            if held != Held::default() || !losses.is_told(&hole) {
                uncounted.note_corrupt(Missing::Hole(hole), held);
            }
        }
        quarantine.find_uncounted(acknowledged, &mut uncounted)?;
        scan.entries.retain(|entry| entry.head.number > acknowledged);
        let mut segments = Segments::open(directory, scan.segments, recovery.link.number, limit_bytes)?;
        segments.delete_confirmed(acknowledged)?;
        let spool = Self {
            directory: directory.into(),
            segments,
            waiting: scan.entries,
            acknowledged,
            newest,
            losses,
            uncounted,
            quarantine,
            _lock: lock,
        };
        Ok((spool, recovery))
    }

    /// From now on, what is older than `age` is given up as if there were no room for it.
    pub fn limit_age(&mut self, age: Duration) {
        self.segments.limit_age(age);
    }

    /// Writes a batch and returns when it is on disk. What has to be given up for it is told by [`Spool::take_lost`].
    pub fn append(&mut self, batch: &SealedBatch, ring: Option<&RingMark>) -> Result<(), SpoolError> {
        if self.segments.roll(batch.number)? {
            self.segments.delete_confirmed(self.acknowledged)?;
        }
        let oldest = self.segments.first().min(self.acknowledged + 1);
        self.losses.enter(self.uncounted.counted_by(batch), oldest)?;
        let head = Head::of(batch, ring);
        let entry = self.segments.append(head, &batch.bytes)?;
        self.newest.note(&head);
        self.waiting.push_back(entry);
        self.give_up();
        Ok(())
    }

    /// What was lost and is not told yet.
    pub fn take_lost(&mut self) -> Vec<Lost> {
        self.uncounted.take()
    }

    /// Numbers of the batches that what was taken and is not settled is about: of those, and of those that were told to be
    /// lost by one of them.
    pub fn lost_batches(&self) -> Vec<RangeInclusive<u64>> {
        self.uncounted.lost_batches()
    }

    /// All that was taken is counted in a batch that is on disk.
    pub fn settle_lost(&mut self) {
        self.uncounted.settle();
    }

    /// The oldest batch that is not confirmed. None also while losses of before it are not counted yet: were it confirmed,
    /// nothing would tell of them after a crash.
    pub fn oldest(&self) -> Result<Option<Waiting>, SpoolError> {
        Ok(self.oldest_run(1, 0)?.into_iter().next())
    }

    /// The oldest batches that are not confirmed, each following the one before: at most so many, and with at most so many
    /// events behind the first. Ends before one that cannot be read, unless that is the first, and with its segment: the next
    /// may be given up while they are on their way.
    pub fn oldest_run(&self, batches: usize, events: u32) -> Result<Vec<Waiting>, SpoolError> {
        let mut run = Vec::<Waiting>::new();
        let mut room = events;
        let segment = self.waiting.front().map_or(0, |entry| entry.segment);
        for entry in self.waiting.iter().take(batches) {
            if self.uncounted.is_before(entry.head.number) {
                break;
            }
            if let Some(last) = run.last() {
                let follows = entry.head.number == last.number + 1 && entry.segment == segment;
                if !follows || entry.head.event_count > room {
                    break;
                }
                room -= entry.head.event_count;
            }
            match self.read(entry) {
                Ok(waiting) => run.push(waiting),
                Err(error) if run.is_empty() => return Err(error),
                Err(_) => break,
            }
        }
        Ok(run)
    }

    /// Batches and bytes that are not confirmed.
    pub fn backlog(&self) -> (usize, u64) {
        (self.waiting.len(), self.waiting.iter().map(|entry| entry.head.record_bytes()).sum())
    }

    /// Ingest has confirmed all batches up to `number`.
    ///
    /// It takes no batch that does not follow the one before, unless that was declared missing. So it has those that were
    /// put aside meanwhile and not declared missing: it had taken them, its answer was lost, and the next was a refusal.
    pub fn confirm(&mut self, number: u64) -> Result<(), SpoolError> {
        self.quarantine.delete_held()?;
        self.acknowledge(number)
    }

    /// Ingest does not have batches `from` to `to`. Those that were put aside are lost.
    pub fn declare_missing(&mut self, from: u64, to: u64) {
        self.quarantine.declare_missing(from, to, &mut self.uncounted);
    }

    /// The oldest batch, when it is `number`.
    fn oldest_if(&self, number: u64) -> Option<Entry> {
        self.waiting.front().filter(|entry| entry.head.number == number).copied()
    }

    /// No batch up to `number` is to be shipped any more.
    fn acknowledge(&mut self, number: u64) -> Result<(), SpoolError> {
        let Some(place) = self.waiting.iter().position(|entry| entry.head.number == number) else {
            return Ok(());
        };
        if let Some(entry) = self.waiting.get(place) {
            Acknowledged::of(&entry.head).write(&self.directory)?;
        }
        self.waiting.drain(..=place);
        self.acknowledged = number;
        self.segments.delete_confirmed(number)
    }

    /// Puts batch `number`, the oldest one, aside: ingest will never accept it.
    pub fn quarantine(&mut self, number: u64) -> Result<(), SpoolError> {
        let Some(entry) = self.oldest_if(number) else { return Ok(()) };
        let held = self.held_by(&entry);
        let path = self.quarantine.path_of_note(number);
        let note = serde_json::to_vec(&held)
            .map_err(|source| SpoolError::Acknowledged { path: path.clone(), source })?;
        if let Ok(Waiting { bytes, .. }) = self.read(&entry) {
            self.put_aside(number, &self.quarantine.path_of_batch(number), &bytes, &note)?;
            self.quarantine.hold(number, LostBatch { bytes, held });
        } else {
            self.put_aside(number, &path, &note, &note)?;
            self.uncounted.note_corrupt(Missing::Damaged(path), held);
        }
        Ok(())
    }

    /// Writes the file that stands for batch `number` from now on, and the `note` beside it; none of them stays when that fails,
    /// as on a full disk, since the batch goes on waiting then.
    fn put_aside(&mut self, number: u64, path: &Path, bytes: &[u8], note: &[u8]) -> Result<(), SpoolError> {
        let note_path = path.with_extension(HELD);
        let written = write_synced(&note_path, note).and_then(|()| write_synced(path, bytes));
        let done = written.and_then(|()| self.acknowledge(number));
        if done.is_err() && self.acknowledged < number {
            let _ = fs::remove_file(path);
            let _ = fs::remove_file(note_path);
        }
        done
    }

    /// What a batch holds, without reading it.
    fn held_by(&self, entry: &Entry) -> Held {
        let head = entry.head;
        let hole = Hole {
            batches: (head.number, head.number + 1),
            sequences: (head.first_sequence, head.next_sequence()),
        };
        self.losses.held_in(&hole, head.event_count.into())
    }

    fn read(&self, entry: &Entry) -> Result<Waiting, SpoolError> {
        let path = self.segments.path_of(entry);
        entry.read(path.ok_or(SpoolError::Damaged { number: entry.head.number })?)
    }

    /// Gives up segments until what is left is within the limits.
    fn give_up(&mut self) {
        while let Some(segment) = self.segments.give_up() {
            let is_in_it = |entry: &Entry| entry.segment == segment.first;
            let given_up: VecDeque<Entry>;
            (given_up, self.waiting) = self.waiting.drain(..).partition(is_in_it);
            let (Some(oldest), Some(newest)) = (given_up.front(), given_up.back()) else {
                if let Err(error) = segment.delete() {
                    tracing::warn!(%error, "a segment without a batch stays in the spool");
                }
                continue;
            };
            let hole = Hole {
                // From the number in its name: what of it is damaged is told already.
                batches: (segment.first, newest.head.number + 1),
                sequences: (oldest.head.first_sequence, newest.head.next_sequence()),
            };
            let (mut lost, mut batches) = (Vec::new(), Vec::new());
            for entry in &given_up {
                let held = self.held_by(entry);
                self.uncounted.note_told(&held.lost_batches);
                if let Ok(Waiting { bytes, .. }) = entry.read(&segment.path) {
                    batches.push(LostBatch { bytes, held });
                } else {
                    let Held { events, gaps, .. } = held;
                    lost.push(Lost::Corrupt { events, gaps });
                }
            }
            lost.push(Lost::Full { batches });
            self.uncounted.note(Missing::Segment(segment.path, hole), lost);
        }
    }
}

/// The files of a directory whose names end like this.
fn files(directory: &Path, extension: &str) -> Result<Vec<PathBuf>, SpoolError> {
    let entries = fs::read_dir(directory).map_err(file_error(directory))?;
    let paths = entries.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<_>>>();
    let mut paths = paths.map_err(file_error(directory))?;
    paths.retain(|path| path.extension().is_some_and(|found| found == extension));
    Ok(paths)
}

fn write_synced(path: &Path, bytes: &[u8]) -> Result<(), SpoolError> {
    let written = File::create(path).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    written.map_err(file_error(path))
}

fn file_error(path: &Path) -> impl FnOnce(io::Error) -> SpoolError {
    let path = path.to_path_buf();
    move |source| SpoolError::File { path, source }
}

#[cfg(test)]
mod tests;
