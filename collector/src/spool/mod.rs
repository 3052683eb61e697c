//! The spool: sealed batches on disk until ingest has confirmed them. This is its specification.
//!
//! ```text
//! spool/
//!   lock                        held by the collector that uses it
//!   acknowledged                JSON: the newest confirmed batch; replaced by rename
//!   newest                      the head of the newest record once more: see the module `newest`
//!   losses                      JSON: which losses which batch counts: see the module `losses`
//!   00000000000000000001.spool  a segment, named by the number of its first batch
//!   quarantine/N.batch          a copy of a batch that ingest refused
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
//! - **Damage** elsewhere: reading goes on at the next good record. What lies between is missed by its sequence numbers, unless
//!   it had been confirmed.
//! - **Doubt**: a batch that is damaged, or that ingest refuses, may be stored all the same: it was sent before, by this process
//!   or one before it, and the answer was lost. Only ingest knows, and it takes no batch that does not follow the one before. So
//!   the next batch is sent without a word of it. Is that confirmed, then ingest has what is in doubt; does it say which batch is
//!   its last, then those behind are lost. After a crash the same are in doubt: the damage is found again, and what was refused lies
//!   in quarantine.
//! - **Full**: when the segments exceed the bytes allowed, the oldest is given up of which no batch can be on its way or in
//!   doubt, and what it held is counted as lost, per server.
//! - **Age**: where a limit is set, what was written longer ago is given up in the same way, segment by segment, when the
//!   next batch is appended.
//! - **Losses** are told by [`Spool::take_lost`], the numbers of the lost batches by [`Spool::lost_batches`]. What they are
//!   known by (damage, a refused batch, a given-up segment) stays until [`Spool::settle_lost`] says that a batch that tells them
//!   is on disk. `losses` says before that which batch it is, so that after a crash in between nothing is told twice. Batches
//!   behind a loss are not shipped before: once a later one is confirmed, nothing on disk would tell of those that never were.

mod acknowledged;
mod doubt;
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
use std::io;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};

