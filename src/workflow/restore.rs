//! The sixth phase: point-in-time recovery onto a new server, its proof, its promotion, and the switch by commit.

use super::drill::ms;
use super::platform::{RecoveryFailure, RecoveryOrder, Restored, Stopped, tree_file};
use super::{Drill, Failure, Outcome};
use crate::clock;
use crate::gitops;
use crate::gitops::tree::RecoveryDeclaration;
use crate::platform::local::{RestoreError, Verification};
use crate::recovery;
use serde_json::json;
use std::time::{Duration, Instant};
use turnback_core::drill::{Check, CheckId, Phase, ReasonCode};
use turnback_core::evidence::RestoreRecord;
use turnback_core::recovery::{RecoveryPoint, RecoveryTarget, Refusal, TargetKind, pg_time, plan};

/// How long archiving and counting WAL may take.
const ARCHIVE_LIMIT: Duration = Duration::from_secs(60);

impl Drill {
    /// Restores to a known-good state, found by a target of the given kind.
    pub async fn restore(&mut self, point: &str, kind: TargetKind, inclusive: Option<bool>) -> Outcome {
        let point = self.known(point)?.point.clone();
        let mut target = kind.of(&point);
        if let Some(inclusive) = inclusive {
            target.inclusive = inclusive;
        }
        let target = self.faults.wrong_target(target, &point);
        self.carry_out(&point, target).await
    }

    /// Restores to a target of the user's own, held against the known-good state that was recorded last.
    pub async fn restore_to(&mut self, target: RecoveryTarget) -> Outcome {
        let Some(point) = self.record.recovery_points.last().cloned() else {
            return Err(Failure::order("record the known-good state first: a restore is held against it"));
        };
        self.carry_out(&point, target).await
    }

    async fn carry_out(&mut self, point: &RecoveryPoint, target: RecoveryTarget) -> Outcome {
        self.enter(Phase::Restore);
        let number = self.record.restores.len() + 1;
        let cluster = format!("{}-restored{}", Self::source_cluster(), if number == 1 { String::new() } else { format!("-{number}") });
        let stage = self.stage()?;
        if stage.restored.is_some() {
            return Err(Failure::order("the database has been restored already: one restore a scenario"));
        }

        // What is lost is counted on the primary before anything is restored; this also archives everything up to now.
        let begun = Instant::now();
        let sealed = recovery::seal(stage.platform.primary().options(), ARCHIVE_LIMIT).await.map_err(|e| Failure::platform(&e))?;
        let lost = stage.platform.loss(point, sealed.lsn).await;
        let last_commit = lost.as_ref().and_then(|lost| lost.last_commit).unwrap_or(point.sentinel_time).max(point.sentinel_time);
        let facts = stage.platform.archive((last_commit, sealed.lsn)).await?;
        let plan = plan(&stage.backups, &facts, &target).map_err(|refusal| refused(&refusal))?;
        let repository = stage.platform.repository();
        let head = repository.head().map_err(|e| Failure::platform(&e))?;
        let source = tree_file(repository, &head, &gitops::tree::production_cluster())?;
        let listing = tree_file(repository, &head, &gitops::tree::production_kustomization())?;
        let declaration = RecoveryDeclaration { name: &cluster, target: &target, backup: Some(&plan.backup.id) };
        let changes = gitops::tree::declare_recovery(&declaration, &source, &listing).map_err(|e| Failure::platform(&e))?;
        let message = format!("Recover {} to {target}", Self::source_cluster());
        let declared = repository.commit(&changes, &message, clock::now()).map_err(|e| Failure::platform(&e))?;
        let mut parts = vec![("plan".to_owned(), ms(begun.elapsed()))];
        if let Some(lost) = &lost {
            self.record.objectives.lost_commits = Some(lost.commits);
            self.record.objectives.rpo_ms = Some(lost.last_commit.map_or(0, |last| between(point.time, last)));
        }
        let lost_commits = lost.as_ref().map(|lost| lost.commits);
        self.journal("restore-planned", json!({ "plan": plan, "commit": declared.to_string(), "lost_commits": lost_commits }));
        let text = serde_json::to_string_pretty(&plan).map_err(|e| Failure::platform(&e))?;
        self.package.add_file("restore/plan.json", text.as_bytes()).map_err(|e| Failure::platform(&e))?;
        self.record.restores.push(RestoreRecord {
            recovery_point: point.name.clone(),
            backup: plan.backup.id.clone(),
            target: target.clone(),
            reached: None,
            timeline: None,
            system_identifier: None,
            commits: vec![declared.to_string()],
            parts: Vec::new(),
        });

        let order = RecoveryOrder { plan: &plan, cluster: &cluster, declared: &declared, point };
        let recovery = self.stage()?.platform.recover(order).await;
        if let Some(verification) = &recovery.verification {
            self.hold_verification(verification)?;
        }
        let stopped = match recovery.stopped {
            Some(Ok(stopped)) => stopped,
            Some(Err(failure)) => return Err(self.recovery_failed(failure)),
            None => return Err(Failure::because(ReasonCode::PlatformFailed, "the restore was not carried out")),
        };
        parts.extend(stopped.parts.clone());
        let reached = stopped.reached.clone();
        self.note_restore(|record| record.reached = Some(reached.clone()));
        self.journal("replay-stopped", json!({ "reached": reached, "said": stopped.said }));
        let proven = self.hold_proof(&stopped, point, &target);
        // A server at the wrong place is promoted all the same: what it holds is evidence of how wrong.
        let promoted = match self.stage()?.platform.promote().await {
            Ok(promoted) => promoted,
            Err(failure) => return Err(self.recovery_failed(failure)),
        };
        parts.extend(promoted.parts);
        self.note_restore(|record| {
            record.timeline = Some(promoted.timeline);
            record.system_identifier = Some(promoted.system_identifier.clone());
            record.parts.clone_from(&parts);
        });
        self.journal(
            "promoted",
            json!({ "timeline": promoted.timeline, "system_identifier": promoted.system_identifier, "server": promoted.note }),
        );
        self.record.objectives.rto_parts.extend(parts);
        self.sum_rto();
        self.stage()?.restored = Some(Restored {
            address: promoted.address,
            cluster,
            proven: proven.is_ok(),
            timeline: promoted.timeline,
            system_identifier: promoted.system_identifier,
        });
        self.check_identity(point);
        proven?;
        Ok(format!(
            "backup “{}” + WAL to {target}\n{}, last commit {}; {} commits after it are lost",
            plan.backup.id,
            stopped.said,
            reached.last_commit.map_or_else(|| "none".to_owned(), pg_time),
            lost_commits.map_or_else(|| "an unknown number of".to_owned(), |lost| lost.to_string())
        ))
    }

