//! The second phase: verify the backup, take a fresh one, bind the known-good state to a recovery point.

use super::{Drill, Failure, Outcome};
use crate::database::{self, Snapshot, SnapshotOptions};
use crate::recovery::{self, PointRequest};
use serde_json::json;
use turnback_core::drill::{Check, CheckId, Phase, ReasonCode};
use turnback_core::recovery::{RecoveryPoint, pg_time};

/// A known-good state: what the database was, and when.
pub(super) struct KnownGood {
    pub point: RecoveryPoint,
    pub snapshot: Snapshot,
    /// The application's version at that moment.
    pub version: Option<String>,
}

impl Drill {
    /// Verifies the platform's last backup.
    pub async fn verify_last_backup(&mut self) -> Outcome {
        self.enter(Phase::KnownGood);
        let stage = self.stage()?;
        let Some(backup) = stage.backups.last().cloned() else {
            return Err(Failure::because(ReasonCode::NoBackup, "the platform has no base backup"));
        };
        let verification = stage.platform.verify(&backup).await?;
        self.record_backup(&backup, Some(verification.ok), &verification.output);
        let actual = match &verification.damaged_file {
            Some(file) => format!("{file} is damaged: {}", verification.output),
            None => verification.output.clone(),
        };
        self.require_verified(&backup.id, verification.ok, &actual)?;
        Ok(format!("backup “{}”: {}", backup.id, verification.output.trim()))
    }

    /// Takes a base backup and verifies it.
    pub async fn take_backup(&mut self) -> Outcome {
        self.enter(Phase::KnownGood);
        let stage = self.stage()?;
        let label = format!("fresh-{}", stage.backups.len());
        let taken = stage.platform.take_backup(&label).await?;
        stage.backups.push(taken.clone());
        self.record_backup(&taken, None, "verified when the known-good state is recorded");
        Ok(format!("backup “{}”: {} from LSN {} to {}", taken.id, size(taken.bytes), taken.begin_lsn, taken.end_lsn))
    }

    /// Binds catalog snapshot and data fingerprint to a recovery point taken on the primary. The fresh backup is verified meanwhile.
    pub async fn record_known_good(&mut self, name: &str) -> Outcome {
        self.enter(Phase::KnownGood);
        if self.known_good.contains_key(name) {
            return Err(Failure::expectation(format!("“{name}” is recorded already: give each known-good state its own name")));
        }
        let run = self.record.run.id.clone();
        let file = format!("snapshots/{}", super::verification::slug(name));
        let target = self.package.path().join(&file);
        let stage = self.stage()?;
        let address = stage.platform.primary();
        let unverified = stage.backups.last().cloned().filter(|_| stage.backups.len() > 1);
        let request = PointRequest::new(name, run);
        let taking = recovery::record_point(address.options(), &request, |exported: String| {
            let options = SnapshotOptions { exported_snapshot: Some(exported), ..SnapshotOptions::default() };
            let (address, target) = (&address, &target);
            async move { database::snapshot(address, &options, target).await }
        });
        let verifying = async {
            match &unverified {
                Some(backup) => Some(stage.platform.verify(backup).await),
                None => None,
            }
        };
        let (taken, verified) = tokio::join!(taking, verifying);
        let recorded = taken.map_err(|e| Failure::because(code_of(&Failure::platform(&e)), super::outcome::chain(&e)))?;
        if let (Some(backup), Some(verification)) = (unverified, verified) {
            let verification = verification?;
            self.record_backup(&backup, Some(verification.ok), &verification.output);
            self.require_verified(&backup.id, verification.ok, &verification.output)?;
        }
        let snapshot = recorded.known_good;
        let point = recorded.point;
        self.journal("recovery-point", json!({ "point": point, "digest": snapshot.digest(), "tables_locked": recorded.cut.tables, "locks_waited_us": recorded.cut.waited.as_micros() as u64, "locks_held_us": recorded.cut.held.as_micros() as u64 }));
        self.record.recovery_points.push(point.clone());
        let check = Check::observed(
            CheckId::KnownGoodRecorded,
            true,
            "a snapshot bound to an archived recovery point",
            format!("digest {} at {}, LSN {}, segment {} archived", snapshot.digest(), pg_time(point.time), point.lsn, point.segment),
        );
        self.check(check.shown_in(format!("{file}/snapshot.json")));
        let version = match self.stage()?.platform.has_application() {
            true => self.observe().await?.version,
            false => None,
        };
        let seen = format!(
            "{}\n{} tables, {} rows, {} schema objects: digest {}",
            describe(&point),
            snapshot.tables().len(),
            snapshot.rows_total(),
            snapshot.catalog().objects().len(),
            snapshot.digest().chars().take(16).collect::<String>()
        );
        self.known_good.insert(name.to_owned(), KnownGood { point, snapshot, version });
        Ok(seen)
    }

    fn require_verified(&mut self, backup: &str, ok: bool, seen: &str) -> Result<(), Failure> {
        let seen = format!("“{backup}”: {}", seen.trim());
        let whole = self.stage()?.platform.whole();
        self.require(Check::observed(CheckId::BackupVerified, ok, whole, seen))
    }

    pub(super) fn known(&self, name: &str) -> Result<&KnownGood, Failure> {
        self.known_good.get(name).ok_or_else(|| {
            let known: Vec<_> = self.known_good.keys().map(String::as_str).collect();
            let known = if known.is_empty() { "none is recorded yet".to_owned() } else { format!("recorded: {}", known.join(", ")) };
            Failure::order(format!("no known-good state is called “{name}” ({known})"))
        })
    }
}

fn code_of(failure: &Failure) -> ReasonCode {
    match failure.reason.code {
        ReasonCode::DiskFull => ReasonCode::DiskFull,
        _ => ReasonCode::KnownGoodNotRecorded,
    }
}

fn describe(point: &RecoveryPoint) -> String {
    format!("{} · LSN {} · timeline {} · system {}", pg_time(point.time), point.lsn, point.timeline, point.system_identifier)
}

pub(super) fn size(bytes: u64) -> String {
    match bytes {
        0..1_048_576 => format!("{} kB", bytes / 1024),
        1_048_576..1_073_741_824 => format!("{:.1} MB", bytes as f64 / 1_048_576.0),
        _ => format!("{:.2} GB", bytes as f64 / 1_073_741_824.0),
    }
}
