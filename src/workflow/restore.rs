//! The sixth phase: point-in-time recovery onto a new server, its proof, its promotion, and the switch by commit.

use super::drill::ms;
use super::platform::{Restored, address, tree_file};
use super::{Drill, Failure, Outcome};
use crate::clock;
use crate::gitops;
use crate::gitops::tree::RecoveryDeclaration;
use crate::platform::local::{RestoreError, RestoreRequest, SegmentFault, ServerOptions, lost_commits, restore, verify};
use crate::recovery;
use serde_json::json;
use std::time::{Duration, Instant};
use turnback_core::drill::{Check, CheckId, Phase, ReasonCode};
use turnback_core::evidence::{Reached, RestoreRecord};
use turnback_core::recovery::{RecoveryPoint, RecoveryTarget, Refusal, TargetKind, pg_time, plan};

/// The port in the name of the restored server's socket.
const PORT: u16 = 5433;
/// How long replay may take.
const REPLAY_LIMIT: Duration = Duration::from_secs(600);
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
        let programs = self.settings.programs.clone();
        let account = self.settings.account.clone();
        let dir = self.dir()?.join("restored");
        let number = self.record.restores.len() + 1;
        let cluster = format!("{}-restored{}", Self::source_cluster(), if number == 1 { String::new() } else { format!("-{number}") });
        let local = self.local()?;
        if local.restored.is_some() {
            return Err(Failure::order("the database has been restored already: one restore a scenario"));
        }

        // What is lost is counted on the primary before anything is restored; this also archives everything up to now.
        let begun = Instant::now();
        let primary = local.address(&local.primary);
        let sealed = recovery::seal(primary.options(), ARCHIVE_LIMIT).await.map_err(|e| Failure::platform(&e))?;
        let counted = lost_commits(&programs, &account, &local.archive, point, sealed.lsn, ARCHIVE_LIMIT).await;
        // WAL that cannot be read here cannot be replayed either; the plan and the restore name the segment.
        let lost = counted.ok();
        let last_commit = lost.as_ref().and_then(|lost| lost.last_commit).unwrap_or(point.sentinel_time).max(point.sentinel_time);
        let facts = local.archive.facts(Some((last_commit, sealed.lsn))).map_err(|e| Failure::platform(&e))?;
        let backups: Vec<_> = local.backups.iter().map(|(backup, _)| backup.clone()).collect();
        let plan = plan(&backups, &facts, &target).map_err(|refusal| refused(&refusal))?;
        let Some((_, path)) = local.backups.iter().find(|(backup, _)| backup.id == plan.backup.id).cloned() else {
            return Err(Failure::because(ReasonCode::NoBackup, format!("the backup {} is gone", plan.backup.id)));
        };
        let head = local.repository.head().map_err(|e| Failure::platform(&e))?;
        let source = tree_file(&local.repository, &head, &gitops::tree::production_cluster())?;
        let listing = tree_file(&local.repository, &head, &gitops::tree::production_kustomization())?;
        let declaration = RecoveryDeclaration { name: &cluster, target: &target, backup: Some(&plan.backup.id) };
        let changes = gitops::tree::declare_recovery(&declaration, &source, &listing).map_err(|e| Failure::platform(&e))?;
        let message = format!("Recover {} to {target}", Self::source_cluster());
        let declared = local.repository.commit(&changes, &message, clock::now()).map_err(|e| Failure::platform(&e))?;
        let mut parts = vec![("plan".to_owned(), ms(begun.elapsed()))];
        let archive = local.archive.clone();
        let socket_dir = local.primary.options().socket_dir.clone();
        if let Some(lost) = &lost {
            self.record.objectives.lost_commits = Some(lost.commits);
            self.record.objectives.rpo_ms = Some(lost.last_commit.map_or(0, |last| between(point.time, last)));
        }
        let lost_commits = lost.as_ref().map(|lost| lost.commits);
        self.journal("restore-planned", json!({ "plan": plan, "commit": declared.to_string(), "lost_commits": lost_commits }));
        let text = serde_json::to_string_pretty(&plan).map_err(|e| Failure::platform(&e))?;
        self.package.add_file("restore/plan.json", text.as_bytes()).map_err(|e| Failure::platform(&e))?;
        let mut record = RestoreRecord {
            recovery_point: point.name.clone(),
            backup: plan.backup.id.clone(),
            target: target.clone(),
            reached: None,
            timeline: None,
            system_identifier: None,
            commits: vec![declared.to_string()],
            parts: Vec::new(),
        };

        let options = ServerOptions { socket_dir, port: PORT, settings: Vec::new() };
        let request = RestoreRequest {
            programs: &programs,
            account: &account,
            plan: &plan,
            backup_dir: &path,
            archive: &archive,
            dir: &dir,
            options,
            archive_to: None,
            login: Default::default(),
            limit: REPLAY_LIMIT,
        };
        // Both only read the backup: it is verified while it is being restored. A server restored from a damaged backup may never get to its
        // target, so a bad word of the verification ends the restore.
        let mut restoring = Box::pin(restore(request));
        let mut verifying = Box::pin(verify(&programs, &account, &path, super::known_good::VERIFY_LIMIT));
        let (verification, early) = tokio::select! {
            verification = &mut verifying => (verification, None),
            restored = &mut restoring => (verifying.await, Some(restored)),
        };
        let verification = verification.map_err(|e| Failure::platform(&e))?;
        let said = verification
            .damaged_file
            .as_ref()
            .map_or_else(|| verification.output.clone(), |file| format!("{file}: {}", verification.output));
        if let Err(failure) = self.require(Check::observed(CheckId::BackupIntact, verification.ok, "every file as its manifest says", said))
        {
            self.record.restores.push(record);
            return Err(failure);
        }
        let restored = match early {
            Some(restored) => restored,
            None => restoring.await,
        };
        let mut paused = match restored {
            Ok(paused) => paused,
            Err(error) => {
                self.record.restores.push(record);
                return Err(self.restore_failed(&error));
            }
        };
        parts.push(("files".to_owned(), ms(paused.files)));
        parts.push(("replay".to_owned(), ms(paused.replay)));
        let begun = Instant::now();
        let reached = paused.prove(point).await.map_err(|e| Failure::platform(&e))?;
        parts.push(("proof".to_owned(), ms(begun.elapsed())));
        record.reached = Some(reached.clone());
        self.journal("replay-paused", json!(reached));
        let proven = self.hold_proof(&reached, point, &target);
        // A server at the wrong place is promoted all the same: what it holds is evidence of how wrong.
        let promoted = match paused.promote().await {
            Ok(promoted) => promoted,
            Err(error) => {
                self.record.restores.push(record);
                return Err(self.restore_failed(&error));
            }
        };
        parts.push(("promotion".to_owned(), ms(promoted.promotion)));
        record.timeline = Some(promoted.timeline);
        record.system_identifier = Some(promoted.system_identifier.clone());
        record.parts = parts.clone();
        self.journal(
            "promoted",
            json!({ "timeline": promoted.timeline, "system_identifier": promoted.system_identifier, "pid": promoted.server.pid() }),
        );
        self.record.restores.push(record);
        self.record.objectives.rto_parts.extend(parts);
        self.sum_rto();
        let local = self.local()?;
        local.reconciler.register(&cluster, address(&promoted.server, &local.database).url());
        local.restored = Some(Restored {
            server: promoted.server,
            cluster,
            proven: proven.is_ok(),
            timeline: promoted.timeline,
            system_identifier: promoted.system_identifier,
        });
        self.check_identity(point);
        proven?;
        Ok(format!(
            "backup “{}” + WAL to {target}\npaused at LSN {}, last commit {}; {} commits after it are lost",
            plan.backup.id,
            reached.lsn,
            reached.last_commit.map_or_else(|| "none".to_owned(), pg_time),
            lost_commits.map_or_else(|| "an unknown number of".to_owned(), |lost| lost.to_string())
        ))
    }

    fn hold_proof(&mut self, reached: &Reached, point: &RecoveryPoint, target: &RecoveryTarget) -> Result<(), Failure> {
        let paused = reached.pause_state == "paused";
        let first = self.require(Check::observed(
            CheckId::ReplayPausedAtTarget,
            paused,
            format!("paused at {target}"),
            format!("{} at LSN {}", reached.pause_state, reached.lsn),
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
            self.local.as_ref().and_then(|local| local.restored.as_ref()).map(|r| (r.timeline, r.system_identifier.clone()))
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

    fn restore_failed(&mut self, error: &RestoreError) -> Failure {
        if let Some(log) = log_of(error) {
            // The log is kept as well when the drill ends; a failure to write it here must not hide the error itself.
            let _ = self.package.add_file("restore/recovery.log", log.as_bytes());
        }
        let text = super::outcome::chain(error);
        match error {
            RestoreError::BackupDamaged { .. } => {
                self.check(Check::observed(CheckId::BackupIntact, false, "every file as its manifest says", text.clone()));
                Failure::because(ReasonCode::BackupDamaged, text)
            }
            RestoreError::Segment { fault: SegmentFault::Missing { .. }, .. } => Failure::because(ReasonCode::WalMissing, text),
            RestoreError::Segment { .. } => {
                self.check(Check::observed(CheckId::WalIntact, false, "every record passes its checksum", text.clone()));
                Failure::because(ReasonCode::WalDamaged, text)
            }
            RestoreError::TargetNotReached { .. } => Failure::because(ReasonCode::TargetNotReached, text),
            RestoreError::SettingsBroken { .. } => Failure::because(ReasonCode::SettingsBroken, text),
            RestoreError::DiskFull { .. } => Failure::because(ReasonCode::DiskFull, text),
            RestoreError::TimedOut { .. } => Failure::because(ReasonCode::DeadlineExceeded, text),
            other => Failure::platform(other),
        }
    }

    /// Asserts what was proven while replay was paused.
    pub fn expect_proven_stop(&mut self) -> Outcome {
        let proven = self.local()?.restored.as_ref().map(|restored| restored.proven);
        let reached = self.record.restores.last().and_then(|restore| restore.reached.clone());
        match (proven, reached) {
            (Some(true), Some(reached)) => {
                Ok(format!("paused at LSN {} before promotion: the last wanted transaction there, the first unwanted one not", reached.lsn))
            }
            (Some(false), _) => Err(Failure::because(ReasonCode::TargetNotReached, "replay did not stop where it should have")),
            _ => Err(Failure::order("nothing has been restored")),
        }
    }

    /// Asserts timeline and system identifier after promotion.
    pub fn expect_new_timeline(&mut self) -> Outcome {
        let Some(restored) = self.local()?.restored.as_ref() else {
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
        let local = self.local()?;
        let Some(cluster) = local.restored.as_ref().map(|restored| restored.cluster.clone()) else {
            return Err(Failure::order("nothing has been restored that the application could be pointed at"));
        };
        let head = local.repository.head().map_err(|e| Failure::platform(&e))?;
        let release = tree_file(&local.repository, &head, gitops::tree::RELEASE)?;
        let change = gitops::tree::set_database(&release, &cluster).map_err(|e| Failure::platform(&e))?;
        let commit =
            local.repository.commit(&[change], &format!("Point orders at {cluster}"), clock::now()).map_err(|e| Failure::platform(&e))?;
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
