//! The sum of row hashes: the same for any order of rows and any division of the work, and different for another number of equal rows.

use serde::{Deserialize, Serialize};

/// How many rows, and their 128-bit hashes summed modulo 2^128. (Exclusive or would lose pairs of equal rows.)
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "(u64, String)", try_from = "(u64, String)")]
pub struct RowSum {
    /// Rows.
    pub rows: u64,
    /// The sum.
    pub sum: u128,
}

impl RowSum {
    /// Takes one row in.
    pub fn add(&mut self, hash: u128) {
        self.rows += 1;
        self.sum = self.sum.wrapping_add(hash);
    }

    /// Takes another part's rows in.
    pub fn merge(&mut self, other: Self) {
        self.rows += other.rows;
        self.sum = self.sum.wrapping_add(other.sum);
    }

    /// The digest in hexadecimal.
    #[must_use]
    pub fn digest(&self) -> String {
        format!("{:032x}", self.sum)
    }
}

impl From<RowSum> for (u64, String) {
    fn from(sum: RowSum) -> Self {
        (sum.rows, sum.digest())
    }
}

impl TryFrom<(u64, String)> for RowSum {
    type Error = std::num::ParseIntError;

    fn try_from((rows, digest): (u64, String)) -> Result<Self, Self::Error> {
        Ok(Self { rows, sum: u128::from_str_radix(&digest, 16)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_add_up_in_any_order_and_duplicates_count() {
        let of = |hashes: &[u128]| {
            let mut sum = RowSum::default();
            hashes.iter().for_each(|&hash| sum.add(hash));
            sum
        };
        let mut parts = of(&[u128::MAX, 7]);
        parts.merge(of(&[9]));
        assert_eq!(parts, of(&[9, u128::MAX, 7]));
        assert_ne!(of(&[5, 5]), of(&[]));
        assert_ne!(of(&[5, 5]), of(&[5]));
    }
}
