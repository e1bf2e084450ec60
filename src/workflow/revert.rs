//! The fifth phase: the commit is reverted, the code is back, and the data is not.

use super::drill::ms;
use super::{Drill, Failure, Outcome};
use crate::clock;
use crate::gitops::CommitId;
use crate::platform::local::application::TrafficSummary;
use serde_json::json;
use std::time::Instant;
use turnback_core::drill::{Check, CheckId, Phase};
use turnback_core::evidence::RevertRecord;

/// The revert that was made.
#[derive(Clone, Debug)]
pub(super) struct Reverted {
    pub commit: CommitId,
    pub applied: CommitId,
}

impl Drill {
    /// Reverts the change's commit and hands the result to the reconciler. The clock of the recovery starts here.
    pub async fn revert(&mut self) -> Outcome {
        self.enter(Phase::Revert);
        let Some(change) = self.change.clone() else {
            return Err(Failure::order("no change has been deployed that could be reverted"));
        };
        let begun = Instant::now();
        let stage = self.stage()?;
        let traffic = stage.traffic.take();
        let commit = stage.platform.repository().revert(&change.commit, clock::now()).map_err(|e| Failure::platform(&e))?;
        let report = match traffic {
            Some(traffic) => Some(traffic.stop().await),
            None => None,
        };
        self.journal("commit", json!({ "commit": commit.to_string(), "reverts": change.commit.to_string() }));
        let reconciled = self.reconcile(&commit).await?;
        self.record.objectives.rto_parts.push(("revert".into(), ms(begun.elapsed())));
        if let Some(report) = report {
            self.note_traffic(&report);
        }
        let record = RevertRecord {
            commit: commit.to_string(),
            reverts: change.commit.to_string(),
            applied_revision: reconciled.revision.to_string(),
            applied: reconciled.ended,
        };
        self.journal("revert", json!(record));
        self.record.reverts.push(record);
        let seen = format!("commit {} reverts {}", commit.short(), change.commit.short());
        self.reverted = Some(Reverted { commit, applied: reconciled.revision });
        Ok(seen)
    }

    fn note_traffic(&mut self, report: &TrafficSummary) {
        self.journal(
            "traffic",
            json!({ "acknowledged": report.acknowledged.len(), "failed": report.failed, "first_failure": report.first_failure }),
        );
        // Only what was accepted after the recovery point is lost by going back to it.
        let lost = self.record.recovery_points.last().map_or(report.acknowledged.len(), |point| report.acknowledged_after(point.time));
        self.record.objectives.lost_writes = Some(lost as u64);
    }

    /// Asserts that the reconciler stands at exactly the reverting commit.
    pub async fn expect_reverting_revision(&mut self) -> Outcome {
        self.enter(Phase::Revert);
        let Some(reverted) = self.reverted.clone() else {
            return Err(Failure::order("nothing has been reverted"));
        };
        let same = reverted.applied == reverted.commit;
        self.require(Check::observed(CheckId::RevertApplied, same, reverted.commit.short(), reverted.applied.short()))?;
        let exact = self.tree_is_known_good(&reverted.commit)?;
        Ok(format!(
            "revision {} is applied{}",
            reverted.commit.short(),
            if exact { ", and its tree is the one before the change" } else { "" }
        ))
    }

    fn tree_is_known_good(&mut self, commit: &CommitId) -> Result<bool, Failure> {
        let Some(change) = self.change.clone() else { return Ok(false) };
        let repository = self.stage()?.platform.repository();
        let changed = repository.log(1000).map_err(|e| Failure::platform(&e))?;
        let before = changed.iter().skip_while(|entry| entry.id != change.commit).nth(1).map(|entry| entry.id.clone());
        match before {
            Some(before) => Ok(repository.changed_files(&before, commit).map_err(|e| Failure::platform(&e))?.is_empty()),
            None => Ok(false),
        }
    }

    /// Shows that the revert alone did not heal the data.
    pub async fn expect_still_damaged(&mut self) -> Outcome {
        self.enter(Phase::Revert);
        if self.reverted.is_none() {
            return Err(Failure::order("nothing has been reverted"));
        }
        let point = self.record.comparisons.last().map(|record| record.against.clone());
        let Some(point) = point.or_else(|| self.known_good.keys().next().cloned()) else {
            return Err(Failure::order("no known-good state is recorded"));
        };
        let result = self.compare_with(&point, "after-revert").await?;
        let damage = self.damage(&result)?;
        let check = Check::observed(CheckId::RevertAloneInsufficient, !damage.equal(), "still damaged after the revert", damage.summary());
        self.require(check.shown_in("comparisons/after-revert.json"))?;
        Ok(damage.summary())
    }
}
