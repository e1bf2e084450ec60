//! What can be wrong with a base backup that somebody else took.

use super::{AccountError, ArchiveError, ProgramsError};
use std::path::PathBuf;

/// What can be wrong with a base backup that somebody else took. None of them starts anything.
#[derive(Debug, thiserror::Error)]
pub enum FoundError {
    /// A file that every backup has is not there or cannot be read.
    #[error(
        "{dir} is not a base backup in plain format: {file}: {source}; name the directory that pg_basebackup wrote (a tar must be unpacked)"
    )]
    NotABackup {
        /// The directory.
        dir: PathBuf,
        /// The file.
        file: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// A file of the backup does not say what it must.
    #[error("{path} cannot be used: {cause}; take a new base backup")]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
    /// A tablespace, or anything else that leads out of the directory.
    #[error(
        "{path} is a symbolic link: backups with tablespaces or WAL outside their directory cannot be restored here; nothing was started"
    )]
    Link {
        /// The link.
        path: PathBuf,
    },
    /// A device, a socket or the like.
    #[error("{path} is neither a file nor a directory: it does not belong into a base backup")]
    Strange {
        /// What it is called.
        path: PathBuf,
    },
    /// An incremental backup.
    #[error("{dir} is an incremental backup: combine it with its predecessors by pg_combinebackup first")]
    Incremental {
        /// The directory.
        dir: PathBuf,
    },
    /// The backup is of another major version than the programs.
    #[error(
        "{dir} is a backup of PostgreSQL {backup}, and the programs found are of PostgreSQL {programs}: name those of {backup} with --pg-bin"
    )]
    Version {
        /// The directory.
        dir: PathBuf,
        /// The backup's major version.
        backup: String,
        /// The programs'.
        programs: u32,
    },
    /// A file or directory cannot be read or written.
    #[error("{operation} {path}: {source}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// With what.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A program could not be run.
    #[error(transparent)]
    Programs(#[from] ProgramsError),
    /// The archive cannot be read.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// A file could not be handed to the servers' account.
    #[error(transparent)]
    Account(#[from] AccountError),
}
