//! Finds which items of two sequences belong together, keeping their order.

/// Beyond this many cells the middle is paired item by item: sequences that differ so much are wrong anyway.
const MOST_CELLS: usize = 16 << 20;

/// The pairs `(left, right)` of a longest common subsequence under `same`, in order.
pub fn pairs(left: usize, right: usize, same: impl Fn(usize, usize) -> bool) -> Vec<(usize, usize)> {
    let mut start = 0;
    while start < left.min(right) && same(start, start) {
        start += 1;
    }
    let (mut left_end, mut right_end) = (left, right);
    while left_end > start && right_end > start && same(left_end - 1, right_end - 1) {
        left_end -= 1;
        right_end -= 1;
    }
    let mut pairs: Vec<_> = (0..start).map(|at| (at, at)).collect();
    middle(start, left_end, right_end, &same, &mut pairs);
    pairs.extend((left_end..left).zip(right_end..right));
    pairs
}

fn middle(
    start: usize,
    left_end: usize,
    right_end: usize,
    same: &impl Fn(usize, usize) -> bool,
    pairs: &mut Vec<(usize, usize)>,
) {
    let (rows, columns) = (left_end - start, right_end - start);
    if rows == 0 || columns == 0 {
        return;
    }
    if (rows + 1).saturating_mul(columns + 1) > MOST_CELLS {
        let common = rows.min(columns);
        pairs.extend((start..start + common).filter(|&at| same(at, at)).map(|at| (at, at)));
        return;
    }
    // Length of the longest common subsequence of what is left from each place on.
    let width = columns + 1;
    let mut longest = vec![0_u32; (rows + 1) * width];
    for row in (0..rows).rev() {
        for column in (0..columns).rev() {
            longest[row * width + column] = if same(start + row, start + column) {
                longest[(row + 1) * width + column + 1] + 1
            } else {
                longest[(row + 1) * width + column].max(longest[row * width + column + 1])
            };
        }
    }
    let (mut row, mut column) = (0, 0);
    while row < rows && column < columns {
        let here = longest[row * width + column];
        if here == longest[(row + 1) * width + column] {
            row += 1;
        } else if here == longest[row * width + column + 1] {
            column += 1;
        } else {
            pairs.push((start + row, start + column));
            row += 1;
            column += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::pairs;

    fn of(left: &str, right: &str) -> Vec<(usize, usize)> {
        pairs(left.len(), right.len(), |a, b| left.as_bytes()[a] == right.as_bytes()[b])
    }

    #[test]
    fn equal_sequences_pair_item_by_item() {
        assert_eq!(of("abc", "abc"), [(0, 0), (1, 1), (2, 2)]);
        assert_eq!(of("", ""), []);
    }

    #[test]
    fn what_only_one_has_stays_alone() {
        assert_eq!(of("abcd", "abd"), [(0, 0), (1, 1), (3, 2)]);
        assert_eq!(of("ab", "xaybz"), [(0, 1), (1, 3)]);
        assert_eq!(of("abc", ""), []);
    }

    #[test]
    fn something_else_in_the_same_place_is_no_pair() {
        assert_eq!(of("abc", "axc"), [(0, 0), (2, 2)]);
    }
}
