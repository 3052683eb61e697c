//! What the specification says, on a real file system.

use whence_model::{LossReason, Timestamp};
use whence_testkit::sample;

use super::record::HEAD_BYTES;
use super::segment::SEGMENT_BYTES;
use super::*;

fn batch(number: u64, bytes: usize) -> SealedBatch {
    let first_sequence = (number - 1) * 10 + 1;
    let batch_hash = [u8::try_from(number % 251).unwrap(); 32];
    let bytes = vec![batch_hash[0]; bytes];
    SealedBatch { number, first_sequence, event_count: 10, batch_hash, gaps: Vec::new(), bytes }
}

/// The same when it is lost.
fn lost(number: u64, bytes: usize) -> LostBatch {
    LostBatch { bytes: batch(number, bytes).bytes, held: Held { events: 10, ..Held::default() } }
}

fn open(directory: &Path) -> (Spool, Recovery) {
    Spool::open(directory, 1 << 30).unwrap()
}

/// Puts batch `number` into the spool, which counts what was taken as lost.
fn count_lost(spool: &mut Spool, number: u64) {
    spool.append(&batch(number, 50), None).unwrap();
    spool.settle_lost();
}

/// What is lost when ingest says that it does not have these batches.
fn missed(spool: &mut Spool, from: u64, to: u64) -> Vec<Lost> {
    spool.declare_missing(from, to, None);
    spool.take_lost()
}

fn corrupt(events: u64) -> Vec<Lost> {
    vec![Lost::Corrupt { events, gaps: vec![] }]
}

fn drain(spool: &mut Spool) -> Vec<u64> {
    let mut numbers = Vec::new();
    while let Some(waiting) = spool.oldest().unwrap() {
        assert_eq!(waiting.bytes, batch(waiting.number, waiting.bytes.len()).bytes);
        numbers.push(waiting.number);
        spool.confirm(waiting.number).unwrap();
    }
    numbers
}

#[test]
fn batches_come_out_in_order_and_once() {
    let directory = tempfile::tempdir().unwrap();
    let (mut spool, recovery) = open(directory.path());
    assert_eq!(recovery, Recovery { link: Link::FIRST, ring: None });
    for number in 1..=5 {
        spool.append(&batch(number, 100), None).unwrap();
    }
    spool.confirm(1).unwrap();
    drop(spool);
    let (mut spool, recovery) = open(directory.path());
    assert_eq!(recovery.link, Link { number: 6, sequence: 51, previous_hash: [5; 32] });
    assert_eq!(drain(&mut spool), [2, 3, 4, 5]);
    drop(spool);
    let (spool, recovery) = open(directory.path());
    assert_eq!((recovery.link.number, spool.oldest().unwrap()), (6, None));
}

#[test]
fn batches_come_out_together_as_far_as_they_are_wanted_and_can_be_read() {
    let directory = tempfile::tempdir().unwrap();
    let (mut spool, _) = open(directory.path());
    for number in 1..=6 {
        spool.append(&batch(number, 100), None).unwrap();
    }
    let run = |spool: &Spool, batches, events| {
        let run = spool.oldest_run(batches, events)?;
        Ok::<_, SpoolError>(run.iter().map(|waiting| waiting.number).collect::<Vec<_>>())
    };
    assert_eq!(run(&spool, 4, 1000).unwrap(), [1, 2, 3, 4]);
    assert_eq!(run(&spool, 9, 29).unwrap(), [1, 2, 3]);
    assert_eq!(run(&spool, 9, 0).unwrap(), [1]);
    spool.confirm(2).unwrap();
    assert_eq!((run(&spool, 9, 1000).unwrap(), spool.backlog().0), (vec![3, 4, 5, 6], 4));

    flip(directory.path(), 1, 4 * (HEAD_BYTES + 100) + HEAD_BYTES);
    assert_eq!(run(&spool, 9, 1000).unwrap(), [3, 4]);
    spool.confirm(4).unwrap();
    assert!(matches!(run(&spool, 9, 1000), Err(SpoolError::Damaged { number: 5 })));
}

