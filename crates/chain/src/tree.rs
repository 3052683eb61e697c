//! Hashes that say where two long files differ, in bounded memory: a hash tree over rows, cut off at one level.
//!
//! ```text
//! leaf   = H("row", bytes of the row)
//! node   = H("rows", left, right)         over twice as many rows
//! ```
//!
//! The hashes kept are those of runs of `rows_per_hash` rows, a power of two; the last run may be shorter. As soon as
//! there are [`MAX_HASHES`], every two become one.

use crate::Hash;
use crate::canonical::Encoder;

/// The most hashes that are kept.
pub const MAX_HASHES: usize = 4096;

/// Takes rows, keeps hashes of runs of them.
#[derive(Debug)]
pub struct RowTree {
    rows: u64,
    /// A run has `2^level` rows.
    level: usize,
    /// Whether runs become longer as rows come in.
    grows: bool,
    runs: Vec<Hash>,
    /// The run at hand: at place `n` the hash of `2^n` rows, when the number of its rows has that bit.
    open: Vec<Option<Hash>>,
}

impl Default for RowTree {
    fn default() -> Self {
        Self { rows: 0, level: 0, grows: true, runs: Vec::new(), open: Vec::new() }
    }
}

impl RowTree {
    /// A tree for comparing: its runs have `rows_per_hash` rows, however many come. None when that is no power of two.
    pub fn with_rows_per_hash(rows_per_hash: u64) -> Option<Self> {
        let level = usize::try_from(rows_per_hash.checked_ilog2()?).ok()?;
        let is_power = rows_per_hash.is_power_of_two();
        is_power.then(|| Self { level, grows: false, open: vec![None; level], ..Self::default() })
    }

    pub fn push(&mut self, row: &[u8]) {
        self.rows += 1;
        let mut encoder = Encoder::new("whence 2026-11-25 export row v1");
        encoder.bytes(row);
        let mut hash = encoder.finish();
        for place in &mut self.open {
            let Some(left) = place.take() else {
                *place = Some(hash);
                return;
            };
            hash = join(&left, &hash);
        }
        self.runs.push(hash);
        if self.grows && self.runs.len() == MAX_HASHES {
            self.lengthen();
        }
    }

    /// Makes one run of every two.
    fn lengthen(&mut self) {
        let mut pairs = Vec::with_capacity(self.runs.len());
        self.open.push(None);
        self.level += 1;
        // Their number is even.
        for pair in self.runs.as_chunks::<2>().0 {
            pairs.push(join(&pair[0], &pair[1]));
        }
        self.runs = pairs;
    }

    pub fn rows(&self) -> u64 {
        self.rows
    }

    pub fn rows_per_hash(&self) -> u64 {
        1 << self.level
    }

    /// The hashes of all runs, with that of the last one, which may be shorter.
    pub fn finish(mut self) -> Vec<Hash> {
        let rest = self.open.iter().flatten().copied().reduce(|right, left| join(&left, &right));
        self.runs.extend(rest);
        self.runs
    }
}

fn join(left: &Hash, right: &Hash) -> Hash {
    let mut encoder = Encoder::new("whence 2026-11-25 export rows v1");
    encoder.hash(left);
    encoder.hash(right);
    encoder.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(mut tree: RowTree, rows: u64) -> RowTree {
        for row in 0..rows {
            tree.push(&row.to_be_bytes());
        }
        tree
    }

    #[test]
    fn a_tree_that_grew_is_the_tree_of_that_size() {
        for rows in [0, 1, 2, 4096, 4097, 8191, 8192, 8193, 20_000] {
            let grown = tree(RowTree::default(), rows);
            let size = grown.rows_per_hash();
            let known = tree(RowTree::with_rows_per_hash(size).unwrap(), rows);
            let hashes = grown.finish();
            assert!(hashes.len() <= MAX_HASHES && hashes.len() as u64 == rows.div_ceil(size), "{rows}");
            assert_eq!(hashes, known.finish(), "{rows}");
        }
        assert!(RowTree::with_rows_per_hash(3).is_none() && RowTree::with_rows_per_hash(0).is_none());
    }

    #[test]
    fn a_changed_row_changes_its_run_only() {
        let hashes = tree(RowTree::with_rows_per_hash(4).unwrap(), 10).finish();
        let mut changed = RowTree::with_rows_per_hash(4).unwrap();
        for row in 0..10_u64 {
            changed.push(&if row == 5 { 99 } else { row }.to_be_bytes());
        }
        let changed = changed.finish();
        let differ: Vec<bool> = hashes.iter().zip(&changed).map(|(one, other)| one != other).collect();
        assert_eq!(differ, [false, true, false]);
    }
}
