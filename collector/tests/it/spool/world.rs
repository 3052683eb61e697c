//! A collector and an ingest as the spool knows them, on a small file system in memory.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::{self, File};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use tempfile::TempDir;
use uuid::Uuid;
use whence_collector::seal::{Link, SealedBatch};
use whence_collector::spool::{Lost, RingMark, Spool, SpoolError, ToldGap, Waiting};
use whence_model::{LossReason, Timestamp};
use whence_testkit::sample;

/// Some segments, and room to fill up.
const DISK_BYTES: u64 = 256 << 10;
/// Bytes that the spool may hold: small, so that it gives segments up.
const LIMIT_BYTES: u64 = 24 << 10;

/// How far the writing of a batch came.
#[derive(Clone, Copy, Debug)]
pub enum Tear {
    BeforeIt,
    /// So much of its record is there.
    Within {
        permille: u32,
    },
    /// All of it, but nobody was told.
    BehindIt,
}

/// What came of it all, in sequence numbers.
#[derive(Debug)]
pub struct Told {
    /// Those that were given.
    pub made: u64,
    /// Those of the batches that ingest has.
    pub delivered: u64,
    /// Those that the gaps in these batches count.
    pub lost: u64,
}

impl Told {
    /// Whether each is with ingest or counted as lost, and none is both.
    pub fn is_exact(&self) -> bool {
        self.delivered + self.lost == self.made
    }

    /// Whether each is with ingest or counted as lost; some may be both.
    pub fn is_complete(&self) -> bool {
        self.delivered + self.lost >= self.made
    }
}

/// A batch as a loss tells of it.
#[derive(Clone)]
struct Batch {
    first_sequence: u64,
    events: u64,
    gaps: Vec<ToldGap>,
    /// Those that it tells to be lost.
    lost_batches: Vec<RangeInclusive<u64>>,
}

impl Batch {
    fn lost(&self) -> u64 {
        self.gaps.iter().map(|gap| gap.events).sum()
    }
}

/// What ingest has of a number.
enum Stored {
    Batch { bytes: Vec<u8>, told: Batch },
    Missing,
}

pub struct World {
    spool: Option<Spool>,
    directory: PathBuf,
    filler: PathBuf,
    link: Link,
    /// The kernel's ring, which ends with the power.
    ring: [u8; 16],
    /// Events that were read off this ring and are in the spool.
    committed: u64,
    /// A batch that could not be written, with the events that it takes from the ring.
    pending: Option<(SealedBatch, u64)>,
    /// What batches hold, by what they are made of: ingest and the collector read it in them.
    batches: BTreeMap<Vec<u8>, Batch>,
    stored: BTreeMap<u64, Stored>,
    /// Versions of the files that are not synced, oldest first.
    unsynced: BTreeMap<&'static str, Vec<Option<Vec<u8>>>>,
    /// Sequence number behind the newest batch that ingest has.
    next_sequence: u64,
    /// The batches that the collector says will never come.
    declared: Option<(u64, u64)>,
    _disk: Disk,
}

/// Mounted for as long as it lives.
struct Disk(TempDir);

impl Disk {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let size = format!("size={DISK_BYTES}");
        mount(Some("tmpfs"), directory.path(), Some("tmpfs"), MsFlags::empty(), Some(size.as_str()))
            .unwrap_or_else(|error| {
                panic!("cannot mount a file system: {error}; this test must run as root")
            });
        Self(directory)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        umount2(self.0.path(), MntFlags::MNT_DETACH).unwrap();
    }
}

impl World {
    pub fn new() -> Self {
        let disk = Disk::new();
        let mut world = Self {
            spool: None,
            directory: disk.0.path().join("spool"),
            filler: disk.0.path().join("filler"),
            link: Link::FIRST,
            ring: [0; 16],
            committed: 0,
            pending: None,
            batches: BTreeMap::new(),
            stored: BTreeMap::new(),
            unsynced: ["acknowledged", "losses", "newest"].map(|name| (name, Vec::new())).into(),
            next_sequence: 1,
            declared: None,
            _disk: disk,
        };
        world.restart();
        world
    }

