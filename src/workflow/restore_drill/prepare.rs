//! What a restore drill would do, decided before anything is started: the backup's own facts, how far the archive reaches, the target, the plan.
//!
//! It only reads.

use crate::database::{DatabaseError, Snapshot};
use crate::platform::local::{Archive, FoundBackup, FoundError, Programs, find_backup, reach};
use serde::Serialize;
use std::path::{Path, PathBuf};
use turnback_core::recovery::{Lsn, RecoveryTarget, Refusal, RestorePlan, Target, plan};

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
    #[error("the baseline: {0}")]
    Baseline(#[from] DatabaseError),
    /// The target cannot be reached.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// There is no target and nothing to take one from.
    #[error(
        "there is no recovery target: name one with --target (time=…, lsn=…, xid=…, name=… or immediate), or a --baseline, whose own position is then the target"
    )]
    NoTarget,
    /// A directory that is not there.
    #[error("the {what} {path}: {source}", path = path.display())]
    Directory {
        /// `base backup` or `WAL archive`.
        what: &'static str,
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
            Self::Baseline(_) => "baseline-unusable",
            Self::NoTarget => "no-target",
            Self::Directory { .. } => "no-such-directory",
        }
    }
}

fn directory(what: &'static str, path: &Path) -> Result<PathBuf, PrepareError> {
    let failed = |source| PrepareError::Directory { what, path: path.to_owned(), source };
    let real = std::fs::canonicalize(path).map_err(failed)?;
    if real.is_dir() { Ok(real) } else { Err(failed(std::io::ErrorKind::NotADirectory.into())) }
}

/// Reads what there is and plans the restore.
///
/// # Errors
/// [`PrepareError`]; nothing has been started or written.
pub async fn prepare(programs: &Programs, sources: &Sources) -> Result<Prepared, PrepareError> {
    let backup_dir = directory("base backup", &sources.backup)?;
    let archive_dir = directory("WAL archive", &sources.archive)?;
    let baseline = sources.baseline.as_deref().map(|path| {
        let snapshot = Snapshot::load(path)?;
        snapshot.verify()?;
        Ok::<_, DatabaseError>(snapshot)
    });
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
    let plan = plan(std::slice::from_ref(&found.backup), &reach.facts, &target).map_err(|refusal| match (refusal, reach.gap) {
        // What lies behind a gap is no use: the gap is the reason.
        (Refusal::AfterLastCommit { target, .. }, Some(segment)) => Refusal::SegmentMissing { target, segment },
        (refusal, _) => refusal,
    })?;
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
