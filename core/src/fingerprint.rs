//! Data fingerprints: what PostgreSQL's binary COPY says, row by row, sums of row hashes, and the join that lists exactly which rows differ.
//!
//! It knows nothing about the hash function, the connection or the file: bytes and hashes are handed to it.

mod copy;
mod join;
mod sum;

pub use copy::{CopyError, CopyReader, Row};
pub use join::{Entries, RowJoin};
pub use sum::RowSum;
