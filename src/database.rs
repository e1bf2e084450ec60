//! Reading PostgreSQL databases exactly: where one is, how its state is recorded, and how two recorded states differ.
//!
//! It only reads. It knows nothing about drills, restores or who asks; what it finds are observations, never verdicts.

mod address;
mod catalog;
mod compare;
mod error;
pub mod history;
mod scan;
mod session;
mod sidecar;
mod snapshot;
mod tables;

pub use address::Address;
pub use compare::{CompareOptions, compare};
pub use error::DatabaseError;
pub use session::connect;
pub use sidecar::RowsFile;
pub use snapshot::{ROWS_FILE, SNAPSHOT_FILE, Server, Snapshot, SnapshotOptions, TableState, snapshot};
