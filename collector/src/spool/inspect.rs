//! A spool as it lies on disk, for people: nothing is changed, so that it can be looked at while a collector uses it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use super::losses::Losses;
use super::newest::Newest;
use super::quarantine::{self, number_of};
use super::record::HEAD_BYTES;
use super::scan::Scan;
use super::segment::Entry;
use super::{LOCK, SpoolError, Waiting, file_error, files};

/// What lies in a spool.
#[derive(Debug)]
pub struct Contents {
    /// Whether a collector uses it: then its end may be in the making, and what is said here may be over.
    pub in_use: bool,
    /// Number of the newest batch that ingest has confirmed; 0: none.
    pub confirmed: u64,
    pub segments: Vec<Segment>,
    /// Batches that are missing before, between or behind those that are there, and are not confirmed.
    pub missing: Vec<Missing>,
    pub quarantine: Vec<Quarantined>,
}

/// One file.
#[derive(Debug)]
pub struct Segment {
    pub path: PathBuf,
    pub bytes: u64,
    pub records: Vec<Record>,
    /// Parts that hold no good record: from here, to here.
    pub damaged: Vec<(u64, u64)>,
}

/// One batch.
#[derive(Clone, Copy, Debug)]
pub struct Record {
    pub number: u64,
    pub first_sequence: u64,
    pub events: u32,
    /// Where it lies in its segment, with its head.
    pub from: u64,
    pub to: u64,
    /// A batch counts it as lost, so it is not sent.
    is_counted: bool,
    entry: Entry,
}

/// Batches that are not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missing {
    pub first: u64,
    pub last: u64,
    /// Events and gaps in them that no batch counts as lost yet. One does once ingest has said that it does not have them.
    pub not_counted: u64,
}

/// A batch that ingest refused.
#[derive(Debug, PartialEq, Eq)]
pub struct Quarantined {
    pub path: PathBuf,
    pub number: u64,
}

impl Contents {
    /// Reads the spool in `directory`.
    pub fn read(directory: &Path) -> Result<Self, SpoolError> {
        let scan = Scan::read(directory, Newest::read(directory), false)?;
        let losses = Losses::open(directory, &scan);
        let missing = scan.missing().map(|hole| Missing {
            first: hole.batches.0,
            last: hole.batches.1 - 1,
            not_counted: losses.not_counted_in(&hole),
        });
        let mut segments = Vec::new();
        for segment in &scan.segments {
            let records = scan.entries.iter().filter(|entry| entry.segment == segment.first);
            let record = |entry: &Entry| Record::new(entry, losses.is_counted(entry.head.number));
            let records = records.map(record).collect();
            segments.push(Segment::new(&segment.path, records)?);
        }
        Ok(Self {
            in_use: is_in_use(directory)?,
            confirmed: scan.confirmed(),
            missing: missing.collect(),
            segments,
            quarantine: quarantined(&directory.join(quarantine::DIRECTORY))?,
        })
    }

    /// Whether nothing is damaged, and nothing missing that is not counted as lost. The last segment of a spool in use is
    /// not looked at: it may be in the making.
    pub fn is_whole(&self) -> bool {
        let checked = self.segments.len() - usize::from(self.in_use && !self.segments.is_empty());
        let is_counted = self.missing.iter().all(|missing| missing.not_counted == 0);
        is_counted && self.segments[..checked].iter().all(|segment| segment.damaged.is_empty())
    }

    /// Batches that are there, not confirmed and not counted as lost, oldest first.
    pub fn waiting(&self) -> impl Iterator<Item = &Record> {
        self.waiting_in_segments().map(|(_, record)| record)
    }

    /// The same, each as it was sealed.
    pub fn read_waiting(&self) -> impl Iterator<Item = Result<Waiting, SpoolError>> {
        self.waiting_in_segments().map(|(segment, record)| record.entry.read(&segment.path))
    }

    fn waiting_in_segments(&self) -> impl Iterator<Item = (&Segment, &Record)> {
        let records =
            self.segments.iter().flat_map(|segment| segment.records.iter().map(move |r| (segment, r)));
        records.filter(|(_, record)| record.number > self.confirmed && !record.is_counted)
    }
}

impl Record {
    fn new(entry: &Entry, is_counted: bool) -> Self {
        let from = entry.offset - HEAD_BYTES as u64;
        Self {
            number: entry.head.number,
            first_sequence: entry.head.first_sequence,
            events: entry.head.event_count,
            from,
            to: from + entry.head.record_bytes(),
            is_counted,
            entry: *entry,
        }
    }
}

impl Segment {
    fn new(path: &Path, records: Vec<Record>) -> Result<Self, SpoolError> {
        let bytes = fs::metadata(path).map_err(file_error(path))?.len();
        let starts = records.iter().map(|record| record.from).chain([bytes]);
        let ends = [0].into_iter().chain(records.iter().map(|record| record.to));
        let damaged = ends.zip(starts).filter(|(from, to)| from < to).collect();
        Ok(Self { path: path.into(), bytes, records, damaged })
    }
}

/// Whether another holds the lock. It is not kept.
fn is_in_use(directory: &Path) -> Result<bool, SpoolError> {
    let path = directory.join(LOCK);
    if !path.exists() {
        return Ok(false);
    }
    let lock = File::open(&path).map_err(file_error(&path))?;
    Ok(Flock::lock(lock, FlockArg::LockSharedNonblock).is_err())
}

/// What lies in the quarantine in `directory`.
pub fn quarantined(directory: &Path) -> Result<Vec<Quarantined>, SpoolError> {
    let mut found = Vec::new();
    if !directory.exists() {
        return Ok(found);
    }
    for path in files(directory, quarantine::EXTENSION)? {
        let Some(number) = number_of(&path) else { continue };
        found.push(Quarantined { path, number });
    }
    found.sort_by_key(|quarantined| quarantined.number);
    Ok(found)
}
