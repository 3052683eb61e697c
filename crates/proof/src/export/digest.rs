//! The hashes of a file of rows, computed as it is written or read.

use sha2::{Digest as _, Sha256};
use whence_chain::RowTree;

/// Takes the parts of a file in their order.
#[derive(Default)]
pub struct Digest {
    sha256: Sha256,
    bytes: u64,
    tree: RowTree,
}

/// What a manifest says of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    pub rows: u64,
    pub bytes: u64,
    pub sha256: String,
    pub rows_per_hash: u64,
    pub row_hashes: Vec<String>,
}

impl Digest {
    /// A digest whose row hashes are of so many rows; None when that is no power of two.
    pub fn with_rows_per_hash(rows: u64) -> Option<Self> {
        Some(Self { tree: RowTree::with_rows_per_hash(rows)?, ..Self::default() })
    }

    /// What comes before the first row.
    pub fn header(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        self.sha256.update(bytes);
    }

    /// The next row, with the end of its line.
    pub fn row(&mut self, bytes: &[u8]) {
        self.header(bytes);
        self.tree.push(bytes);
    }

    pub fn rows(&self) -> u64 {
        self.tree.rows()
    }

    pub fn finish(self) -> Facts {
        Facts {
            rows: self.tree.rows(),
            bytes: self.bytes,
            sha256: hex::encode(self.sha256.finalize()),
            rows_per_hash: self.tree.rows_per_hash(),
            row_hashes: self.tree.finish().iter().map(hex::encode).collect(),
        }
    }
}
