//! The files of batches: records are appended to the last one, read back from any, and deleted a file at a time.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::losses::Hole;
use super::record::{HEAD_BYTES, Head};
use super::{SpoolError, Waiting, file_error, files};

/// Size at which a new segment begins.
pub const SEGMENT_BYTES: u64 = 16 << 20;
/// At least so many segments are made of the bytes allowed.
const SEGMENTS: u64 = 8;

/// One file.
pub struct Segment {
    /// Number of its first batch.
    pub first: u64,
    pub path: PathBuf,
    pub bytes: u64,
    /// 0: it has no good record.
    pub last_number: u64,
    /// When its newest record was written.
    pub written: Instant,
}

impl Segment {
    /// Makes the file that begins with batch `first`.
    fn make(directory: &Path, first: u64) -> Result<(Self, File), SpoolError> {
        let path = path(directory, first);
        let made = File::options().create(true).write(true).truncate(true).open(&path);
        let file = made.map_err(file_error(&path))?;
        File::open(directory).and_then(|directory| directory.sync_all()).map_err(file_error(directory))?;
        Ok((Self { first, path, bytes: 0, last_number: 0, written: Instant::now() }, file))
    }

    fn open_to_append(&self) -> Result<File, SpoolError> {
        let mut file = File::options().write(true).open(&self.path).map_err(file_error(&self.path))?;
        file.seek(SeekFrom::End(0)).map_err(file_error(&self.path))?;
        Ok(file)
    }

    /// The last batch that it holds, or held, when the next segment begins with `next`: one that is damaged throughout may
    /// have held all up to that.
    pub fn last_before(&self, next: u64) -> u64 {
        if self.last_number == 0 { next - 1 } else { self.last_number }
    }

    pub fn delete(&self) -> Result<(), SpoolError> {
        fs::remove_file(&self.path).map_err(file_error(&self.path))
    }
}

/// One record.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    pub head: Head,
    /// Where its batch begins in its segment.
    pub offset: u64,
    /// Number of the first batch of its segment.
    pub segment: u64,
}

impl Entry {
    /// What is missing when it is gone.
    pub fn hole(&self) -> Hole {
        let Head { number, first_sequence, .. } = self.head;
        Hole { batches: (number, number + 1), sequences: (first_sequence, self.head.next_sequence()) }
    }

    /// Its batch, from its segment's file at `path`.
    pub fn read(&self, path: &Path) -> Result<Waiting, SpoolError> {
        let number = self.head.number;
        let mut bytes = vec![0; self.head.length as usize];
        let read = File::open(path).and_then(|mut file| {
            file.seek(SeekFrom::Start(self.offset))?;
            file.read_exact(&mut bytes)
        });
        read.map_err(file_error(path))?;
        if !self.head.matches(&bytes) {
            return Err(SpoolError::Damaged { number });
        }
        Ok(Waiting { number, events: self.head.event_count, bytes })
    }
}

/// All segments.
pub struct Segments {
    directory: PathBuf,
    limit_bytes: u64,
    limit_age: Option<Duration>,
    /// All but the last one.
    older: VecDeque<Segment>,
    last: Segment,
    file: File,
}

impl Segments {
    /// Goes on behind those that were found; batch `next` comes next.
    pub fn open(
        directory: &Path,
        mut found: VecDeque<Segment>,
        next: u64,
        limit_bytes: u64,
    ) -> Result<Self, SpoolError> {
        let (last, file) = match found.pop_back() {
            Some(last) => {
                let file = last.open_to_append()?;
                (last, file)
            }
            None => Segment::make(directory, next)?,
        };
        Ok(Self { directory: directory.into(), limit_bytes, limit_age: None, older: found, last, file })
    }

    pub fn limit_age(&mut self, age: Duration) {
        self.limit_age = Some(age);
    }

    fn all(&self) -> impl Iterator<Item = &Segment> {
        self.older.iter().chain([&self.last])
    }

    /// The number with which the oldest one begins.
    pub fn first(&self) -> u64 {
        self.older.front().unwrap_or(&self.last).first
    }

    /// The file that holds a record.
    pub fn path_of(&self, entry: &Entry) -> Option<&Path> {
        self.all().find(|segment| segment.first == entry.segment).map(|segment| segment.path.as_path())
    }

    /// Begins a segment with batch `next` when the last one is full; whether it was.
    pub fn roll(&mut self, next: u64) -> Result<bool, SpoolError> {
        let is_full = self.last.bytes >= SEGMENT_BYTES.min(self.limit_bytes / SEGMENTS);
        if is_full {
            let (segment, file) = Segment::make(&self.directory, next)?;
            self.older.push_back(std::mem::replace(&mut self.last, segment));
            self.file = file;
        }
        Ok(is_full)
    }

    /// Writes a record and returns when it is on disk.
    pub fn append(&mut self, head: Head, batch: &[u8]) -> Result<Entry, SpoolError> {
        let Self { last, file, .. } = self;
        let start = last.bytes;
        let written = file
            .write_all(&head.encode(batch))
            .and_then(|()| file.write_all(batch))
            .and_then(|()| file.sync_data());
        if let Err(source) = written {
            // A part of it may be there; the next attempt begins at the same place.
            let undone = file.set_len(start).and_then(|()| file.seek(SeekFrom::Start(start)));
            undone.map_err(file_error(&last.path))?;
            return Err(file_error(&last.path)(source));
        }
        last.bytes += head.record_bytes();
        last.last_number = head.number;
        last.written = Instant::now();
        Ok(Entry { head, offset: start + HEAD_BYTES as u64, segment: last.first })
    }

    /// Deletes the segments whose batches are all confirmed, but never the last, and never the newest record.
    pub fn delete_confirmed(&mut self, confirmed: u64) -> Result<(), SpoolError> {
        while let Some(segment) = self.older.front() {
            let next = self.older.get(1).unwrap_or(&self.last).first;
            let has_newer = self.all().skip(1).any(|segment| segment.last_number > 0);
            if segment.last_before(next) > confirmed || !has_newer {
                break;
            }
            segment.delete()?;
            self.older.pop_front();
        }
        Ok(())
    }

    /// Takes out the oldest of those that need not be kept, when there is too much or it is too old; never the last. `is_kept`
    /// is asked about the numbers with which a segment and the one behind it begin.
    pub fn give_up(&mut self, is_kept: impl Fn(u64, u64) -> bool) -> Option<Segment> {
        let ends = self.all().skip(1).map(|next| next.first);
        let place = self.older.iter().zip(ends).position(|(segment, next)| !is_kept(segment.first, next))?;
        let is_too_old = self.limit_age.is_some_and(|limit| self.older[place].written.elapsed() > limit);
        let bytes: u64 = self.all().map(|segment| segment.bytes).sum();
        if is_too_old || bytes > self.limit_bytes { self.older.remove(place) } else { None }
    }
}

/// The file that begins with batch `first`.
pub fn path(directory: &Path, first: u64) -> PathBuf {
    directory.join(format!("{first:020}.spool"))
}

/// The files of all segments, oldest first.
pub fn paths(directory: &Path) -> Result<Vec<PathBuf>, SpoolError> {
    let mut paths = files(directory, "spool")?;
    paths.sort();
    Ok(paths)
}
