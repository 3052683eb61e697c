//! The head of the newest record, kept a second time: the file `newest`, two heads without a batch, written in turn.
//!
//! A record that is torn off by a crash was never appended, and its events are read from the ring again. One that was
//! appended and is damaged afterwards looks the same, and its events are gone. This tells the two apart.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::record::{HEAD_BYTES, Head};
use super::{SpoolError, file_error};

const FILE: &str = "newest";

/// The open file.
pub struct Newest(File);

impl Newest {
    /// Opens or makes it, at its full size, so that a full disk has room for it; the answer is also what it says.
    pub fn open(directory: &Path) -> Result<(Self, Option<Head>), SpoolError> {
        let path = directory.join(FILE);
        let file = File::options().create(true).truncate(false).read(true).write(true).open(&path);
        let file = file.map_err(file_error(&path))?;
        let mut bytes = [0; 2 * HEAD_BYTES];
        if file.read_exact_at(&mut bytes, 0).is_err() {
            file.write_all_at(&[0; 2 * HEAD_BYTES], 0).map_err(file_error(&path))?;
        }
        Ok((Self(file), newer(&bytes)))
    }

    /// What the file says, without making it.
    pub fn read(directory: &Path) -> Option<Head> {
        newer(&fs::read(directory.join(FILE)).ok()?)
    }

    /// The record with this head is in the spool.
    pub fn note(&self, head: &Head) {
        let head = head.without_batch();
        let slot = (head.number % 2) * HEAD_BYTES as u64;
        // Not synced: with the power, the note of the record before may be what is left.
        if let Err(error) = self.0.write_all_at(&head.encode(&[]), slot) {
            tracing::warn!(%error, "cannot note the newest batch in the spool");
        }
    }
}

fn newer(bytes: &[u8]) -> Option<Head> {
    let (first, second) = bytes.split_at_checked(HEAD_BYTES)?;
    let heads = [first, second].into_iter().filter_map(Head::decode).filter(|head| head.number > 0);
    heads.max_by_key(|head| head.number)
}