    /// Seals a batch of what the ring holds and of what was lost, and writes it.
    pub fn seal(&mut self, events: u64, text_bytes: usize) {
        if self.pending.is_none() {
            self.make(events, text_bytes);
        }
        self.write();
    }

    fn make(&mut self, events: u64, text_bytes: usize) {
        let gaps = self.take_lost();
        let number = self.link.number;
        let event_count = events + gaps.len() as u64;
        let name = Uuid::now_v7();
        let mut batch_hash = [0; 32];
        batch_hash[..16].copy_from_slice(name.as_bytes());
        let mut bytes = name.as_bytes().to_vec();
        bytes.resize(bytes.len() + text_bytes, 1);
        let batch = SealedBatch {
            number,
            first_sequence: self.link.sequence,
            event_count: u32::try_from(event_count).unwrap(),
            batch_hash,
            gaps: gaps.clone(),
            bytes,
        };
        let first_sequence = batch.first_sequence;
        let lost_batches = self.spool.as_ref().unwrap().lost_batches();
        self.batches
            .insert(batch.bytes.clone(), Batch { first_sequence, events: event_count, gaps, lost_batches });
        self.pending = Some((batch, events));
    }

    /// As the collector does: a gap for what was lost, and one for each that was in it.
    fn take_lost(&mut self) -> Vec<ToldGap> {
        let mut gaps = Vec::new();
        let mut tell = |reason, events| {
            if events > 0 {
                gaps.push(gap(reason, events));
            }
        };
        let mut retold = Vec::new();
        for lost in self.spool.as_mut().unwrap().take_lost() {
            match lost {
                Lost::Corrupt { events, gaps } => {
                    tell(LossReason::SpoolCorrupt, events);
                    retold.extend(gaps);
                }
                Lost::Refused { batch } => {
                    tell(LossReason::Refused, self.batches[&batch.bytes].events);
                    retold.extend(self.batches[&batch.bytes].gaps.clone());
                }
                Lost::Full { batches } => {
                    tell(
                        LossReason::SpoolFull,
                        batches.iter().map(|batch| self.batches[&batch.bytes].events).sum(),
                    );
                    retold.extend(batches.iter().flat_map(|batch| self.batches[&batch.bytes].gaps.clone()));
                }
            }
        }
        gaps.extend(retold);
        gaps
    }

