//! The running sum over a cold table's rows.
//!
//! Knows: that a row's hash can be added and taken away in any order. Must not know: where rows are.
//!
//! A sum of hashes modulo 2^256 says whether a set of rows is complete and current without walking
//! it at each change. It finds damage, not an adversary who can choose rows at will.

use super::keys::Epoch;
use crate::codec::{Hash, Hasher, Purpose};
use crate::table::ColdTable;

/// How many rows a cold table has, and the sum of their hashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct ColdSum {
    pub(crate) rows: u64,
    /// Modulo 2^256, little-endian.
    pub(crate) sum: Hash,
}

impl ColdSum {
    /// The count and sum of the rows that wait in a table whose rows have no other home.
    pub(crate) fn of_pending(table: &ColdTable) -> Self {
        let mut sum = Self::default();
        for (key, row) in table.pending_rows(None) {
            row.iter().for_each(|row| sum.add(table.id(), key, row));
        }
        sum
    }

    /// Counts a row in.
    pub(crate) fn add(&mut self, table: u8, key: u64, row: &[u8]) {
        self.rows += 1;
        self.sum = wrapping_add(&self.sum, &row_hash(table, key, row), 0);
    }

    /// Counts a deletion in: of the sum over deletions, not of that over rows.
    pub(super) fn add_deletion(&mut self, table: u8, key: u64, epoch: Epoch) {
        self.add(table, key, &epoch.get().to_le_bytes());
    }

    /// Counts a row out.
    ///
    /// # Panics
    ///
    /// When no row is left to count out.
    pub(crate) fn remove(&mut self, table: u8, key: u64, row: &[u8]) {
        self.rows = self.rows.checked_sub(1).expect("a row that is taken away was counted before");
        // Two's complement: minus x is not-x plus one.
        self.sum = wrapping_add(&self.sum, &row_hash(table, key, row).map(|byte| !byte), 1);
    }
}

fn row_hash(table: u8, key: u64, row: &[u8]) -> Hash {
    Hasher::new(Purpose::Row).update(&[table]).update(&key.to_le_bytes()).update(row).finish()
}

fn wrapping_add(left: &Hash, right: &Hash, carry: u16) -> Hash {
    let mut carry = carry;
    let mut sum = [0; 32];
    for (sum, (&left, &right)) in sum.iter_mut().zip(left.iter().zip(right)) {
        let digit = u16::from(left) + u16::from(right) + carry;
        *sum = (digit & 0xff) as u8;
        carry = digit >> 8;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_does_not_matter_and_what_is_removed_is_gone() {
        let rows: Vec<Vec<u8>> = (0..100u8).map(|n| vec![n; usize::from(n)]).collect();
        let mut forward = ColdSum::default();
        rows.iter().for_each(|row| forward.add(1, 2, row));
        let mut backward = ColdSum::default();
        backward.add(1, 3, b"another");
        rows.iter().rev().for_each(|row| backward.add(1, 2, row));
        assert_ne!(forward, backward);
        backward.remove(1, 3, b"another");
        assert_eq!(forward, backward);
        rows.iter().for_each(|row| forward.remove(1, 2, row));
        assert_eq!(forward, ColdSum::default());
    }

    #[test]
    fn table_key_and_bytes_all_count() {
        let sum = |table, key, row: &[u8]| {
            let mut sum = ColdSum::default();
            sum.add(table, key, row);
            sum.sum
        };
        let reference = sum(1, 2, b"row");
        assert!(
            [sum(2, 2, b"row"), sum(1, 3, b"row"), sum(1, 2, b"rox")]
                .iter()
                .all(|other| *other != reference)
        );
    }
}
