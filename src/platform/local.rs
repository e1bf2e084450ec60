//! The local platform: real PostgreSQL servers on this machine, thrown away after the drill.
//!
//! It starts PostgreSQL's own programs and touches nothing outside its work directory. The reconciler reads a Git tree;
//! the rest knows nothing about Git, and none of it about scenarios or verdicts.

pub mod account;
pub mod application;
pub mod archive;
pub mod backup;
pub mod found;
mod found_error;
pub mod loss;
pub mod preflight;
pub mod programs;
pub mod reconciler;
pub mod restore;
mod restore_error;
pub mod server;
mod sought;
pub mod workdir;
mod workdir_clean;

pub use account::{Account, AccountError};
pub use archive::{Archive, ArchiveError, SegmentFault};
pub use backup::{BackupError, Verification, base_backup, verify};
pub use found::{FoundBackup, Reach, find_backup, reach, stage_archive};
pub use found_error::FoundError;
pub use loss::{LossError, lost_commits};
pub use programs::{Programs, ProgramsError};
pub use restore::{Login, Paused, Promoted, RestoreRequest, restore};
pub use restore_error::RestoreError;
pub use server::{Server, ServerError, ServerOptions, Shutdown};
pub use sought::{Sought, seek};
pub use workdir::{WorkDir, WorkDirError};
pub use workdir_clean::{CleanReport, clean, leftovers};
