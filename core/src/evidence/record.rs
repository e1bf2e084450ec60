//! The run model: everything a drill did and saw, as plain data.

use crate::comparison::Comparison;
use crate::drill::{Check, Decision, Phase, Reason, ReasonCode, Verdict};
use crate::recovery::{BaseBackup, Lsn, RecoveryPoint, RecoveryTarget};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Everything one drill did and saw.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DrillRecord {
    /// Which drill, when, where, by what command.
    pub run: Run,
    /// The scenario and its steps.
    pub scenario: Scenario,
    /// Programs and their versions.
    pub toolchain: Vec<Tool>,
    /// When each phase began and how long it took.
    pub phases: Vec<PhaseTime>,
    /// Base backups, verified or not.
    pub backups: Vec<BackupRecord>,
    /// Recovery points taken.
    pub recovery_points: Vec<RecoveryPoint>,
    /// Changes deployed.
    pub changes: Vec<ChangeRecord>,
    /// Reverts made.
    pub reverts: Vec<RevertRecord>,
    /// Restores made.
    pub restores: Vec<RestoreRecord>,
    /// Comparisons made, the last one being the one the verdict rests on.
    pub comparisons: Vec<ComparisonRecord>,
    /// Recovery time and recovery point, promised and measured.
    pub objectives: Objectives,
    /// Every check made, each id once: see [`DrillRecord::take`].
    pub checks: Vec<Check>,
    /// What went wrong outside any check.
    pub incidents: Vec<Reason>,
    /// The verdict; `None` while the drill still runs.
    pub verdict: Option<Verdict>,
    /// Faults injected on purpose, in words.
    pub faults: Vec<String>,
    /// What of the Git tree this platform did not exercise.
    pub not_exercised: Vec<String>,
    /// What this drill cannot show.
    pub limits: Vec<String>,
    /// What was removed, and what was left.
    pub cleanup: Cleanup,
    /// Secrets taken out of this package, counted when it is sealed.
    #[serde(default)]
    pub redactions: u64,
}

impl DrillRecord {
    /// The record of a drill that begins: nothing has been done or seen yet.
    #[must_use]
    pub fn begun(run: Run, scenario: Scenario, toolchain: Vec<Tool>, limits: Vec<String>) -> Self {
        Self {
            run,
            scenario,
            toolchain,
            phases: Vec::new(),
            backups: Vec::new(),
            recovery_points: Vec::new(),
            changes: Vec::new(),
            reverts: Vec::new(),
            restores: Vec::new(),
            comparisons: Vec::new(),
            objectives: Objectives::default(),
            checks: Vec::new(),
            incidents: Vec::new(),
            verdict: None,
            faults: Vec::new(),
            not_exercised: Vec::new(),
            limits,
            cleanup: Cleanup::default(),
            redactions: 0,
        }
    }

    /// Takes in a check and says whether it passed. Each id stands once in the record: where the same is checked again (two backups, say),
    /// both become one check that passed only where both did and tells what was seen each time.
    pub fn take(&mut self, check: Check) -> bool {
        let passed = check.passed();
        match self.checks.iter_mut().find(|known| known.id == check.id) {
            Some(known) => known.join(check),
            None => self.checks.push(check),
        }
        passed
    }

    /// The verdict; a drill that ended before one was drawn is INCONCLUSIVE, whatever its checks say so far.
    #[must_use]
    pub fn decided(&self) -> Verdict {
        self.verdict.clone().unwrap_or_else(|| {
            let early = Reason::new(ReasonCode::Interrupted, "the drill ended before its verdict was drawn");
            Verdict { decision: Decision::Inconclusive, reasons: self.incidents.iter().cloned().chain([early]).collect() }
        })
    }

    /// What to do next, as the reasons say: each remedy once, with the codes that call for it.
    #[must_use]
    pub fn remediation(&self) -> Vec<Remediation> {
        let mut notes: Vec<Remediation> = Vec::new();
        for reason in self.decided().reasons {
            match notes.iter_mut().find(|note| note.note == reason.remedy) {
                Some(note) if note.codes.contains(&reason.code) => {}
                Some(note) => note.codes.push(reason.code),
                None => notes.push(Remediation { codes: vec![reason.code], note: reason.remedy }),
            }
        }
        notes
    }

    /// The comparison that the verdict rests on.
    #[must_use]
    pub fn final_comparison(&self) -> Option<&ComparisonRecord> {
        self.comparisons.last()
    }
}

/// What to do next, and which reasons call for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remediation {
    /// The reasons' codes.
    pub codes: Vec<ReasonCode>,
    /// What to do.
    pub note: String,
}

/// Which drill, when, where, by what command.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Run {
    /// Unique id (UUID v7).
    pub id: String,
    /// A random value that no other drill has.
    pub nonce: String,
    /// The version of Turnback.
    pub turnback: String,
    /// The command line that reproduces it.
    pub command: String,
    /// `local`, `kind` or `context:NAME`.
    pub platform: String,
    /// What the platform is, in a sentence; says “rehearsal” where Flux was not the real one.
    pub platform_note: String,
    /// Who ran it, as the operating system says.
    pub actor: String,
    /// Begin, UTC.
    pub started: Timestamp,
    /// End, UTC.
    pub ended: Timestamp,
    /// Monotonic duration, in milliseconds.
    pub wall_ms: u64,
}