#[test]
fn the_ring_position_is_that_of_the_newest_batch() {
    let directory = tempfile::tempdir().unwrap();
    let (mut spool, _) = open(directory.path());
    let mark = RingMark { position: 77, ring: [9; 16] };
    spool.append(&batch(1, 10), Some(&mark)).unwrap();
    drop(spool);
    assert_eq!(open(directory.path()).1.ring, Some(mark));
}

#[test]
fn a_torn_tail_is_cut_at_every_byte() {
    for torn in 1..(HEAD_BYTES + 30) {
        let directory = tempfile::tempdir().unwrap();
        let (mut spool, _) = open(directory.path());
        spool.append(&batch(1, 30), None).unwrap();
        let newest = fs::read(directory.path().join("newest")).unwrap();
        spool.append(&batch(2, 30), None).unwrap();
        drop(spool);
        // The crash came before the second append was through.
        fs::write(directory.path().join("newest"), newest).unwrap();
        let path = segment::path(directory.path(), 1);
        let file = File::options().write(true).open(&path).unwrap();
        file.set_len(file.metadata().unwrap().len() - torn as u64).unwrap();
        let (mut spool, recovery) = open(directory.path());
        assert_eq!((recovery.link.number, spool.take_lost()), (2, vec![]), "{torn} bytes torn off");
        // The same batch is made again, and follows without a seam.
        spool.append(&batch(2, 30), None).unwrap();
        drop(spool);
        assert_eq!(drain(&mut open(directory.path()).0), [1, 2]);
    }
}

#[test]
fn damage_in_an_older_segment_is_counted() {
    let directory = tempfile::tempdir().unwrap();
    let (mut spool, _) = open(directory.path());
    let big = usize::try_from(SEGMENT_BYTES).unwrap() / 2;
    for number in 1..=4 {
        spool.append(&batch(number, big), None).unwrap();
    }
    drop(spool);
    let path = segment::path(directory.path(), 1);
    let mut bytes = fs::read(&path).unwrap();
    let middle = HEAD_BYTES + big + HEAD_BYTES + big / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).unwrap();
    let (mut spool, _) = open(directory.path());
    assert_eq!(missed(&mut spool, 2, 2), corrupt(10));
    count_lost(&mut spool, 5);
    assert_eq!(drain(&mut spool), [1, 3, 4, 5]);
}

#[test]
fn damage_before_good_records_of_the_last_segment_costs_one_batch() {
    for damaged_byte in [0, 3, 9, 30, HEAD_BYTES + 5] {
        let directory = tempfile::tempdir().unwrap();
        let (mut spool, _) = open(directory.path());
        for number in 1..=3 {
            spool.append(&batch(number, 50), None).unwrap();
        }
        drop(spool);
        let path = segment::path(directory.path(), 1);
        let mut bytes = fs::read(&path).unwrap();
        bytes[HEAD_BYTES + 50 + damaged_byte] ^= 0x40;
        fs::write(&path, bytes).unwrap();
        let (mut spool, _) = open(directory.path());
        assert_eq!(missed(&mut spool, 2, 2), corrupt(10), "byte {damaged_byte}");
        count_lost(&mut spool, 4);
        assert_eq!(drain(&mut spool), [1, 3, 4]);
    }
}

#[test]
fn confirmed_segments_are_deleted_but_not_the_last() {
    let directory = tempfile::tempdir().unwrap();
    let (mut spool, _) = open(directory.path());
    for number in 1..=4 {
        spool.append(&batch(number, usize::try_from(SEGMENT_BYTES).unwrap()), None).unwrap();
    }
    assert_eq!(drain(&mut spool), [1, 2, 3, 4]);
    assert_eq!(segment::paths(directory.path()).unwrap(), [segment::path(directory.path(), 4)]);
}

