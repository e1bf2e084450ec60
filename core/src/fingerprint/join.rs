//! The join that tells which rows were inserted, deleted and changed: both sides sorted by key, duplicates counted, the first few kept.
//!
//! It is handed the rows in parts (every part holding whole keys), so that memory follows a part's size and not the table's.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use crate::comparison::Change;

/// One side's rows of one part: keys in one buffer, so that a row costs its key and 24 bytes.
#[derive(Default)]
pub struct Entries {
    keys: Vec<u8>,
    entries: Vec<(u32, u32, u128)>,
}

impl Entries {
    /// Takes a row in. Keys beyond 4 GiB in one part are refused by the caller's choice of parts.
    pub fn push(&mut self, key: &[u8], hash: u128) {
        let at = u32::try_from(self.keys.len()).unwrap_or(u32::MAX);
        let length = u32::try_from(key.len()).unwrap_or(u32::MAX);
        self.keys.extend_from_slice(key);
        self.entries.push((at, length, hash));
    }

    /// Forgets the rows and keeps the memory.
    pub fn clear(&mut self) {
        self.keys.clear();
        self.entries.clear();
    }

    fn sort(&mut self) {
        let keys = &self.keys;
        self.entries.sort_unstable_by(|a, b| key(keys, a).cmp(key(keys, b)).then(a.2.cmp(&b.2)));
    }

    /// How many rows, from `at`, share the key at `at`.
    fn run(&self, at: usize) -> usize {
        let Some(first) = self.entries.get(at) else { return 0 };
        self.entries[at..].iter().take_while(|entry| key(&self.keys, entry) == key(&self.keys, first)).count()
    }
}

fn key<'a>(keys: &'a [u8], entry: &(u32, u32, u128)) -> &'a [u8] {
    &keys[entry.0 as usize..entry.0 as usize + entry.1 as usize]
}

/// The differing rows found so far: exact counts, and the first in order of the key.
pub struct RowJoin {
    shown: usize,
    /// Rows only on the right.
    pub added: u64,
    /// Rows only on the left.
    pub removed: u64,
    /// Rows on both sides under the same key, and not the same.
    pub changed: u64,
    first: BinaryHeap<(Vec<u8>, Change, u64)>,
}

impl RowJoin {
    /// A join that keeps the first `shown` differing rows.
    #[must_use]
    pub fn new(shown: usize) -> Self {
        Self { shown, added: 0, removed: 0, changed: 0, first: BinaryHeap::new() }
    }

    /// Joins one part.
    pub fn part(&mut self, left: &mut Entries, right: &mut Entries) {
        left.sort();
        right.sort();
        let (mut l, mut r) = (0, 0);
        loop {
            let order = match (left.entries.get(l), right.entries.get(r)) {
                (None, None) => return,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(a), Some(b)) => key(&left.keys, a).cmp(key(&right.keys, b)),
            };
            let (lefts, rights) = (if order.is_le() { left.run(l) } else { 0 }, if order.is_ge() { right.run(r) } else { 0 });
            let same = common(&left.entries[l..l + lefts], &right.entries[r..r + rights]);
            if same != lefts || same != rights {
                let bytes = if order.is_le() { key(&left.keys, &left.entries[l]) } else { key(&right.keys, &right.entries[r]) };
                self.found(bytes, (lefts - same) as u64, (rights - same) as u64);
            }
            l += lefts;
            r += rights;
        }
    }

    /// The first differing rows in order of the key: key, change, count.
    #[must_use]
    pub fn rows(self) -> Vec<(Vec<u8>, Change, u64)> {
        self.first.into_sorted_vec()
    }

    fn found(&mut self, key: &[u8], left: u64, right: u64) {
        let changed = left.min(right);
        self.changed += changed;
        self.removed += left - changed;
        self.added += right - changed;
        for (change, count) in [(Change::Changed, changed), (Change::Removed, left - changed), (Change::Added, right - changed)] {
            let wanted = self.first.len() < self.shown || self.first.peek().is_some_and(|(last, ..)| key < last.as_slice());
            if count > 0 && wanted {
                self.first.push((key.to_vec(), change, count));
                if self.first.len() > self.shown {
                    self.first.pop();
                }
            }
        }
    }
}

/// How many hashes two sorted runs have in common, duplicates counted.
fn common(left: &[(u32, u32, u128)], right: &[(u32, u32, u128)]) -> usize {
    let (mut l, mut r, mut same) = (0, 0, 0);
    while let (Some(a), Some(b)) = (left.get(l), right.get(r)) {
        match a.2.cmp(&b.2) {
            Ordering::Less => l += 1,
            Ordering::Greater => r += 1,
            Ordering::Equal => {
                same += 1;
                l += 1;
                r += 1;
            }
        }
    }
    same
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn entries(rows: &[(u8, u128)]) -> Entries {
        let mut entries = Entries::default();
        rows.iter().for_each(|(key, hash)| entries.push(&[*key], *hash));
        entries
    }

    fn join(left: &[(u8, u128)], right: &[(u8, u128)], shown: usize) -> RowJoin {
        let mut join = RowJoin::new(shown);
        join.part(&mut entries(left), &mut entries(right));
        join
    }

    #[test]
    fn inserted_deleted_and_changed_rows_are_told_apart_by_key() {
        let join = join(&[(3, 30), (1, 10), (2, 20)], &[(2, 21), (4, 40), (3, 30)], 10);
        assert_eq!((join.added, join.removed, join.changed), (1, 1, 1));
        assert_eq!(join.rows(), [(vec![1], Change::Removed, 1), (vec![2], Change::Changed, 1), (vec![4], Change::Added, 1)]);
    }

    #[test]
    fn counts_are_exact_when_only_the_first_are_kept() {
        let right: Vec<_> = (0..200).rev().map(|key| (key, 1)).collect();
        let join = join(&[], &right, 3);
        assert_eq!(join.added, 200);
        assert_eq!(join.rows().iter().map(|row| row.0[0]).collect::<Vec<_>>(), [0, 1, 2]);
    }

    #[test]
    fn equal_rows_without_a_key_are_counted() {
        let join = join(&[(7, 7), (7, 7), (7, 7)], &[(7, 7)], 5);
        assert_eq!((join.added, join.removed, join.changed), (0, 2, 0));
        assert_eq!(join.rows(), [(vec![7], Change::Removed, 2)]);
    }

    proptest! {
        #[test]
        fn the_join_agrees_with_a_plain_count(left in prop::collection::btree_map(0u8..40, 0u128..3, 0..40),
                                              right in prop::collection::btree_map(0u8..40, 0u128..3, 0..40)) {
            let of = |map: &BTreeMap<u8, u128>| map.iter().rev().map(|(k, v)| (*k, *v)).collect::<Vec<_>>();
            let join = join(&of(&left), &of(&right), 4);
            let added = right.keys().filter(|key| !left.contains_key(key)).count() as u64;
            let removed = left.keys().filter(|key| !right.contains_key(key)).count() as u64;
            let changed = left.iter().filter(|(key, hash)| right.get(key).is_some_and(|other| other != *hash)).count() as u64;
            prop_assert_eq!((join.added, join.removed, join.changed), (added, removed, changed));
        }
    }
}