use crate::seal::{Link, SealedBatch};
use acknowledged::{ACKNOWLEDGED, Acknowledged};
use doubt::{Doubt, Doubtful};
pub use losses::ToldGap;
use losses::{Hole, Losses};
use newest::Newest;
use quarantine::Quarantine;
use record::Head;
pub use record::RingMark;
use scan::Scan;
use segment::{Entry, Segments};
use uncounted::Uncounted;

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
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    pub events: u64,
    pub gaps: Vec<ToldGap>,
    /// Ends are without.
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
    doubt: Doubt,
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
        for hole in losses.holes() {
            scan.remove(hole)?;
        }
        let acknowledged = scan.confirmed();
        let mut doubt = Doubt::default();
        for hole in scan.missing() {
            let held = losses.held_in(&hole, losses.not_counted_in(&hole));
            if held != Held::default() || !losses.is_told(&hole) {
                doubt.add(Doubtful::Damaged(hole));
            }
        }
        scan.entries.retain(|entry| entry.head.number > acknowledged);
        scan.entries.retain(|entry| {
            let is_refused = quarantine.has(entry.head.number);
            if is_refused {
                doubt.add(Doubtful::Refused(*entry));
            }
            !is_refused
        });
        let mut segments = Segments::open(directory, scan.segments, recovery.link.number, limit_bytes)?;
        segments.delete_confirmed(acknowledged)?;
        let spool = Self {
            directory: directory.into(),
            segments,
            waiting: scan.entries,
            acknowledged,
            newest,
            losses,
            doubt,
            uncounted: Uncounted::default(),
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
        self.run(None, batches, events)
    }

    /// The same of those that follow batch `number`, which is on its way. None when the first of them cannot be read.
    pub fn run_behind(&self, number: u64, batches: usize, events: u32) -> Vec<Waiting> {
        self.run(Some(number), batches, events).unwrap_or_default()
    }

    fn run(&self, behind: Option<u64>, batches: usize, events: u32) -> Result<Vec<Waiting>, SpoolError> {
        let mut run = Vec::<Waiting>::new();
        let mut room = events;
        let mut last = behind;
        let segment = self.waiting.front().map_or(0, |entry| entry.segment);
        let is_before = |entry: &&Entry| behind.is_some_and(|number| entry.head.number <= number);
        for entry in self.waiting.iter().skip_while(is_before).take(batches) {
            let Head { number, event_count, .. } = entry.head;
            let follows = last.is_none_or(|last| number == last + 1 && entry.segment == segment);
            let has_room = run.is_empty() || event_count <= room;
            if !follows || !has_room || self.uncounted.is_before(number) {
                break;
            }
            match self.read(entry) {
                Err(error) if run.is_empty() => return Err(error),
                Err(_) => break,
                Ok(waiting) if run.is_empty() => run.push(waiting),
                Ok(waiting) => {
                    room -= event_count;
                    run.push(waiting);
                }
            }
            last = Some(number);
        }
        Ok(run)
    }

    /// Batches and bytes that are not confirmed.
    pub fn backlog(&self) -> (usize, u64) {
        (self.waiting.len(), self.waiting.iter().map(|entry| entry.head.record_bytes()).sum())
    }

    /// Ingest has confirmed all batches up to `number`, those before it that are in doubt with them.
    pub fn confirm(&mut self, number: u64) -> Result<(), SpoolError> {
        while let Some(doubtful) = self.doubt.first_before(number) {
            if let Doubtful::Refused(entry) = doubtful {
                tracing::info!(
                    batch = entry.head.number,
                    "ingest has a batch that was refused when it came again"
                );
                self.quarantine.remove(entry.head.number)?;
            }
            self.doubt.pop_first();
        }
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

    /// Ingest does not have batches `from` to `to`: those of them that are in doubt are lost. `next_sequence`: that of the first
    /// event that it does not have, where it says so.
    pub fn declare_missing(&mut self, from: u64, to: u64, next_sequence: Option<u64>) {
        for doubtful in self.doubt.take_between(from, to) {
            let Some(hole) = doubtful.hole().behind(from, next_sequence.unwrap_or(0)) else { continue };
            let held = self.losses.held_in(&hole, self.losses.not_counted_in(&hole));
            let bytes = match doubtful {
                Doubtful::Refused(entry) => self.read(&entry).ok().map(|waiting| waiting.bytes),
                Doubtful::Damaged(_) => None,
            };
            self.uncounted.note_told(&held.lost_batches);
            let lost = match bytes {
                Some(bytes) => Lost::Refused { batch: LostBatch { bytes, held } },
                None => Lost::Corrupt { events: held.events, gaps: held.gaps },
            };
            self.uncounted.note(hole, None, [lost]);
        }
    }

    /// Takes batch `number`, the oldest one, out of those that wait, since ingest will never accept it or since it cannot be read:
    /// from now on it is in doubt.
    pub fn set_aside(&mut self, number: u64) -> Result<(), SpoolError> {
        let Some(entry) = self.waiting.front().filter(|entry| entry.head.number == number).copied() else {
            return Ok(());
        };
        let doubtful = match self.read(&entry) {
            Ok(Waiting { bytes, .. }) => {
                self.quarantine.add(number, &bytes)?;
                Doubtful::Refused(entry)
            }
            Err(_) => Doubtful::Damaged(entry.hole()),
        };
        self.doubt.add(doubtful);
        self.waiting.pop_front();
        Ok(())
    }

    /// What a batch holds, without reading it.
    fn held_by(&self, entry: &Entry) -> Held {
        self.losses.held_in(&entry.hole(), entry.head.event_count.into())
    }

    fn read(&self, entry: &Entry) -> Result<Waiting, SpoolError> {
        let path = self.segments.path_of(entry);
        entry.read(path.ok_or(SpoolError::Damaged { number: entry.head.number })?)
    }

    /// Gives up segments until what is left is within the limits.
    fn give_up(&mut self) {
        loop {
            let oldest = self.waiting.front().map_or(0, |entry| entry.segment);
            let may_be_stored = |first, next| first <= oldest || self.doubt.reaches_into(first, next);
            let Some(segment) = self.segments.give_up(may_be_stored) else { return };
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
            self.uncounted.note(hole, Some(segment.path), lost);
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

fn file_error(path: &Path) -> impl FnOnce(io::Error) -> SpoolError {
    let path = path.to_path_buf();
    move |source| SpoolError::File { path, source }
}

#[cfg(test)]
mod tests;