#[test]
fn a_full_spool_gives_up_all_but_its_oldest_and_keeps_it_until_that_is_counted() {
    let directory = tempfile::tempdir().unwrap();
    let small = 8 * 1000;
    let (mut spool, _) = Spool::open(directory.path(), small).unwrap();
    for number in 1..=11 {
        spool.append(&batch(number, 1000), None).unwrap();
    }
    let given_up: Vec<_> = (2..=5).map(|number| Lost::Full { batches: vec![lost(number, 1000)] }).collect();
    assert_eq!(spool.take_lost(), given_up);
    // The oldest may be on its way.
    assert_eq!(spool.oldest().unwrap().unwrap().number, 1);
    drop(spool);
    // Nobody had counted them: they are there, to be shipped or given up again.
    let (mut spool, _) = Spool::open(directory.path(), small).unwrap();
    assert_eq!(spool.backlog().0, 11);
    spool.append(&batch(12, 1000), None).unwrap();
    assert_eq!(spool.take_lost().len(), 5);
    spool.append(&batch(13, 1000), None).unwrap();
    // A crash now: the batch with their count is there, so they are not told again, nor shipped.
    drop(spool);
    let (mut spool, _) = Spool::open(directory.path(), 1 << 30).unwrap();
    assert_eq!(spool.take_lost(), []);
    assert_eq!(drain(&mut spool), [1, 7, 8, 9, 10, 11, 12, 13]);
}

#[test]
fn damage_is_told_once_and_not_when_it_was_confirmed_before() {
    let directory = tempfile::tempdir().unwrap();
    let (mut spool, _) = open(directory.path());
    for number in 1..=5 {
        spool.append(&batch(number, 50), None).unwrap();
    }
    spool.confirm(1).unwrap();
    spool.confirm(2).unwrap();
    drop(spool);
    flip(directory.path(), 1, HEAD_BYTES + 50 + 7);
    flip(directory.path(), 1, 3 * (HEAD_BYTES + 50) + 7);
    // Told until a batch counts it.
    for _ in 0..2 {
        assert_eq!(missed(&mut open(directory.path()).0, 4, 4), corrupt(10));
    }
    let (mut spool, _) = open(directory.path());
    assert_eq!(missed(&mut spool, 4, 4), corrupt(10));
    count_lost(&mut spool, 6);
    drop(spool);
    let (mut spool, _) = open(directory.path());
    assert_eq!(missed(&mut spool, 4, 4), []);
    drop(spool);
    // More of the same place.
    flip(directory.path(), 1, 4 * (HEAD_BYTES + 50) + 7);
    let (mut spool, _) = open(directory.path());
    assert_eq!(missed(&mut spool, 4, 5), corrupt(10));
    count_lost(&mut spool, 7);
    assert_eq!(drain(&mut spool), [3, 6, 7]);
}

#[test]
fn the_newest_batch_is_missed_when_it_is_damaged() {
    let directory = tempfile::tempdir().unwrap();
    let (mut spool, _) = open(directory.path());
    let mark = RingMark { position: 77, ring: [9; 16] };
    spool.append(&batch(1, 50), None).unwrap();
    spool.append(&batch(2, 50), Some(&mark)).unwrap();
    drop(spool);
    flip(directory.path(), 1, HEAD_BYTES + 50 + 7);
    let (mut spool, recovery) = open(directory.path());
    assert_eq!(missed(&mut spool, 2, 2), corrupt(10));
    let link = Link { number: 3, sequence: 21, previous_hash: [2; 32] };
    assert_eq!(recovery, Recovery { link, ring: Some(mark) });
    spool.append(&batch(3, 50), None).unwrap();
    spool.settle_lost();
    drop(spool);
    let (mut spool, _) = open(directory.path());
    assert_eq!((spool.take_lost(), drain(&mut spool)), (vec![], vec![1, 3]));
}

fn gap() -> ToldGap {
    ToldGap {
        server: sample::server(),
        reason: LossReason::RingFull,
        events: 1000,
        from: Timestamp(1),
        to: Timestamp(2),
    }
}

#[test]
fn a_refused_batch_is_lost_when_ingest_says_that_it_is_missing_and_only_then() {
    let directory = tempfile::tempdir().unwrap();
    let (mut spool, _) = open(directory.path());
    for number in 1..=4 {
        spool.append(&batch(number, 50), None).unwrap();
    }
    spool.set_aside(1).unwrap();
    spool.set_aside(2).unwrap();
    assert_eq!(spool.take_lost(), []);
    // It has the first, and the second never came.
    assert_eq!(missed(&mut spool, 2, 2), [Lost::Refused { batch: lost(2, 50) }]);
    spool.confirm(3).unwrap();
    assert_eq!(spool.take_lost(), []);
    assert_eq!(files(&directory.path().join(quarantine::DIRECTORY), quarantine::EXTENSION).unwrap().len(), 1);
}

