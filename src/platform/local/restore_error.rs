//! Why a restore did not get to its target, told from the server's log and the archive.

use super::archive::SegmentFault;
use super::server::telling_line;
use super::{ArchiveError, ServerError};
use crate::recovery::ObserveError;
use std::path::PathBuf;
use turnback_core::recovery::Lsn;

/// Why a restore did not get to its target.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// Replay ended before the target.
    #[error("replay ended before the target ({target}): {}", last_completed.as_deref().unwrap_or("no transaction was replayed"))]
    TargetNotReached {
        /// The target.
        target: String,
        /// PostgreSQL's own line about the last completed transaction.
        last_completed: Option<String>,
        /// The end of the server's log.
        log: String,
    },
    /// A WAL segment on the way to the target is missing, truncated or damaged.
    #[error("replay stopped before the target ({target}): {fault}")]
    Segment {
        /// The target.
        target: String,
        /// Which, and what is wrong with it.
        fault: SegmentFault,
        /// The end of the server's log.
        log: String,
    },
    /// The base backup cannot be used.
    #[error("the base backup is damaged: {detail}: take a new one and verify it")]
    BackupDamaged {
        /// The file, where it is known.
        file: Option<String>,
        /// The line or error that says so.
        detail: String,
    },
    /// The server cannot start with its settings, which come from the backup.
    #[error("the restored server cannot run with its settings: {line}")]
    SettingsBroken {
        /// The line of its log.
        line: String,
        /// The end of its log.
        log: String,
    },
    /// No space.
    #[error("the disk is full: {detail}; make room or choose another --work directory")]
    DiskFull {
        /// Where it was noticed.
        detail: String,
    },
    /// The target was not reached in time.
    #[error("{wait}; last line of its log: {line}")]
    TimedOut {
        /// The wait with its last status.
        wait: String,
        /// The last line of the server's log.
        line: String,
    },
    /// The server ended for another reason.
    #[error("the restored server ended: {line}")]
    Ended {
        /// The line of its log.
        line: String,
        /// The end of its log.
        log: String,
    },
    /// A file could not be copied or written.
    #[error("{operation} {path}: {source}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The server could not be handled.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// The archive could not be looked at.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The server could not be asked.
    #[error(transparent)]
    Observe(#[from] ObserveError),
}

impl RestoreError {
    pub(super) fn io(operation: &'static str, path: PathBuf, source: std::io::Error) -> Self {
        if matches!(source.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded) {
            return Self::DiskFull { detail: format!("{operation} {}", path.display()) };
        }
        Self::Io { operation, path, source }
    }
}

/// What a log says of why its server ended during recovery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// Before any replay: its settings.
    Settings(String),
    /// No space.
    DiskFull(String),
    /// WAL ran out: before the target, or before the backup was even consistent.
    WalRanOut,
    /// A page or file of the backup.
    Backup(String),
    /// Anything else.
    Other(String),
}

/// Reads the log of a server that ended during recovery.
pub(super) fn ending(log: &str) -> Ending {
    let line = telling_line(log);
    let says = |words: &[&str]| words.iter().any(|word| line.contains(word));
    if log.contains("No space left on device") {
        return Ending::DiskFull(log.lines().find(|line| line.contains("No space left on device")).unwrap_or(&line).to_owned());
    }
    if says(&[
        "archive file",
        "recovery ended before configured recovery target",
        "WAL ends before",
        "could not locate required checkpoint",
        "valid checkpoint record",
    ]) {
        return Ending::WalRanOut;
    }
    if says(&[
        "invalid page",
        "references to invalid pages",
        "checksum in control file",
        "pg_filenode.map",
        "is not a valid data directory",
        "pg_control",
    ]) {
        return Ending::Backup(line);
    }
    if says(&["insufficient parameter settings"]) || !log.contains("archive recovery") && !log.contains("point-in-time recovery") {
        return Ending::Settings(line);
    }
    if says(&["could not open file \"base/", "could not open file \"global/", "could not read", "could not access status of transaction"]) {
        return Ending::Backup(line);
    }
    Ending::Other(line)
}

/// The line that says which transaction was the last to be replayed.
pub(super) fn last_completed(log: &str) -> Option<String> {
    let line = log.lines().rfind(|line| line.contains("last completed transaction was at log time"))?;
    Some(line.split_once("LOG:").map_or(line, |(_, text)| text).trim().to_owned())
}

/// Where replay ended (`redo done at X/X`), or where it began when it did not get further.
pub(super) fn last_position(log: &str) -> Option<Lsn> {
    ["redo done at ", "redo starts at "].iter().find_map(|words| {
        let (_, rest) = log.rsplit_once(words)?;
        rest.split_whitespace().next()?.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENDED: &str = "\
2026-11-21 00:25:33.981 UTC [1] LOG:  starting point-in-time recovery to WAL location (LSN) \"0/9000000\"
2026-11-21 00:25:33.981 UTC [1] LOG:  redo starts at 0/2000028
2026-11-21 00:25:33.983 UTC [2] FATAL:  the database system is starting up
2026-11-21 00:25:33.985 UTC [1] LOG:  redo done at 0/40001A8 system usage: CPU: user: 0.00 s
2026-11-21 00:25:33.985 UTC [1] LOG:  last completed transaction was at log time 2026-11-21 00:25:30.1+00
2026-11-21 00:25:33.985 UTC [1] FATAL:  recovery ended before configured recovery target was reached
";

    #[test]
    fn a_log_that_ended_early_tells_where() {
        assert_eq!(ending(ENDED), Ending::WalRanOut);
        assert_eq!(last_position(ENDED).unwrap().to_string(), "0/40001A8");
        assert_eq!(last_completed(ENDED).unwrap(), "last completed transaction was at log time 2026-11-21 00:25:30.1+00");
    }

    #[test]
    fn a_segment_of_wrong_size_is_a_matter_of_the_wal() {
        let log = "x [1] LOG:  starting archive recovery\nx [1] FATAL:  archive file \"000000010000000000000004\" has wrong size: 8192 instead of 16777216\n";
        assert_eq!(ending(log), Ending::WalRanOut);
    }

    #[test]
    fn a_server_that_never_began_to_replay_has_broken_settings() {
        let log = "x [1] FATAL:  could not access file \"nothere\": No such file or directory\n";
        assert!(matches!(ending(log), Ending::Settings(line) if line.contains("nothere")));
    }

    #[test]
    fn a_full_disk_outweighs_what_follows_from_it() {
        let log = format!("x [1] LOG:  could not write to file: No space left on device\n{ENDED}");
        assert!(matches!(ending(&log), Ending::DiskFull(_)));
    }
}
