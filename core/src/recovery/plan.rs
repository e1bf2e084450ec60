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
    #[error(
        "the target ({target}) lies before the end of the first base backup ({end_time}, LSN {end_lsn}): no backup reaches it; choose a later target or an older backup"
    )]
    BeforeBackup {
        /// The target as asked for.
        target: String,
        /// End of the earliest backup.
        end_time: String,
        /// End of the earliest backup.
        end_lsn: Lsn,
    },
    /// The target lies after the last archived commit, so that PostgreSQL would never see that it reached it.
    #[error(
        "the target ({target}) lies after the last archived commit ({last_time}, LSN {last_lsn}): PostgreSQL would end with “recovery ended before configured recovery target was reached”; commit a sentinel, run pg_switch_wal() and wait until its segment is archived, or choose an earlier target"
    )]
    AfterLastCommit {
        /// The target as asked for.
        target: String,
        /// Time of the last archived commit.
        last_time: String,
        /// Its position.
        last_lsn: Lsn,
    },
    /// A segment that replay needs is not in the archive.
    #[error(
        "WAL segment {segment} is needed to reach the target ({target}) and is not in the archive: bring it back from a copy, or choose a target before it"
    )]
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
        Target::Time(_) | Target::Xid(_) | Target::Name(_) => {
            archive.last_commit.map_or(backup.end_lsn, |(_, lsn)| lsn.max(backup.end_lsn))
        }
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
    Ok(RestorePlan {
        first_segment: name(backup.begin_lsn),
        last_segment: Some(name(last)),
        backup: backup.clone(),
        target: target.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::super::{SEGMENT_BYTES_DEFAULT, parse_time};
    use super::*;

    const SEGMENT: u64 = SEGMENT_BYTES_DEFAULT;

    fn time(second: u8) -> Timestamp {
        parse_time(&format!("2026-11-20 21:00:{second:02}+00")).unwrap()
    }

    /// A backup that ended at this second, in the segment of this number.
    fn backup(id: &str, second: u8, segment: u64) -> BaseBackup {
        BaseBackup {
            id: id.to_owned(),
            begin_lsn: Lsn(segment * SEGMENT + 0x28),
            end_lsn: Lsn(segment * SEGMENT + 0x100),
            begin_time: time(second - 1),
            end_time: time(second),
            timeline: 1,
            system_identifier: "7".to_owned(),
            bytes: 1,
        }
    }

    /// Segments 2 to 6; the last commit at second 50, in segment 6.
    fn archive() -> ArchiveFacts {
        let segments = (2..=6).map(|segment| segment_name(1, Lsn(segment * SEGMENT), SEGMENT)).collect();
        ArchiveFacts { segments, segment_bytes: SEGMENT, last_commit: Some((time(50), Lsn(6 * SEGMENT + 0x500))) }
    }

    fn target(target: Target) -> RecoveryTarget {
        RecoveryTarget { target, inclusive: true }
    }

    fn refused(result: Result<RestorePlan, Refusal>) -> &'static str {
        result.unwrap_err().code()
    }

    #[test]
    fn the_latest_backup_that_ended_before_the_target_is_taken() {
        let backups = [backup("late", 30, 4), backup("early", 10, 2)];
        let chosen = |at: Target| plan(&backups, &archive(), &target(at)).unwrap().backup.id;
        assert_eq!(chosen(Target::Time(time(29))), "early");
        assert_eq!(chosen(Target::Time(time(30))), "late");
        assert_eq!(chosen(Target::Lsn(Lsn(4 * SEGMENT + 0xFF))), "early");
        assert_eq!(chosen(Target::Lsn(Lsn(4 * SEGMENT + 0x100))), "late");
    }

    #[test]
    fn a_target_inside_or_before_the_first_backup_is_refused() {
        let backups = [backup("only", 10, 2)];
        for at in [Target::Time(time(9)), Target::Time(time(1)), Target::Lsn(Lsn(2 * SEGMENT + 0x80))] {
            assert_eq!(refused(plan(&backups, &archive(), &target(at))), "target-before-backup");
        }
        assert_eq!(refused(plan(&[], &archive(), &target(Target::Immediate))), "no-backup");
    }

    #[test]
    fn a_target_after_the_last_commit_is_refused_with_the_remedy() {
        let backups = [backup("only", 10, 2)];
        for at in [Target::Time(time(51)), Target::Time(time(50)), Target::Lsn(Lsn(6 * SEGMENT + 0x501))] {
            let refusal = plan(&backups, &archive(), &target(at)).unwrap_err();
            assert_eq!(refusal.code(), "target-after-last-commit");
            assert!(refusal.to_string().contains("sentinel") && refusal.to_string().contains("pg_switch_wal()"));
        }
        let exclusive = RecoveryTarget { target: Target::Time(time(50)), inclusive: false };
        assert!(plan(&backups, &archive(), &exclusive).is_ok(), "the commit at exactly that time ends an exclusive target");
    }

    #[test]
    fn a_gap_between_backup_and_target_is_named() {
        let backups = [backup("only", 10, 2)];
        let mut gap = archive();
        gap.segments.retain(|name| !name.ends_with("04"));
        let refusal = plan(&backups, &gap, &target(Target::Time(time(40)))).unwrap_err();
        assert!(refusal.code() == "wal-segment-missing" && refusal.to_string().contains("000000010000000000000004"), "{refusal}");
        let before = plan(&backups, &gap, &target(Target::Lsn(Lsn(3 * SEGMENT + 0x10)))).unwrap();
        assert_eq!(
            (before.first_segment.as_str(), before.last_segment.as_deref()),
            ("000000010000000000000002", Some("000000010000000000000003"))
        );
    }

    #[test]
    fn a_backup_of_a_later_segment_does_not_need_the_earlier_ones() {
        let mut late = archive();
        late.segments.retain(|name| !name.ends_with("02") && !name.ends_with("03"));
        assert!(plan(&[backup("early", 10, 2), backup("late", 30, 4)], &late, &target(Target::Time(time(40)))).is_ok());
    }

    #[test]
    fn a_segment_that_ends_at_the_target_is_the_last_one_needed() {
        let backups = [backup("only", 10, 2)];
        let planned = plan(&backups, &archive(), &target(Target::Lsn(Lsn(4 * SEGMENT)))).unwrap();
        assert_eq!(planned.last_segment.as_deref(), Some("000000010000000000000003"));
    }
}