#[test]
fn what_was_given_up_is_not_forgotten_when_later_batches_could_be_shipped_before_it_is_counted() {
    let directory = tempfile::tempdir().unwrap();
    let (mut spool, _) = Spool::open(directory.path(), 8 * 1000).unwrap();
    for number in 1..=9 {
        spool.append(&batch(number, 1000), None).unwrap();
    }
    // The second and third are given up. The way to ingest is free again, and the collector is stopped.
    assert_eq!(drain(&mut spool), [1]);
    drop(spool);
    let (mut spool, _) = open(directory.path());
    assert_eq!((spool.take_lost(), drain(&mut spool)), (vec![], vec![2, 3, 4, 5, 6, 7, 8, 9]));
}

#[test]
fn damage_is_not_forgotten_when_later_batches_could_be_shipped_before_it_is_counted() {
    let directory = tempfile::tempdir().unwrap();
    let (mut spool, _) = open(directory.path());
    for number in 1..=3 {
        spool.append(&batch(number, 50), None).unwrap();
    }
    drop(spool);
    flip(directory.path(), 1, HEAD_BYTES + 50 + 7);
    for _ in 0..2 {
        let (mut spool, _) = open(directory.path());
        assert_eq!(missed(&mut spool, 2, 2), corrupt(10));
        drain(&mut spool);
    }
}

#[test]
fn a_gap_in_a_damaged_batch_is_told_again() {
    let gap = gap();
    let directory = tempfile::tempdir().unwrap();
    let (mut spool, _) = open(directory.path());
    spool.append(&batch(1, 50), None).unwrap();
    spool.append(&SealedBatch { gaps: vec![gap.clone()], ..batch(2, 50) }, None).unwrap();
    spool.append(&batch(3, 50), None).unwrap();
    drop(spool);
    flip(directory.path(), 1, HEAD_BYTES + 50 + 7);
    let (mut spool, _) = open(directory.path());
    assert_eq!(missed(&mut spool, 2, 2), [Lost::Corrupt { events: 10, gaps: vec![gap.clone()] }]);
    spool.append(&SealedBatch { gaps: vec![gap], ..batch(4, 50) }, None).unwrap();
    drop(spool);
    assert_eq!(missed(&mut open(directory.path()).0, 2, 2), []);
}

fn flip(directory: &Path, segment: u64, at: usize) {
    let path = segment::path(directory, segment);
    let mut bytes = fs::read(&path).unwrap();
    bytes[at] ^= 0x10;
    fs::write(&path, bytes).unwrap();
}

#[test]
fn what_is_too_old_is_given_up_but_for_the_oldest_and_the_newest() {
    let directory = tempfile::tempdir().unwrap();
    let (mut spool, _) = open(directory.path());
    let big = usize::try_from(SEGMENT_BYTES).unwrap();
    for number in 1..=4 {
        spool.append(&batch(number, big), None).unwrap();
    }
    drop(spool);
    let day = Duration::from_hours(24);
    let ago = |days: u32| std::time::SystemTime::now() - day * days;
    for (segment, age) in [(1, 9), (2, 9), (3, 6), (4, 6)] {
        let file = File::options().write(true).open(segment::path(directory.path(), segment)).unwrap();
        file.set_modified(ago(age)).unwrap();
    }
    let (mut spool, _) = open(directory.path());
    spool.limit_age(7 * day);
    spool.append(&batch(5, 10), None).unwrap();
    assert_eq!(spool.take_lost(), [Lost::Full { batches: vec![lost(2, big)] }]);
    count_lost(&mut spool, 6);
    assert_eq!(drain(&mut spool), [1, 3, 4, 5, 6]);
}

#[test]
fn two_collectors_cannot_use_one_spool() {
    let directory = tempfile::tempdir().unwrap();
    let _spool = open(directory.path());
    assert!(matches!(Spool::open(directory.path(), 1), Err(SpoolError::Locked { .. })));
}

