//! Evidence on disk: the journal, written while the drill runs, and the package, sealed at its end.
//!
//! What is written where, atomically and without secrets. What the documents say is `turnback_core::evidence`'s; this knows nothing about
//! verdicts, platforms or how anything is shown.

mod journal;
mod manifest;
mod names;
mod package;
mod scrub;

pub use journal::{Entry, Journal, JournalError, JournalRead, SharedRedactor, ZERO_HASH, read};
pub use manifest::{ManifestEntry, media_type};
pub use package::{EvidenceError, Package, SealedPackage, preflight};