    fn note_restore(&mut self, note: impl FnOnce(&mut RestoreRecord)) {
        if let Some(record) = self.record.restores.last_mut() {
            note(record);
        }
    }

    fn hold_verification(&mut self, verification: &Verification) -> Result<(), Failure> {
        let said = verification
            .damaged_file
            .as_ref()
            .map_or_else(|| verification.output.clone(), |file| format!("{file}: {}", verification.output));
        let whole = self.stage()?.platform.whole();
        self.require(Check::observed(CheckId::BackupIntact, verification.ok, whole, said))
    }

    fn recovery_failed(&mut self, failed: RecoveryFailure) -> Failure {
        if let Some(log) = failed.log {
            // The log is kept as well when the drill ends; a failure to write it here must not hide the error itself.
            let _ = self.package.add_file("restore/recovery.log", log.as_bytes());
        }
        if let Some(check) = failed.check {
            self.check(check);
        }
        failed.failure
    }

    fn hold_proof(&mut self, stopped: &Stopped, point: &RecoveryPoint, target: &RecoveryTarget) -> Result<(), Failure> {
        let reached = &stopped.reached;
        let first = self.require(Check::observed(
            CheckId::ReplayStoppedAtTarget,
            stopped.at_target,
            format!("stopped at {target}"),
            stopped.said.clone(),
        ));
        let marker = format!("transaction {} committed", point.marker.xid);
        let marker_present = reached.marker_present == Some(true);
        let said = if marker_present { "it is there" } else { "it is not there: replay stopped too early" };
        let second = self.require(Check::observed(CheckId::MarkerPresent, marker_present, marker, said));
        let sentinel = format!("transaction {} absent", point.sentinel.xid);
        let sentinel_absent = reached.sentinel_absent == Some(true);
        let said = if sentinel_absent { "it is not there" } else { "it is there: replay went too far" };
        let third = self.require(Check::observed(CheckId::SentinelAbsent, sentinel_absent, sentinel, said));
        first.and(second).and(third)
    }

