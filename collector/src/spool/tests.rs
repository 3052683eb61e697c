//! What the specification says, on a real file system.

use super::*;

fn batch(number: u64, bytes: usize) -> SealedBatch {
    let first_sequence = (number - 1) * 10 + 1;
    let batch_hash = [u8::try_from(number % 251).unwrap(); 32];
    SealedBatch { number, first_sequence, event_count: 10, batch_hash, bytes: vec![batch_hash[0]; bytes] }
}

fn open(directory: &Path) -> (Spool, Recovery) {
    Spool::open(directory, 1 << 30).unwrap()
}

fn drain(spool: &mut Spool) -> Vec<u64> {
    let mut numbers = Vec::new();
    while let Some(waiting) = spool.oldest().unwrap() {
        assert_eq!(waiting.bytes, batch(waiting.number, waiting.bytes.len()).bytes);
        numbers.push(waiting.number);
        spool.acknowledge(waiting.number).unwrap();
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
    spool.acknowledge(1).unwrap();
    drop(spool);
    let (mut spool, recovery) = open(directory.path());
    assert_eq!(recovery.link, Link { number: 6, sequence: 51, previous_hash: [5; 32] });
    assert_eq!(drain(&mut spool), [2, 3, 4, 5]);
    drop(spool);
    let (spool, recovery) = open(directory.path());
    assert_eq!((recovery.link.number, spool.oldest().unwrap()), (6, None));
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
        spool.append(&batch(2, 30), None).unwrap();
        drop(spool);
        let path = segment_path(directory.path(), 1);
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
    let path = segment_path(directory.path(), 1);
    let mut bytes = fs::read(&path).unwrap();
    let middle = HEAD_BYTES + big + HEAD_BYTES + big / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).unwrap();
    let (mut spool, _) = open(directory.path());
    assert_eq!(spool.take_lost(), [Lost::Corrupt { events: 10 }]);
    assert_eq!(drain(&mut spool), [1, 3, 4]);
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
        let path = segment_path(directory.path(), 1);
        let mut bytes = fs::read(&path).unwrap();
        bytes[HEAD_BYTES + 50 + damaged_byte] ^= 0x40;
        fs::write(&path, bytes).unwrap();
        let (mut spool, _) = open(directory.path());
        assert_eq!(spool.take_lost(), [Lost::Corrupt { events: 10 }], "byte {damaged_byte}");
        assert_eq!(drain(&mut spool), [1, 3]);
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
    assert_eq!(segment_paths(directory.path()).unwrap(), [segment_path(directory.path(), 4)]);
}

#[test]
fn a_full_spool_gives_up_its_oldest_and_keeps_it_until_that_is_counted() {
    let directory = tempfile::tempdir().unwrap();
    let (mut spool, _) = Spool::open(directory.path(), 2 * SEGMENT_BYTES).unwrap();
    let big = usize::try_from(SEGMENT_BYTES).unwrap();
    for number in 1..=4 {
        spool.append(&batch(number, big), None).unwrap();
    }
    let given_up: Vec<_> =
        (1..=3).map(|number| Lost::Full { batches: vec![batch(number, big).bytes] }).collect();
    assert_eq!(spool.take_lost(), given_up);
    assert_eq!(spool.oldest().unwrap().unwrap().number, 4);
    drop(spool);
    // Nobody had counted them: they are there, to be shipped or given up again.
    let (mut spool, _) = Spool::open(directory.path(), 2 * SEGMENT_BYTES).unwrap();
    assert_eq!(spool.oldest().unwrap().unwrap().number, 1);
    spool.append(&batch(5, big), None).unwrap();
    assert_eq!(spool.take_lost().len(), 4);
    spool.settle_lost();
    assert_eq!(segment_paths(directory.path()).unwrap(), [segment_path(directory.path(), 5)]);
    assert_eq!(drain(&mut spool), [5]);
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
    let (mut spool, _) = open(directory.path());
    spool.append(&batch(1, 10), None).unwrap();
    spool.append(&batch(2, 10), None).unwrap();
    spool.quarantine(1).unwrap();
    assert_eq!(fs::read(directory.path().join("quarantine/1.batch")).unwrap(), batch(1, 10).bytes);
    assert_eq!(drain(&mut spool), [2]);
    drop(spool);
    let (mut spool, _) = open(directory.path());
    assert_eq!(spool.take_lost(), [Lost::Refused { batch: batch(1, 10).bytes }]);
    spool.settle_lost();
    drop(spool);
    assert!(directory.path().join("quarantine/1.counted").exists());
    assert_eq!(open(directory.path()).0.take_lost(), vec![]);
}

#[test]
fn a_damaged_note_of_what_is_confirmed_costs_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (mut spool, _) = open(directory.path());
    spool.append(&batch(1, 10), None).unwrap();
    spool.acknowledge(1).unwrap();
    drop(spool);
    fs::write(directory.path().join(ACKNOWLEDGED), "").unwrap();
    let (mut spool, recovery) = open(directory.path());
    assert_eq!((recovery.link.number, drain(&mut spool)), (2, vec![1]));
    drop(spool);
    fs::remove_file(segment_path(directory.path(), 1)).unwrap();
    fs::write(directory.path().join(ACKNOWLEDGED), "").unwrap();
    assert!(matches!(Spool::open(directory.path(), 1), Err(SpoolError::Acknowledged { .. })));
}