#[test]
fn a_batch_that_is_never_accepted_is_put_aside_and_told_until_it_is_counted() {
    let directory = tempfile::tempdir().unwrap();
    let aside = directory.path().join(quarantine::DIRECTORY).join("1.batch");
    let (mut spool, _) = open(directory.path());
    spool.append(&batch(1, 10), None).unwrap();
    spool.append(&batch(2, 10), None).unwrap();
    spool.set_aside(1).unwrap();
    assert_eq!(fs::read(&aside).unwrap(), batch(1, 10).bytes);
    for _ in 0..2 {
        assert_eq!(spool.oldest().unwrap().unwrap().number, 2);
        assert_eq!(missed(&mut spool, 1, 1), [Lost::Refused { batch: lost(1, 10) }]);
        assert!(drain(&mut spool).is_empty());
        drop(spool);
        (spool, _) = open(directory.path());
    }
    spool.declare_missing(1, 1, None);
    spool.take_lost();
    count_lost(&mut spool, 3);
    drop(spool);
    let (mut spool, _) = open(directory.path());
    assert_eq!((spool.take_lost(), drain(&mut spool)), (vec![], vec![2, 3]));
    assert!(aside.exists());
}

#[test]
fn what_was_refused_and_is_damaged_since_is_counted_by_what_is_known_of_it() {
    let directory = tempfile::tempdir().unwrap();
    let (mut spool, _) = open(directory.path());
    spool.append(&SealedBatch { gaps: vec![gap()], ..batch(1, 50) }, None).unwrap();
    spool.append(&batch(2, 50), None).unwrap();
    spool.set_aside(1).unwrap();
    flip(directory.path(), 1, HEAD_BYTES + 7);
    assert_eq!(missed(&mut spool, 1, 1), [Lost::Corrupt { events: 10, gaps: vec![gap()] }]);
}

#[test]
fn what_is_damaged_and_stored_is_not_lost() {
    let directory = tempfile::tempdir().unwrap();
    let (mut spool, _) = open(directory.path());
    for number in 1..=5 {
        spool.append(&batch(number, 50), None).unwrap();
    }
    // While it runs, …
    flip(directory.path(), 1, HEAD_BYTES + 7);
    assert!(matches!(spool.oldest(), Err(SpoolError::Damaged { number: 1 })));
    spool.set_aside(1).unwrap();
    spool.confirm(2).unwrap();
    drop(spool);
    // … and before it starts. Of the two, ingest has one.
    flip(directory.path(), 1, 2 * (HEAD_BYTES + 50) + 7);
    flip(directory.path(), 1, 3 * (HEAD_BYTES + 50) + 7);
    let (mut spool, _) = open(directory.path());
    assert_eq!(spool.take_lost(), []);
    spool.declare_missing(4, 4, Some(31));
    assert_eq!(spool.take_lost(), corrupt(10));
    count_lost(&mut spool, 6);
    assert_eq!(drain(&mut spool), [5, 6]);
}

#[test]
fn what_is_in_doubt_is_not_given_up() {
    let directory = tempfile::tempdir().unwrap();
    let (mut spool, _) = Spool::open(directory.path(), 8 * 1000).unwrap();
    for number in 1..=7 {
        spool.append(&batch(number, 1000), None).unwrap();
    }
    spool.set_aside(1).unwrap();
    for number in 8..=9 {
        spool.append(&batch(number, 1000), None).unwrap();
    }
    // The oldest is in doubt, and the second may be on its way.
    let given_up: Vec<_> = (3..=4).map(|number| Lost::Full { batches: vec![lost(number, 1000)] }).collect();
    assert_eq!(spool.take_lost(), given_up);
}

#[test]
fn a_damaged_note_of_what_is_confirmed_costs_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (mut spool, _) = open(directory.path());
    spool.append(&batch(1, 10), None).unwrap();
    spool.confirm(1).unwrap();
    drop(spool);
    fs::write(directory.path().join(ACKNOWLEDGED), "").unwrap();
    let (mut spool, recovery) = open(directory.path());
    assert_eq!((recovery.link.number, drain(&mut spool)), (2, vec![1]));
    drop(spool);
    fs::remove_file(segment::path(directory.path(), 1)).unwrap();
    fs::write(directory.path().join(ACKNOWLEDGED), "").unwrap();
    assert!(matches!(Spool::open(directory.path(), 1), Err(SpoolError::Acknowledged { .. })));
}

