//! What a restore drill would do, decided before anything is started: the backup's own facts, how far the archive reaches, the target, the plan.
//!
//! It only reads.

use crate::database::{DatabaseError, Snapshot};
use crate::platform::local::{Archive, FoundBackup, FoundError, Programs, Sought, find_backup, reach, seek};
use serde::Serialize;
use std::path::{Path, PathBuf};
use turnback_core::recovery::{Lsn, RecoveryTarget, Refusal, RestorePlan, Target, pg_time, plan};

/// What a restore drill is given to work on.
#[derive(Clone, Debug)]
pub struct Sources {
    /// A base backup in plain format, with its manifest.
    pub backup: PathBuf,
    /// The directory of archived WAL segments.
    pub archive: PathBuf,
    /// Where replay shall stop; without one, where the baseline was recorded.
    pub target: Option<RecoveryTarget>,
    /// A snapshot's directory to compare with.
    pub baseline: Option<PathBuf>,
}

/// A restore drill that can be carried out: nothing is left to decide.
#[derive(Clone, Debug, Serialize)]
pub struct Prepared {
    /// The backup, the target and the WAL needed.
    pub plan: RestorePlan,
    /// Where the backup lies.
    pub backup_dir: PathBuf,
    /// Where the WAL lies.
    pub archive_dir: PathBuf,
    #[serde(skip)]
    pub(super) archive: Archive,
    #[serde(skip)]
    pub(super) found: FoundBackup,
    #[serde(skip)]
    pub(super) baseline: Option<Snapshot>,
}

/// Why a restore drill is not even begun.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// The backup or the archive cannot be used.
    #[error(transparent)]
    Found(#[from] FoundError),
    /// The baseline cannot be used.
    #[error(
        "the baseline {path} cannot be used: {source}; name the directory that `turnback snapshot` wrote, or record one with `turnback snapshot URL --out DIR`",
        path = path.display()
    )]
    Baseline {
        /// Its directory.
        path: PathBuf,
        /// Why.
        source: DatabaseError,
    },
    /// The target cannot be reached.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// There is no target and nothing to take one from.
    #[error(
        "there is no recovery target: name one with --target (time=…, lsn=…, xid=…, name=… or immediate), or a --baseline, whose own position is then the target"
    )]
    NoTarget,
    /// A transaction or a restore point that is nowhere in the archived WAL.
    #[error(
        "the target ({target}) is nowhere in the WAL from the backup's beginning (LSN {from}) to the end of the archive; {}",
        if near.is_empty() { "there is none of its kind at all: choose another kind of target".to_owned() } else { format!("the nearest there: {}", near.join(", ")) }
    )]
    NotFound {
        /// The target as asked for.
        target: String,
        /// Where the search began.
        from: Lsn,
        /// What is there instead, the nearest first.
        near: Vec<String>,
    },
    /// A directory that is not there.
    #[error("the {what} {path} cannot be used: {source}; name {instead}", path = path.display())]
    Directory {
        /// `base backup` or `WAL archive`.
        what: &'static str,
        /// What to name instead.
        instead: &'static str,
        /// Its path.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl PrepareError {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Refused(refusal) => refusal.code(),
            Self::Found(_) => "backup-or-archive-unusable",
            Self::Baseline { .. } => "baseline-unusable",
            Self::NotFound { .. } => "target-not-found",
            Self::NoTarget => "no-target",
            Self::Directory { .. } => "no-such-directory",
        }
    }
}

fn directory(what: &'static str, instead: &'static str, path: &Path) -> Result<PathBuf, PrepareError> {
    let failed = |source| PrepareError::Directory { what, instead, path: path.to_owned(), source };
    let real = std::fs::canonicalize(path).map_err(failed)?;
    if real.is_dir() { Ok(real) } else { Err(failed(std::io::ErrorKind::NotADirectory.into())) }
}

/// Reads what there is and plans the restore.
///
/// # Errors
/// [`PrepareError`]; nothing has been started or written.
pub async fn prepare(programs: &Programs, sources: &Sources) -> Result<Prepared, PrepareError> {
    let backup_dir = directory("base backup", "with --backup the directory that pg_basebackup wrote", &sources.backup)?;
    let archive_dir = directory("WAL archive", "with --wal-archive the directory that archive_command copies to", &sources.archive)?;
    let load = |path: &Path| {
        let snapshot = Snapshot::load(path)?;
        snapshot.verify().map(|()| snapshot)
    };
    let baseline =
        sources.baseline.as_deref().map(|path| load(path).map_err(|source| PrepareError::Baseline { path: path.to_owned(), source }));
    let baseline = baseline.transpose()?;
    let at_baseline = || {
        let lsn: Lsn = baseline.as_ref()?.server().lsn.as_deref()?.parse().ok()?;
        Some(RecoveryTarget { target: Target::Lsn(lsn), inclusive: false })
    };
    let target = sources.target.clone().or_else(at_baseline).ok_or(PrepareError::NoTarget)?;

    let found = find_backup(programs, &backup_dir, &archive_dir).await?;
    let archive = Archive::open(&archive_dir).with_segments_of(found.segment_bytes);
    let by_time = matches!(target.target, Target::Time(_));
    let reach = reach(programs, &archive, &found.backup, by_time).await?;
    // A time is reached at a commit after it; where there is none before a gap, the gap is what is in the way.
    if let (true, None, Some(segment)) = (by_time && !reach.facts.segments.is_empty(), reach.facts.last_commit, &reach.gap) {
        return Err(Refusal::SegmentMissing { target: target.to_string(), segment: segment.clone() }.into());
    }
    let plan = plan(std::slice::from_ref(&found.backup), &reach.facts, &target).map_err(|refusal| match (refusal, reach.gap.clone()) {
        // What lies behind a gap is no use: the gap is the reason.
        (Refusal::AfterLastCommit { target, .. }, Some(segment)) => Refusal::SegmentMissing { target, segment },
        (refusal, _) => refusal,
    })?;
    match seek(programs, &archive, &found.backup, &reach, &target.target).await? {
        // PostgreSQL stops nowhere before the backup is consistent.
        Sought::At(lsn) if lsn < found.backup.end_lsn => {
            let (end_time, end_lsn) = (pg_time(found.backup.end_time), found.backup.end_lsn);
            return Err(Refusal::BeforeBackup { target: target.to_string(), end_time, end_lsn }.into());
        }
        Sought::At(_) | Sought::Unknown => {}
        // It may lie behind the gap.
        Sought::Nowhere { .. } if reach.gap.is_some() => {
            let segment = reach.gap.unwrap_or_default();
            return Err(Refusal::SegmentMissing { target: target.to_string(), segment }.into());
        }
        Sought::Nowhere { near } => return Err(PrepareError::NotFound { target: target.to_string(), from: found.backup.begin_lsn, near }),
    }
    Ok(Prepared { plan, backup_dir, archive_dir, archive, found, baseline })
}

impl Prepared {
    /// Free space that carrying it out needs, in bytes: the copy of the backup, the segments being replayed, and what the comparison reads.
    #[must_use]
    pub fn space(&self) -> u64 {
        let files = self.plan.backup.bytes;
        files.saturating_add(files / 4).saturating_add(self.found.segment_bytes.saturating_mul(4)).saturating_add(64 << 20)
    }

    /// The database that is compared where nobody names one.
    #[must_use]
    pub fn database(&self) -> Option<&str> {
        self.baseline.as_ref().map(|snapshot| snapshot.server().database.as_str())
    }
}