    /// Writes the batch that is to be written; it stays when the disk has no room.
    fn write(&mut self) {
        let Some((batch, events)) = &self.pending else { return };
        let mark = RingMark { position: self.committed + events, ring: self.ring };
        let spool = self.spool.as_mut().unwrap();
        match spool.append(batch, Some(&mark)) {
            Ok(()) => {
                spool.settle_lost();
                self.committed = mark.position;
                self.link = behind(batch);
                self.pending = None;
            }
            Err(SpoolError::File { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }

    pub fn kill_in_seal(&mut self, events: u64, text_bytes: usize, tear: Tear) {
        if self.pending.is_none() {
            self.make(events, text_bytes);
        }
        let Some((batch, _)) = self.pending.clone() else { return };
        let before = Snapshot::take(&self.directory);
        let settles = matches!(tear, Tear::BehindIt);
        let mark = RingMark { position: self.committed + self.pending.as_ref().unwrap().1, ring: self.ring };
        let written = self.spool.as_mut().unwrap().append(&batch, Some(&mark)).is_ok();
        if written && !settles {
            before.tear(&self.directory, tear);
        }
        self.restart();
    }

    /// Ingest takes the oldest batch, and says so when `answers`.
    pub fn ship(&mut self, answers: bool) {
        self.ship_run(1, answers);
    }

    /// Ingest takes so many of the oldest batches at once, and says so when `answers`.
    pub fn ship_run(&mut self, batches: usize, answers: bool) {
        self.write();
        let Some(spool) = &mut self.spool else { return };
        let run = match spool.oldest_run(batches, u32::MAX) {
            Ok(run) => run,
            Err(SpoolError::Damaged { number }) => return ignore_full(spool.set_aside(number)),
            Err(error) => panic!("{error}"),
        };
        let (Some(first), Some(last)) = (run.first(), run.last()) else { return };
        let (first, last) = (first.number, last.number);
        let answer = self.take(first, run);
        let spool = self.spool.as_mut().unwrap();
        match answer {
            _ if !answers => {}
            Ok(()) => {
                self.declared = None;
                ignore_full(spool.confirm(last));
            }
            Err(newest) => {
                self.declared = Some((newest + 1, first - 1));
                spool.declare_missing(newest + 1, first - 1, Some(self.next_sequence));
            }
        }
    }

    /// Ingest stores these batches, or says which is its newest, when they do not follow it.
    fn take(&mut self, first: u64, run: Vec<Waiting>) -> Result<(), u64> {
        let newest = self.stored.last_key_value().map_or(0, |(number, _)| *number);
        let missing = (newest + 1, first.saturating_sub(1));
        if newest + 1 < first {
            if self.declared != Some(missing) {
                return Err(newest);
            }
            self.stored.extend((newest + 1..first).map(|number| (number, Stored::Missing)));
        }
        for Waiting { number, bytes, .. } in run {
            if let Some(Stored::Batch { bytes: stored, .. }) = self.stored.get(&number) {
                assert!(*stored == bytes, "another batch {number}");
                continue;
            }
            let told = self.batches[&bytes].clone();
            self.next_sequence = self.next_sequence.max(told.first_sequence + told.events);
            // Also one that was declared missing, and comes after all.
            self.stored.insert(number, Stored::Batch { bytes, told });
        }
        Ok(())
    }

    /// Ingest will never accept the oldest batch.
    pub fn refuse(&mut self) {
        self.write();
        let Some(spool) = &mut self.spool else { return };
        if let Ok(Some(waiting)) = spool.oldest() {
            ignore_full(spool.set_aside(waiting.number));
        }
    }

    /// The collector is killed, and starts again.
    pub fn restart(&mut self) {
        self.spool = None;
        self.pending = None;
        self.declared = None;
        let opened = Spool::open(&self.directory, LIMIT_BYTES).or_else(|_| {
            // Without room it cannot start; somebody makes some.
            self.free_disk();
            Spool::open(&self.directory, LIMIT_BYTES)
        });
        let (spool, recovery) = opened.unwrap();
        let position = recovery.ring.filter(|mark| mark.ring == self.ring).map_or(0, |mark| mark.position);
        assert!(position >= self.committed, "events are read again that were committed");
        self.committed = position;
        self.link = recovery.link;
        self.spool = Some(spool);
    }

    pub fn fill_disk(&mut self, bytes_left: u64) {
        self.free_disk();
        let status = nix::sys::statvfs::statvfs(self.directory.parent().unwrap()).unwrap();
        let free = status.blocks_available() * status.fragment_size();
        fs::write(&self.filler, vec![1; usize::try_from(free.saturating_sub(bytes_left)).unwrap()]).unwrap();
    }

    pub fn free_disk(&mut self) {
        let _ = fs::remove_file(&self.filler);
    }

    /// Keeps what the files that are not synced hold, as it may be found after a loss of power.
    pub fn remember(&mut self) {
        for (name, versions) in &mut self.unsynced {
            versions.push(fs::read(self.directory.join(name)).ok());
        }
    }

    /// Brings back what these files held so many steps ago, and starts the collector again.
    pub fn lose_power(&mut self, files: [(&str, usize); 3]) {
        self.free_disk();
        self.ring[0] += 1;
        self.committed = 0;
        for (name, ago) in files {
            let versions = &self.unsynced[name];
            let version = versions.iter().rev().nth(ago).cloned().flatten();
            let path = self.directory.join(name);
            match version {
                Some(contents) => fs::write(path, contents).unwrap(),
                None => drop(fs::remove_file(path)),
            }
        }
        self.restart();
    }

    /// Changes a bit of a segment while no collector runs.
    pub fn rot(&mut self, place: u32, bit: u8) {
        let segments = segments(&self.directory);
        let total: u64 = segments.iter().map(|(_, bytes)| bytes.len() as u64).sum();
        if total > 0 {
            let mut at = usize::try_from(u64::from(place) % total).unwrap();
            for (path, mut bytes) in segments {
                if at < bytes.len() {
                    bytes[at] ^= 1 << bit;
                    // In place: a full disk has no room for a new one.
                    std::os::unix::fs::FileExt::write_all_at(
                        &File::options().write(true).open(path).unwrap(),
                        &bytes[at..=at],
                        at as u64,
                    )
                    .unwrap();
                    break;
                }
                at -= bytes.len();
            }
        }
        self.restart();
    }

    /// Everything goes well from now on, until nothing waits and nothing is to be told.
    pub fn settle(mut self) -> Told {
        self.free_disk();
        self.restart();
        for _ in 0..20 {
            self.seal(1, 0);
            for _ in 0..1000 {
                self.ship(true);
                if self.spool.as_ref().unwrap().backlog().0 == 0 {
                    break;
                }
            }
        }
        assert_eq!(self.spool.as_ref().unwrap().backlog().0, 0);
        let batches = self.stored.values().filter_map(|stored| match stored {
            Stored::Batch { told, .. } => Some(told),
            Stored::Missing => None,
        });
        let (mut delivered, mut lost) = (0, 0);
        let mut unnamed: BTreeSet<u64> = self.stored.iter().filter_map(missing).collect();
        for batch in batches {
            delivered += batch.events;
            lost += batch.lost();
            unnamed.retain(|number| !batch.lost_batches.iter().any(|lost| lost.contains(number)));
        }
        assert_eq!(unnamed, BTreeSet::new(), "batches are missing, and no batch tells that they are lost");
        Told { made: self.link.sequence - 1, delivered, lost }
    }
}

fn missing((number, stored): (&u64, &Stored)) -> Option<u64> {
    matches!(stored, Stored::Missing).then_some(*number)
}

fn behind(batch: &SealedBatch) -> Link {
    Link {
        number: batch.number + 1,
        sequence: batch.first_sequence + u64::from(batch.event_count),
        previous_hash: batch.batch_hash,
    }
}

fn gap(reason: LossReason, events: u64) -> ToldGap {
    ToldGap { server: sample::server(), reason, events, from: Timestamp(1), to: Timestamp(2) }
}

fn ignore_full(done: Result<(), SpoolError>) {
    // Without room the answer is forgotten, and the batch is sent again.
    if let Err(error) = done {
        assert!(matches!(error, SpoolError::File { .. }), "{error}");
    }
}

/// All segments with their contents, in order.
fn segments(directory: &Path) -> VecDeque<(PathBuf, Vec<u8>)> {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "spool"));
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

/// The spool before a batch was written.
struct Snapshot {
    last: Option<(PathBuf, usize)>,
    newest: Vec<u8>,
}

impl Snapshot {
    fn take(directory: &Path) -> Self {
        let last = segments(directory).pop_back().map(|(path, bytes)| (path, bytes.len()));
        Self { last, newest: fs::read(directory.join("newest")).unwrap_or_default() }
    }

    /// Takes back what was written of it, but for the part that was reached.
    fn tear(&self, directory: &Path, tear: Tear) {
        let Some((path, bytes)) = segments(directory).pop_back() else { return };
        let before = match &self.last {
            Some((last, before)) if *last == path => *before,
            _ => 0,
        };
        let kept = match tear {
            Tear::Within { permille } => (bytes.len() - before) * permille as usize / 1000,
            Tear::BeforeIt | Tear::BehindIt => 0,
        };
        let file = File::options().write(true).open(&path).unwrap();
        file.set_len((before + kept) as u64).unwrap();
        let newest = File::options().write(true).open(directory.join("newest")).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&newest, &self.newest, 0).unwrap();
    }
}