#[test]
fn damage_to_the_oldest_batches_is_counted() {
    for confirmed in [0, 2] {
        let directory = tempfile::tempdir().unwrap();
        let (mut spool, _) = Spool::open(directory.path(), 1000).unwrap();
        for number in 1..=5 {
            // Each in a segment of its own; those that are confirmed are deleted.
            spool.append(&batch(number, 50), None).unwrap();
            if number <= confirmed {
                spool.confirm(number).unwrap();
            }
        }
        drop(spool);
        flip(directory.path(), confirmed + 1, 7);
        let (mut spool, _) = open(directory.path());
        let oldest = confirmed + 1;
        assert_eq!(missed(&mut spool, oldest, oldest), corrupt(10), "{confirmed} confirmed");
        count_lost(&mut spool, 6);
        assert_eq!(drain(&mut spool), (confirmed + 2..=6).collect::<Vec<_>>());
    }
}

#[test]
fn a_loss_is_told_by_the_newest_batch_that_tells_of_it_and_by_no_other() {
    let directory = tempfile::tempdir().unwrap();
    let (mut spool, _) = Spool::open(directory.path(), 1000).unwrap();
    for number in 1..=8 {
        spool.append(&batch(number, 50), None).unwrap();
    }
    // The second is given up, and the ninth tells it.
    assert_eq!(spool.take_lost(), [Lost::Full { batches: vec![lost(2, 50)] }]);
    assert_eq!(spool.lost_batches(), [2..=2]);
    let told = SealedBatch { gaps: vec![gap()], ..batch(9, 50) };
    spool.append(&told, None).unwrap();
    spool.settle_lost();
    drop(spool);
    // The ninth is damaged: its gap is told again, by the tenth, and not the second as well.
    flip(directory.path(), 9, 7);
    let (mut spool, _) = open(directory.path());
    assert_eq!(missed(&mut spool, 9, 9), [Lost::Corrupt { events: 10, gaps: vec![gap()] }]);
    assert_eq!(spool.lost_batches(), [2..=2, 9..=9]);
    spool.append(&SealedBatch { gaps: vec![gap(); 2], ..batch(10, 50) }, None).unwrap();
    spool.settle_lost();
    assert_eq!(spool.lost_batches(), []);
    drop(spool);
    assert_eq!(missed(&mut open(directory.path()).0, 9, 9), []);
    // The tenth is damaged too: what it tells now comes once, and the second and the ninth not beside it.
    flip(directory.path(), 9, 7);
    let (mut spool, _) = open(directory.path());
    assert_eq!(missed(&mut spool, 9, 10), [Lost::Corrupt { events: 10, gaps: vec![gap(); 2] }]);
    assert_eq!(spool.lost_batches(), [2..=2, 9..=10]);
}

#[test]
fn a_batch_that_was_never_appended_counts_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (mut spool, _) = open(directory.path());
    spool.append(&batch(1, 50), None).unwrap();
    spool.set_aside(1).unwrap();
    assert_eq!(missed(&mut spool, 1, 1).len(), 1);
    let newest = fs::read(directory.path().join("newest")).unwrap();
    let length = fs::metadata(segment::path(directory.path(), 1)).unwrap().len();
    spool.append(&SealedBatch { gaps: vec![gap()], ..batch(2, 50) }, None).unwrap();
    drop(spool);
    // A crash before the second was on disk; then it is another, and tells of nothing.
    fs::write(directory.path().join("newest"), newest).unwrap();
    File::options().write(true).open(segment::path(directory.path(), 1)).unwrap().set_len(length).unwrap();
    let (mut spool, _) = open(directory.path());
    spool.append(&batch(2, 50), None).unwrap();
    drop(spool);
    assert_eq!(missed(&mut open(directory.path()).0, 1, 1), [Lost::Refused { batch: lost(1, 50) }]);
}
