//! Whether a target can be reached, from which backup and with which WAL; decided before anything is touched.

use super::{BaseBackup, Lsn, RecoveryTarget, Target, pg_time, segment_name};
use jiff::Timestamp;
use serde::Serialize;

/// What is known of a WAL archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ArchiveFacts {
    /// The names of the archived segments, in order.
    pub segments: Vec<String>,
    /// The size of a segment, in bytes.
    pub segment_bytes: u64,
    /// The last commit known to be archived: its time and its position. `None` when nobody knows.
    pub last_commit: Option<(Timestamp, Lsn)>,
}

/// A restore that can be carried out: nothing is left to decide.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RestorePlan {
    /// The backup it starts from: the latest that ended before the target.
    pub backup: BaseBackup,
    /// Where replay stops.
    pub target: RecoveryTarget,
    /// The first segment that replay reads.
    pub first_segment: String,
    /// The last segment known to be needed, where the target tells.
    pub last_segment: Option<String>,
}

/// Why a restore is not even begun.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No backup at all.
    #[error("there is no base backup to restore from: take one with pg_basebackup while WAL is archived")]
    NoBackup,
    /// The target lies before the end of every backup.
    #[error("the target ({target}) lies before the end of the first base backup ({end_time}, LSN {end_lsn}): no backup reaches it; choose a later target or an older backup")]
    BeforeBackup {
        /// The target as asked for.
        target: String,
        /// End of the earliest backup.
        end_time: String,
        /// End of the earliest backup.
        end_lsn: Lsn,
    },
    /// The target lies after the last archived commit, so that PostgreSQL would never see that it reached it.
    #[error("the target ({target}) lies after the last archived commit ({last_time}, LSN {last_lsn}): PostgreSQL would end with “recovery ended before configured recovery target was reached”; commit a sentinel, run pg_switch_wal() and wait until its segment is archived, or choose an earlier target")]
    AfterLastCommit {
        /// The target as asked for.
        target: String,
        /// Time of the last archived commit.
        last_time: String,
        /// Its position.
        last_lsn: Lsn,
    },
    /// A segment that replay needs is not in the archive.
    #[error("WAL segment {segment} is needed to reach the target ({target}) and is not in the archive: bring it back from a copy, or choose a target before it")]
    SegmentMissing {
        /// The target as asked for.
        target: String,
        /// Name of the segment.
        segment: String,
    },
}

impl Refusal {
    /// The stable code of this refusal.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoBackup => "no-backup",
            Self::BeforeBackup { .. } => "target-before-backup",
            Self::AfterLastCommit { .. } => "target-after-last-commit",
            Self::SegmentMissing { .. } => "wal-segment-missing",
        }
    }
}

/// Chooses the latest backup that ended before the target and makes sure that the WAL from there to the target is there.
///
/// A transaction id or a restore point does not say where in the WAL it lies; for those the latest backup is taken, and only the segments that
/// the backup itself needs are checked here. The server says the rest.
///
/// # Errors
/// A [`Refusal`] naming what is missing and the remedy.
pub fn plan(backups: &[BaseBackup], archive: &ArchiveFacts, target: &RecoveryTarget) -> Result<RestorePlan, Refusal> {
    let reaches = |backup: &&BaseBackup| match &target.target {
        Target::Time(time) => backup.end_time <= *time,
        Target::Lsn(lsn) => backup.end_lsn <= *lsn,
        Target::Xid(_) | Target::Name(_) | Target::Immediate => true,
    };
    let first = backups.iter().min_by_key(|backup| backup.end_lsn).ok_or(Refusal::NoBackup)?;
    let backup = backups.iter().filter(reaches).max_by_key(|backup| backup.end_lsn).ok_or_else(|| Refusal::BeforeBackup {
        target: target.to_string(),
        end_time: pg_time(first.end_time),
        end_lsn: first.end_lsn,
    })?;

    if let Some((last_time, last_lsn)) = archive.last_commit {
        let beyond = match &target.target {
            // A commit at exactly the time stops an exclusive target; an inclusive one needs a later commit.
            Target::Time(time) => *time > last_time || (target.inclusive && *time == last_time),
            Target::Lsn(lsn) => *lsn > last_lsn,
            Target::Xid(_) | Target::Name(_) | Target::Immediate => false,
        };
        if beyond {
            return Err(Refusal::AfterLastCommit { target: target.to_string(), last_time: pg_time(last_time), last_lsn });
        }
    }

    let needed_until = match &target.target {
        Target::Lsn(lsn) => *lsn,
        Target::Immediate => backup.end_lsn,
        Target::Time(_) | Target::Xid(_) | Target::Name(_) => archive.last_commit.map_or(backup.end_lsn, |(_, lsn)| lsn.max(backup.end_lsn)),
    };
    let name = |lsn: Lsn| segment_name(backup.timeline, lsn, archive.segment_bytes);
    // The segment that ends exactly at the position is the last one needed: the next may not exist yet.
    let last = Lsn(needed_until.0.saturating_sub(1).max(backup.begin_lsn.0));
    let mut at = backup.begin_lsn.0 / archive.segment_bytes;
    while at <= last.0 / archive.segment_bytes {
        let segment = name(Lsn(at * archive.segment_bytes));
        if !archive.segments.contains(&segment) {
            return Err(Refusal::SegmentMissing { target: target.to_string(), segment });
        }
        at += 1;
    }
    Ok(RestorePlan { first_segment: name(backup.begin_lsn), last_segment: Some(name(last)), backup: backup.clone(), target: target.clone() })
}
