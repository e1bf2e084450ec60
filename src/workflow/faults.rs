//! Faults injected on purpose. They only ever touch what this drill created, and every one of them is in the evidence.

use super::{Drill, Failure, Outcome};
use crate::database;
use serde_json::json;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use turnback_core::drill::{Check, CheckId, Phase};
use turnback_core::recovery::{RecoveryPoint, RecoveryTarget, SEGMENT_BYTES_DEFAULT, Target};

/// What is done to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Harm {
    /// It is removed.
    Missing,
    /// Its second half is cut off.
    Truncated,
    /// One byte is another.
    Flipped,
}

/// A target that someone might choose by mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misstep {
    /// The last wanted transaction is not replayed.
    TooEarly,
    /// The first unwanted transaction is replayed.
    TooLate,
}

/// Faults that wait for their moment.
#[derive(Debug, Default)]
pub(super) struct Faults {
    misstep: Option<Misstep>,
}

impl Faults {
    /// The target, or the wrong one in its place.
    pub fn wrong_target(&self, target: RecoveryTarget, point: &RecoveryPoint) -> RecoveryTarget {
        match self.misstep {
            None => target,
            Some(Misstep::TooEarly) => RecoveryTarget { target: Target::Xid(point.marker.xid), inclusive: false },
            // By its own id: the sentinel's time was read before its commit, so that a restore to it would still be right.
            Some(Misstep::TooLate) => RecoveryTarget { target: Target::Xid(point.sentinel.xid), inclusive: true },
        }
    }
}

impl Drill {
    /// What was checked on the restored server before something changed there says nothing about it any more.
    pub(super) fn outdate(&mut self) {
        let stale = |check: &Check| check.passed() && CheckId::OF_THE_RESTORED.contains(&check.id);
        let names: Vec<_> = self.record.checks.iter().filter(|check| stale(check)).map(|check| check.id.name()).collect();
        if !names.is_empty() {
            self.journal("checks-outdated", json!({ "checks": names }));
            self.record.checks.retain(|check| !stale(check));
        }
    }

    fn inject(&mut self, fault: String) -> String {
        self.journal("fault-injected", json!({ "fault": fault }));
        self.record.faults.push(fault.clone());
        fault
    }

    /// Harms the archived WAL segment that holds the last recovery point.
    pub async fn harm_segment(&mut self, harm: Harm) -> Outcome {
        let Some(point) = self.record.recovery_points.last().cloned() else {
            return Err(Failure::order("record the known-good state first: its segment is the one to harm"));
        };
        // A byte of the marker's own record: replay cannot reach the point without reading it.
        let at = (point.marker.lsn.0 % SEGMENT_BYTES_DEFAULT).saturating_sub(16);
        self.stage()?.platform.harm_segment(harm, &point.segment, at).await?;
        Ok(self.inject(format!("WAL segment {} {}", point.segment, word(harm))))
    }

    /// Harms the largest file of the last base backup.
    pub async fn harm_backup(&mut self, harm: Harm) -> Outcome {
        let stage = self.stage()?;
        let Some(backup) = stage.backups.last().cloned() else {
            return Err(Failure::order("take a backup first"));
        };
        let name = stage.platform.harm_backup(harm, &backup).await?;
        Ok(self.inject(format!("backup file {name} {}", word(harm))))
    }

    /// Makes the restore aim one transaction beside the recovery point.
    pub fn misstep(&mut self, misstep: Misstep) -> Outcome {
        self.faults.misstep = Some(misstep);
        Ok(self.inject(format!(
            "the restore aims one transaction too {}",
            match misstep {
                Misstep::TooEarly => "early",
                Misstep::TooLate => "late",
            }
        )))
    }

    /// Suspends the reconciler, as someone may have left it.
    pub async fn suspend_reconciler(&mut self) -> Outcome {
        self.stage()?.platform.suspend().await?;
        Ok(self.inject("the reconciler is suspended".into()))
    }

    /// Deploys the change once more, after the restore.
    pub async fn reapply_change(&mut self) -> Outcome {
        let Some(change) = self.change.clone() else {
            return Err(Failure::order("no change has been deployed"));
        };
        let phase = self.phase;
        let (commit, _) =
            self.commit_migration(&change.name, &change.sql, None, &format!("Release the migration {} again", change.name)).await?;
        self.outdate();
        self.enter(phase.max(Phase::Restore));
        Ok(self.inject(format!("the migration {} was applied again by commit {}", change.name, commit.short())))
    }

    /// Changes the restored database behind everyone's back.
    pub async fn tamper(&mut self, sql: &str) -> Outcome {
        let mut connection = database::connect(&self.stage()?.current()).await.map_err(|e| Failure::platform(&e))?;
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned())).execute(&mut connection).await.map_err(|e| Failure::platform(&e))?;
        self.outdate();
        Ok(self.inject(format!("someone ran: {}", sql.split_whitespace().collect::<Vec<_>>().join(" "))))
    }
}

fn word(harm: Harm) -> &'static str {
    match harm {
        Harm::Missing => "removed",
        Harm::Truncated => "truncated",
        Harm::Flipped => "altered by one byte",
    }
}

pub(super) fn apply(harm: Harm, path: &Path, at: u64) -> std::io::Result<()> {
    match harm {
        Harm::Missing => fs::remove_file(path),
        Harm::Truncated => {
            let file = OpenOptions::new().write(true).open(path)?;
            let length = file.metadata()?.len();
            file.set_len(length / 2)
        }
        Harm::Flipped => {
            let file = OpenOptions::new().read(true).write(true).open(path)?;
            let at = at.min(file.metadata()?.len().saturating_sub(1));
            let mut byte = [0];
            file.read_exact_at(&mut byte, at)?;
            file.write_all_at(&[byte[0] ^ 0x40], at)
        }
    }
}

pub(super) fn largest(dir: &Path) -> std::io::Result<Option<PathBuf>> {
    let mut best: Option<(u64, PathBuf)> = None;
    for database in fs::read_dir(dir)? {
        let database = database?.path();
        if !database.is_dir() {
            continue;
        }
        for entry in fs::read_dir(&database)? {
            let entry = entry?;
            let length = entry.metadata()?.len();
            if best.as_ref().is_none_or(|(most, _)| length > *most) {
                best = Some((length, entry.path()));
            }
        }
    }
    Ok(best.map(|(_, path)| path))
}