/// A scenario as it ran.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Scenario {
    /// The feature's name.
    pub feature: String,
    /// Where the feature was read from; `embedded` ones by their name.
    pub file: String,
    /// The scenario's name.
    pub name: String,
    /// Its steps, in order.
    pub steps: Vec<StepRecord>,
}

/// How a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepStatus {
    /// It ran and held.
    Passed,
    /// It ran and did not hold, or could not be carried out.
    Failed,
    /// It did not run.
    Skipped,
}

/// One step as it ran.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StepRecord {
    /// `Given`, `When`, `Then`, `And`, …
    pub keyword: String,
    /// Its text.
    pub text: String,
    /// The phase it belongs to.
    pub phase: Phase,
    /// How it ended.
    pub status: StepStatus,
    /// Monotonic duration, in milliseconds.
    pub ms: u64,
    /// What was seen, in a line.
    pub seen: Option<String>,
    /// Why it failed.
    pub error: Option<String>,
}

/// A program used.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Tool {
    /// Its name.
    pub name: String,
    /// What it says of its version.
    pub version: String,
}

/// A phase's time.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PhaseTime {
    /// Which.
    pub phase: Phase,
    /// Begin, UTC.
    pub started: Timestamp,
    /// Monotonic duration, in milliseconds.
    pub ms: u64,
}

/// A base backup and whether it was verified.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BackupRecord {
    /// The backup.
    #[serde(flatten)]
    pub backup: BaseBackup,
    /// Whether `pg_verifybackup` (or the platform's own means) found it whole; `None` where nobody looked.
    pub verified: Option<bool>,
    /// What it was verified with, and what that said.
    pub verification: String,
}

/// A change deployed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ChangeRecord {
    /// The migration: version and description.
    pub migration: String,
    /// Its SQL's SHA-256.
    pub sql_sha256: String,
    /// The commit that carries it.
    pub commit: String,
    /// The revision that the reconciler applied.
    pub applied_revision: String,
    /// When it was applied, UTC.
    pub applied: Timestamp,
}

/// A revert made.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RevertRecord {
    /// The reverting commit.
    pub commit: String,
    /// The commit that it reverts.
    pub reverts: String,
    /// The revision that the reconciler applied.
    pub applied_revision: String,
    /// When it was applied, UTC.
    pub applied: Timestamp,
}

/// Where replay stopped, seen while it was paused and before promotion.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Reached {
    /// `pg_get_wal_replay_pause_state()`.
    pub pause_state: String,
    /// `pg_last_wal_replay_lsn()`.
    pub lsn: Lsn,
    /// `pg_last_xact_replay_timestamp()`; `None` where no commit was replayed.
    pub last_commit: Option<Timestamp>,
    /// Whether the recovery point's marker is committed there; `None` where there is no recovery point of ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub marker_present: Option<bool>,
    /// Whether the sentinel is not there; `None` likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sentinel_absent: Option<bool>,
}

/// A restore made.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RestoreRecord {
    /// The recovery point that it goes back to.
    pub recovery_point: String,
    /// The backup that it started from.
    pub backup: String,
    /// The target.
    pub target: RecoveryTarget,
    /// Where replay stopped; `None` where it never paused.
    pub reached: Option<Reached>,
    /// The timeline after promotion; `None` where it was not promoted.
    pub timeline: Option<u32>,
    /// The system identifier after promotion.
    pub system_identifier: Option<String>,
    /// The commits that declared it and switched the application.
    pub commits: Vec<String>,
    /// How long each part took, in milliseconds: `files`, `replay`, `proof`, `promotion`, `switch`.
    pub parts: Vec<(String, u64)>,
}

/// A comparison made.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ComparisonRecord {
    /// When in the drill: `after-change`, `after-revert`, `after-restore`.
    pub name: String,
    /// The known-good state that it was held against.
    pub against: String,
    /// When, UTC.
    pub at: Timestamp,
    /// The result.
    #[serde(flatten)]
    pub result: Comparison,
    /// The file that holds it in full.
    pub file: String,
}

/// Promised and measured.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Objectives {
    /// Recovery time objective, in milliseconds, where one was set.
    pub rto_target_ms: Option<u64>,
    /// From the decision to roll back to the healthy application on restored data, in milliseconds.
    pub rto_ms: Option<u64>,
    /// Its parts, in order: name and milliseconds.
    pub rto_parts: Vec<(String, u64)>,
    /// Recovery point objective, in milliseconds, where one was set.
    pub rpo_target_ms: Option<u64>,
    /// From the recovery point to the last commit that was lost, on the primary's clock, in milliseconds.
    pub rpo_ms: Option<u64>,
    /// Commits between the recovery point and the end, counted from the WAL; they are lost.
    pub lost_commits: Option<u64>,
    /// Writes that the application had acknowledged and that are lost.
    pub lost_writes: Option<u64>,
}

/// What was removed, and what was left.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Cleanup {
    /// Whether nothing is left of what the drill created outside its evidence.
    pub complete: bool,
    /// What was removed.
    pub removed: Vec<String>,
    /// What was left, and why.
    pub left: Vec<String>,
}
