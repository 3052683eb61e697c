//! Reading a spool back at the start: which records are good, what is missing between them, where to go on.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::acknowledged::Acknowledged;
use super::losses::Hole;
use super::quarantine::number_of;
use super::record::{HEAD_BYTES, Head, RingMark};
use super::segment::{self, Entry, SEGMENT_BYTES, Segment};
use super::{SpoolError, file_error};
use crate::seal::Link;

/// More batches than one segment can hold.
const MOST_DAMAGED: u64 = SEGMENT_BYTES / HEAD_BYTES as u64;

/// What lies in a spool.
#[derive(Default)]
pub struct Scan {
    pub acknowledged: Option<Acknowledged>,
    pub segments: VecDeque<Segment>,
    pub entries: VecDeque<Entry>,
    pub newest: Option<Head>,
    /// Batches that are missing before the first record, between two, or behind the last.
    holes: Vec<Hole>,
}

impl Scan {
    /// Reads the spool in `directory`, of which `noted` is the newest record that ever was. `repair`: a torn tail is cut.
    pub fn read(directory: &Path, noted: Option<Head>, repair: bool) -> Result<Self, SpoolError> {
        let mut scan = Self::default();
        let paths = segment::paths(directory)?;
        let count = paths.len();
        for (position, path) in paths.into_iter().enumerate() {
            scan.segment(path, repair && position + 1 == count)?;
        }
        scan.acknowledged = Acknowledged::read(directory, &scan)?;
        scan.note_before();
        scan.note_tail(noted);
        Ok(scan)
    }

    /// Number of the newest batch that is confirmed; 0: none is.
    pub fn confirmed(&self) -> u64 {
        self.acknowledged.map_or(0, |acknowledged| acknowledged.number)
    }

    /// The batches that are missing and not confirmed.
    pub fn missing(&self) -> impl Iterator<Item = Hole> {
        let next_sequence = self.acknowledged.map_or(0, |acknowledged| acknowledged.next_sequence);
        self.holes.iter().filter_map(move |hole| hole.behind(self.confirmed() + 1, next_sequence))
    }

    fn segment(&mut self, path: PathBuf, cut: bool) -> Result<(), SpoolError> {
        let mut bytes = Vec::new();
        File::open(&path).and_then(|mut file| file.read_to_end(&mut bytes)).map_err(file_error(&path))?;
        let Some(first) = number_of(&path) else { return Ok(()) };
        let mut good = 0;
        let mut last_number = 0;
        while let Some((at, head)) = self.next_good(&bytes, good) {
            self.note_missing(&head);
            self.entries.push_back(Entry { head, offset: (at + HEAD_BYTES) as u64, segment: first });
            self.newest = Some(head);
            last_number = head.number;
            good = at + HEAD_BYTES + head.length as usize;
        }
        if cut && good < bytes.len() {
            let file = File::options().write(true).open(&path).map_err(file_error(&path))?;
            file.set_len(good as u64).and_then(|()| file.sync_all()).map_err(file_error(&path))?;
        }
        let written = written(&path);
        self.segments.push_back(Segment { first, path, bytes: good as u64, last_number, written });
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

    /// Numbers that no record has are those of a damaged part, or of a segment that was given up.
    fn note_missing(&mut self, head: &Head) {
        let Some(newest) = &self.newest else { return };
        let expected = newest.next_sequence();
        if head.number > newest.number + 1 {
            let sequences = (expected, head.first_sequence.max(expected));
            self.holes.push(Hole { batches: (newest.number + 1, head.number), sequences });
        }
    }

    /// The batches between the newest that was confirmed and the first good record: given up, or damaged.
    fn note_before(&mut self) {
        let (Some(acknowledged), Some(first)) = (self.acknowledged, self.entries.front()) else { return };
        let first = first.head;
        let sequences = (acknowledged.next_sequence, first.first_sequence.max(acknowledged.next_sequence));
        if first.number > acknowledged.number + 1 {
            self.holes.insert(0, Hole { batches: (acknowledged.number + 1, first.number), sequences });
        }
    }

    /// What was in the spool behind the last good record, when `noted` is the newest that ever was.
    fn note_tail(&mut self, noted: Option<Head>) {
        let Some(noted) = noted else { return };
        if self.newest.is_some_and(|newest| newest.number >= noted.number) {
            return;
        }
        let (number, sequence) =
            self.newest.map_or((1, 1), |newest| (newest.number + 1, newest.next_sequence()));
        if noted.number > self.confirmed() {
            let batches = (number, noted.number + 1);
            self.holes.push(Hole { batches, sequences: (sequence, noted.next_sequence()) });
        }
        self.newest = Some(noted);
    }

    /// Removes the batches in a hole that is counted, and the segments that hold no others, but never the last one.
    pub fn remove(&mut self, hole: &Hole) -> Result<(), SpoolError> {
        self.entries.retain(|entry| !hole.has_batch(entry.head.number));
        let mut position = 0;
        while let (Some(segment), Some(next)) = (self.segments.get(position), self.segments.get(position + 1))
        {
            let first = segment.first;
            if !hole.has_batch(first) || !hole.has_batch(segment.last_before(next.first)) {
                position += 1;
                continue;
            }
            segment.delete()?;
            self.segments.remove(position);
        }
        Ok(())
    }

    /// Where the chain goes on.
    pub fn link(&self) -> Link {
        let confirmed = self.acknowledged.map_or(Link::FIRST, |acknowledged| acknowledged.link());
        let newest = self.newest.as_ref().map_or(Link::FIRST, |newest| Link {
            number: newest.number + 1,
            sequence: newest.next_sequence(),
            previous_hash: newest.batch_hash,
        });
        if newest.number >= confirmed.number { newest } else { confirmed }
    }

    /// The hash of batch `number`, where its record is good.
    pub fn batch_hash(&self, number: u64) -> Option<[u8; 32]> {
        self.entries.iter().find(|entry| entry.head.number == number).map(|entry| entry.head.batch_hash)
    }

    pub fn ring(&self) -> Option<RingMark> {
        self.newest.as_ref().and_then(Head::ring)
    }
}

/// When a file was written, by the clock of the system. Where that was set back since, the file counts as new.
fn written(path: &Path) -> Instant {
    let age = fs::metadata(path).and_then(|file| file.modified()).ok().and_then(|time| time.elapsed().ok());
    let now = Instant::now();
    age.and_then(|age| now.checked_sub(age)).unwrap_or(now)
}
