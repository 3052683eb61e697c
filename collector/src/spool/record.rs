//! The head of a record: fixed size, little-endian.
//!
//! ```text
//!  0  u32  length of the batch in bytes
//!  4  u32  CRC-32C of bytes 8.. of the head and of the batch
//!  8  u64  number of the batch
//! 16  u64  sequence number of its first event
//! 24  u32  number of its events
//! 28  u32  1: a ring position follows, 0: none does
//! 32  u64  the ring's position behind its last event
//! 40  [16] tag that tells this ring from any other
//! 56  [32] hash of the batch
//! ```

use crate::seal::SealedBatch;

pub const HEAD_BYTES: usize = 88;
const CHECKED_FROM: usize = 8;

/// A position in a ring of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingMark {
    pub position: u64,
    /// Tells this ring from any other.
    pub ring: [u8; 16],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    pub length: u32,
    pub checksum: u32,
    pub number: u64,
    pub first_sequence: u64,
    pub event_count: u32,
    pub ring: Option<RingMark>,
    pub batch_hash: [u8; 32],
}

impl Head {
    pub fn of(batch: &SealedBatch, ring: Option<&RingMark>) -> Self {
        let mut head = Self {
            length: u32::try_from(batch.bytes.len()).unwrap_or(u32::MAX),
            checksum: 0,
            number: batch.number,
            first_sequence: batch.first_sequence,
            event_count: batch.event_count,
            ring: ring.copied(),
            batch_hash: batch.batch_hash,
        };
        head.checksum = head.checksum_with(&batch.bytes);
        head
    }

    /// The same head of a record with an empty batch.
    pub fn without_batch(&self) -> Self {
        let mut head = Self { length: 0, ..*self };
        head.checksum = head.checksum_with(&[]);
        head
    }

    /// Sequence number behind its last event.
    pub fn next_sequence(&self) -> u64 {
        self.first_sequence + u64::from(self.event_count)
    }

    pub fn ring(&self) -> Option<RingMark> {
        self.ring
    }

    /// Bytes of the whole record.
    pub fn record_bytes(&self) -> u64 {
        HEAD_BYTES as u64 + u64::from(self.length)
    }

    /// Whether `batch` is what this head was made for.
    pub fn matches(&self, batch: &[u8]) -> bool {
        batch.len() == self.length as usize && self.checksum_with(batch) == self.checksum
    }

    pub fn encode(&self, batch: &[u8]) -> [u8; HEAD_BYTES] {
        debug_assert_eq!(batch.len(), self.length as usize);
        let mut out = self.fields();
        out[..4].copy_from_slice(&self.length.to_le_bytes());
        out[4..8].copy_from_slice(&self.checksum.to_le_bytes());
        out
    }

    /// The head at the start of `bytes`, when a whole and right record is there.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (head, rest) = bytes.split_at_checked(HEAD_BYTES)?;
        let u32_at = |at: usize| Some(u32::from_le_bytes(head.get(at..at + 4)?.try_into().ok()?));
        let u64_at = |at: usize| Some(u64::from_le_bytes(head.get(at..at + 8)?.try_into().ok()?));
        let mark = RingMark { position: u64_at(32)?, ring: head.get(40..56)?.try_into().ok()? };
        let found = Self {
            length: u32_at(0)?,
            checksum: u32_at(4)?,
            number: u64_at(8)?,
            first_sequence: u64_at(16)?,
            event_count: u32_at(24)?,
            ring: (u32_at(28)? == 1).then_some(mark),
            batch_hash: head.get(56..88)?.try_into().ok()?,
        };
        let batch = rest.get(..found.length as usize)?;
        // Of the bytes as they lie there: a damaged one may decode to the same fields.
        let checksum = crc32c::crc32c_append(crc32c::crc32c(head.get(CHECKED_FROM..)?), batch);
        (checksum == found.checksum).then_some(found)
    }

    /// The number that a head at the start of `bytes` would have.
    pub fn number(bytes: &[u8]) -> Option<u64> {
        Some(u64::from_le_bytes(bytes.get(8..16)?.try_into().ok()?))
    }

    fn fields(&self) -> [u8; HEAD_BYTES] {
        let mut out = [0; HEAD_BYTES];
        out[8..16].copy_from_slice(&self.number.to_le_bytes());
        out[16..24].copy_from_slice(&self.first_sequence.to_le_bytes());
        out[24..28].copy_from_slice(&self.event_count.to_le_bytes());
        if let Some(mark) = &self.ring {
            out[28..32].copy_from_slice(&1_u32.to_le_bytes());
            out[32..40].copy_from_slice(&mark.position.to_le_bytes());
            out[40..56].copy_from_slice(&mark.ring);
        }
        out[56..88].copy_from_slice(&self.batch_hash);
        out
    }

    fn checksum_with(&self, batch: &[u8]) -> u32 {
        crc32c::crc32c_append(crc32c::crc32c(&self.fields()[CHECKED_FROM..]), batch)
    }
}