    fn check_identity(&mut self, point: &RecoveryPoint) {
        let Some((timeline, system)) =
            self.stage.as_ref().and_then(|stage| stage.restored.as_ref()).map(|r| (r.timeline, r.system_identifier.clone()))
        else {
            return;
        };
        self.check(Check::observed(
            CheckId::TimelineAdvanced,
            timeline > point.timeline,
            format!("later than {}", point.timeline),
            timeline.to_string(),
        ));
        self.check(Check::observed(
            CheckId::SystemIdentifierUnchanged,
            system == point.system_identifier,
            &point.system_identifier,
            &system,
        ));
    }

    /// Asserts what was proven while replay was paused.
    pub fn expect_proven_stop(&mut self) -> Outcome {
        let proven = self.stage()?.restored.as_ref().map(|restored| restored.proven);
        let reached = self.record.restores.last().and_then(|restore| restore.reached.clone());
        match (proven, reached) {
            (Some(true), Some(reached)) => {
                Ok(format!("{} at LSN {}: the last wanted transaction there, the first unwanted one not", reached.pause_state, reached.lsn))
            }
            (Some(false), _) => Err(Failure::because(ReasonCode::TargetNotReached, "replay did not stop where it should have")),
            _ => Err(Failure::order("nothing has been restored")),
        }
    }

    /// Asserts timeline and system identifier after promotion.
    pub fn expect_new_timeline(&mut self) -> Outcome {
        let Some(restored) = self.stage()?.restored.as_ref() else {
            return Err(Failure::order("nothing has been restored"));
        };
        let seen = format!("timeline {}, system {}", restored.timeline, restored.system_identifier);
        let failed = self
            .record
            .checks
            .iter()
            .find(|check| matches!(check.id, CheckId::TimelineAdvanced | CheckId::SystemIdentifierUnchanged) && !check.passed());
        match failed {
            Some(check) => Err(Failure::because(
                check.id.reason(),
                format!("{}: expected {}, found {}", check.id.title(), check.expected, check.actual),
            )),
            None => Ok(seen),
        }
    }

    /// Points the application at the restored server, by a commit.
    pub async fn switch(&mut self) -> Outcome {
        self.enter(Phase::Restore);
        let begun = Instant::now();
        let stage = self.stage()?;
        let Some(cluster) = stage.restored.as_ref().map(|restored| restored.cluster.clone()) else {
            return Err(Failure::order("nothing has been restored that the application could be pointed at"));
        };
        let repository = stage.platform.repository();
        let head = repository.head().map_err(|e| Failure::platform(&e))?;
        let release = tree_file(repository, &head, gitops::tree::RELEASE)?;
        let change = gitops::tree::set_database(&release, &cluster).map_err(|e| Failure::platform(&e))?;
        let commit =
            repository.commit(&[change], &format!("Point orders at {cluster}"), clock::now()).map_err(|e| Failure::platform(&e))?;
        let reconciled = self.reconcile(&commit).await?;
        if reconciled.revision != commit {
            return Err(Failure::because(
                ReasonCode::RevertNotApplied,
                format!("the reconciler stands at {} and has not applied {}", reconciled.revision.short(), commit.short()),
            ));
        }
        self.record.objectives.rto_parts.push(("switch".to_owned(), ms(begun.elapsed())));
        self.sum_rto();
        if let Some(restore) = self.record.restores.last_mut() {
            restore.commits.push(commit.to_string());
        }
        Ok(format!("commit {}: orders now uses {cluster}", commit.short()))
    }

    pub(super) fn sum_rto(&mut self) {
        let objectives = &mut self.record.objectives;
        objectives.rto_ms = Some(objectives.rto_parts.iter().map(|(_, ms)| ms).sum());
    }
}

pub(super) fn log_of(error: &RestoreError) -> Option<&str> {
    match error {
        RestoreError::TargetNotReached { log, .. }
        | RestoreError::Segment { log, .. }
        | RestoreError::SettingsBroken { log, .. }
        | RestoreError::Ended { log, .. } => Some(log),
        _ => None,
    }
}

/// Milliseconds from one moment to a later one; 0 where it is not later.
fn between(from: jiff::Timestamp, to: jiff::Timestamp) -> u64 {
    u64::try_from(to.as_millisecond() - from.as_millisecond()).unwrap_or(0)
}

fn refused(refusal: &Refusal) -> Failure {
    let code = match refusal {
        Refusal::NoBackup => ReasonCode::NoBackup,
        Refusal::BeforeBackup { .. } => ReasonCode::TargetBeforeBackup,
        Refusal::AfterLastCommit { .. } => ReasonCode::TargetAfterLastCommit,
        Refusal::SegmentMissing { .. } => ReasonCode::WalMissing,
    };
    Failure::because(code, refusal)
}
