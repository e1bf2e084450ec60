//! What a restore to a recovery point would lose: the commits after it, counted from the archived WAL with `pg_waldump`.
//!
//! It knows nothing about why they are lost.

use super::programs::args;
use super::{Account, Archive, Programs, ProgramsError};
use crate::recovery::Lost;
use std::time::Duration;
use turnback_core::recovery::{Lsn, RecoveryPoint, parse_time};

/// Why the commits could not be counted.
#[derive(Debug, thiserror::Error)]
pub enum LossError {
    /// `pg_waldump` could not be run.
    #[error(transparent)]
    Programs(#[from] ProgramsError),
    /// It could not read the WAL.
    #[error("the commits between {from} and {to} could not be counted: {output}")]
    Unreadable {
        /// From here.
        from: Lsn,
        /// To here.
        to: Lsn,
        /// What `pg_waldump` said.
        output: String,
    },
}

/// Counts the commits from a recovery point up to `to`, leaving out the point's own sentinel. Everything up to `to` must be archived: see
/// [`crate::recovery::seal`].
///
/// # Errors
/// [`LossError`] where the WAL cannot be read.
pub async fn lost_commits(
    programs: &Programs,
    account: &Account,
    archive: &Archive,
    point: &RecoveryPoint,
    to: Lsn,
    limit: Duration,
) -> Result<Lost, LossError> {
    let from = point.lsn;
    if to <= from {
        return Ok(Lost::default());
    }
    let (timeline, start, end) = (point.timeline.to_string(), from.to_string(), to.to_string());
    let call = args([&"--rmgr=Transaction", &"--path", &archive.dir(), &"--timeline", &timeline, &"--start", &start, &"--end", &end]);
    let ended = programs.run(account, "pg_waldump", &call, limit).await?;
    if !ended.ok {
        return Err(LossError::Unreadable { from, to, output: ended.output });
    }
    Ok(count(&ended.output, &[point.sentinel.xid]))
}

pub(super) fn count(output: &str, except: &[u64]) -> Lost {
    let mut lost = Lost::default();
    for line in output.lines() {
        let Some((record, description)) = line.split_once("desc: COMMIT") else { continue };
        // "tx:        735," is the low half of the 64-bit id.
        let xid: Option<u32> = record.split_once("tx:").and_then(|(_, rest)| rest.split(',').next()?.trim().parse().ok());
        if xid.is_some_and(|xid| except.iter().any(|known| known & 0xFFFF_FFFF == u64::from(xid))) {
            continue;
        }
        lost.commits += 1;
        let time = description.trim_start_matches("_PREPARED").split(" UTC").next().map(str::trim).unwrap_or_default();
        // A two-phase commit writes its transaction before the time.
        let time = time.rsplit(": ").next().unwrap_or(time);
        lost.last_commit = lost.last_commit.max(parse_time(&format!("{time}+00")).ok());
    }
    lost
}

#[cfg(test)]
mod tests {
    use super::*;

    const DUMP: &str = "\
rmgr: Transaction len (rec/tot):     46/    46, tx:        735, lsn: 0/030001D8, prev 0/030001A0, desc: COMMIT 2026-11-21 00:25:34.123456 UTC
rmgr: Transaction len (rec/tot):     34/    34, tx:        736, lsn: 0/03000210, prev 0/030001D8, desc: ABORT 2026-11-21 00:25:34.223456 UTC
rmgr: Transaction len (rec/tot):    405/   405, tx:        737, lsn: 0/03000240, prev 0/03000210, desc: COMMIT 2026-11-21 00:25:35.5 UTC; inval msgs: catcache 80
rmgr: Transaction len (rec/tot):     82/    82, tx:        738, lsn: 0/03000340, prev 0/03000240, desc: COMMIT_PREPARED 738: 2026-11-21 00:25:36.25 UTC
";

    #[test]
    fn commits_are_counted_aborts_are_not_and_our_own_are_left_out() {
        let all = count(DUMP, &[]);
        assert_eq!((all.commits, all.last_commit.unwrap().to_string()), (3, "2026-11-21T00:25:36.25Z".to_owned()));
        let some = count(DUMP, &[738 + (1 << 32)]);
        assert_eq!((some.commits, some.last_commit.unwrap().to_string()), (2, "2026-11-21T00:25:35.5Z".to_owned()));
        assert_eq!(count("", &[]), Lost::default());
    }
}
