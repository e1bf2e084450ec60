//! Why a verdict is what it is: stable codes, each with what it decides and what to do next.

use super::Decision;
use serde::{Deserialize, Serialize};

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $code:literal, $decision:ident, $remedy:literal;)*) => {
        /// Every reason a verdict can have. The codes are stable.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum ReasonCode { $($(#[$doc])* #[serde(rename = $code)] $variant,)* }

        impl ReasonCode {
            /// All of them, in order of declaration.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The stable code.
            #[must_use]
            pub fn code(self) -> &'static str { match self { $(Self::$variant => $code),* } }

            /// What a verdict with this reason is at best.
            #[must_use]
            pub fn decision(self) -> Decision { match self { $(Self::$variant => Decision::$decision),* } }

            /// What to do next.
            #[must_use]
            pub fn remedy(self) -> &'static str { match self { $(Self::$variant => $remedy),* } }

            /// The reason with this code.
            #[must_use]
            pub fn from_code(code: &str) -> Option<Self> { Self::ALL.iter().copied().find(|reason| reason.code() == code) }
        }
    };
}

reasons! {
    /// Damage was shown, the revert alone did not heal it, the restore did, and every check passed.
    RecoveredExactly = "recovered-exactly", Go,
        "Keep the evidence beside the release; run the drill again when backup, schema or platform change.";

    /// A restore drill alone: backup and WAL were brought back to the target, and what is there equals the baseline.
    RestoredExactly = "restored-exactly", Go,
        "Keep the evidence beside the backup; run the restore drill again with every new backup.";

    /// A file of the base backup is damaged or missing.
    BackupDamaged = "backup-damaged", NoGo,
        "Take a new base backup and verify it with pg_verifybackup; find out what damaged the old one before trusting that storage.";
    /// A WAL segment that replay needs is not in the archive.
    WalMissing = "wal-segment-missing", NoGo,
        "Bring the segment back from a copy; check archive_command and the archive's retention; take a fresh base backup, because nothing after the gap can be restored from the old one.";
    /// A WAL segment is truncated or altered.
    WalDamaged = "wal-segment-damaged", NoGo,
        "Bring the segment back from a copy; find out what altered it; take a fresh base backup after it.";
    /// Replay ended before the target.
    TargetNotReached = "recovery-target-not-reached", NoGo,
        "Read the recovery log in the evidence: the last completed transaction is what can be reached. Commit a sentinel after the recovery point and wait until its segment is archived.";
    /// The last wanted transaction is missing.
    RestoredTooEarly = "restored-too-early", NoGo,
        "The target lies before the recovery point: take the target from the primary's own clock or LSN, not from a ticket or a chat.";
    /// The first unwanted transaction is there.
    RestoredTooLate = "restored-too-late", NoGo,
        "The target lies after the recovery point: check the time zone offset and recovery_target_inclusive.";
    /// The restored server did not begin a new timeline.
    WrongTimeline = "wrong-timeline", NoGo,
        "The server was not promoted out of this recovery; check that it is the one that was restored.";
    /// The restored server is another database system.
    WrongSystemIdentifier = "wrong-system-identifier", NoGo,
        "The backup belongs to another server; check the backup's and the archive's location (serverName).";
    /// The schema differs from known-good after the restore.
    SchemaDiffers = "schema-differs", NoGo,
        "Read the differences in the evidence; what differs was changed before the recovery point or after the promotion.";
    /// Rows differ from known-good after the restore.
    DataDiffers = "data-differs", NoGo,
        "Read the differences in the evidence, by table and key; what differs was written before the recovery point or after the promotion.";
    /// The bad migration is in the restored history.
    ChangeInHistory = "change-in-history", NoGo,
        "The migration was applied again or the target was too late: revert it in Git before the application is pointed at the restored server.";
    /// The application is not healthy on the restored server.
    ApplicationUnhealthy = "application-unhealthy", NoGo,
        "Read the application's log in the evidence; check its connection and that its version fits the restored schema.";
    /// The application does not run the known-good version.
    ApplicationVersionWrong = "application-version-wrong", NoGo,
        "The revert did not bring the application back: check which commit carries its version.";
    /// The restored server cannot serve with its settings.
    SettingsBroken = "settings-broken", NoGo,
        "Read the server's log in the evidence and repair the setting; settings live beside the data and are not healed by a restore.";
    /// The reverting revision never became the applied one.
    RevertNotApplied = "revert-not-applied", NoGo,
        "Look at the reconciler's last status in the evidence; the revert must be the head of the branch that it follows.";
    /// Recovery took longer than promised.
    RtoMissed = "rto-missed", NoGo,
        "See which phase took the time; restore from a nearer backup or promise less.";
    /// More was lost than promised.
    RpoMissed = "rpo-missed", NoGo,
        "Take the recovery point nearer to the change, or stop writes before it.";
    /// An expectation written in the scenario did not hold.
    ExpectationFailed = "expectation-failed", NoGo,
        "Read the failed step: either the expectation is wrong or the rollback does not do what the team believes.";

    /// The change changed nothing: the drill shows nothing.
    NoDamage = "no-damage", Inconclusive,
        "Choose a migration that changes schema or rows: a drill without damage proves nothing about a restore.";
    /// The revert alone brought the data back.
    RevertAloneHealed = "revert-alone-healed", Inconclusive,
        "The damage did not outlive the revert, so the restore was never needed; choose damage that lives in the data.";
    /// The known-good state could not be bound to a recovery point.
    KnownGoodNotRecorded = "known-good-not-recorded", Inconclusive,
        "See what was missing: archiving, the sentinel, or the snapshot.";
    /// The change never reached the database.
    ChangeNotApplied = "change-not-applied", Inconclusive,
        "Read the migrator's log in the evidence; a migration that fails damages nothing.";
    /// The application did not report what the damage did to it.
    ApplicationErrorsNotShown = "application-errors-not-shown", Inconclusive,
        "The application's health does not depend on the damaged objects: extend its health check.";
    /// A restore drill that had no baseline to compare with.
    NothingCompared = "nothing-compared", Inconclusive,
        "Record a baseline with `turnback snapshot` while the database is as it should be, and name its directory with --baseline.";
    /// A check without which there is no GO was never made.
    CheckNotRun = "check-not-run", Inconclusive,
        "Add the step that makes the check; `turnback vocabulary` lists them.";
    /// A step was skipped.
    StepSkipped = "step-skipped", Inconclusive,
        "A skipped step proves nothing: make it run or take it out of the scenario.";
    /// No scenario ran.
    NoScenario = "no-scenario", Inconclusive,
        "Check the feature files and the filter.";
    /// The target of the restore lies after the last archived commit.
    TargetAfterLastCommit = "target-after-last-commit", Inconclusive,
        "Commit a sentinel after the recovery point and wait until its segment is archived, or choose an earlier target.";
    /// The target of the restore lies before the end of every backup.
    TargetBeforeBackup = "target-before-backup", Inconclusive,
        "Choose a later target or restore from an older backup.";
    /// There is no backup to restore from.
    NoBackup = "no-backup", Inconclusive,
        "Take a base backup before the change.";
    /// A phase did not end in time.
    DeadlineExceeded = "deadline-exceeded", Inconclusive,
        "See the last status of the wait in the evidence; give the phase more time or find out what hangs.";
    /// The backup did not complete in time.
    BackupNotCompleted = "backup-not-completed", Inconclusive,
        "See the backup's log in the evidence: most often WAL is not being archived.";
    /// The SQL of the scenario's own database could not be loaded.
    DatabaseNotLoaded = "database-not-loaded", Inconclusive,
        "Repair the SQL at the line that psql names, or load the file with psql by hand to see more.";
    /// The platform itself failed.
    PlatformFailed = "platform-failed", Inconclusive,
        "Run `turnback doctor`, repair what it names, and run the drill again.";
    /// The disk is full.
    DiskFull = "disk-full", Inconclusive,
        "Make room or choose another --work directory, and run the drill again.";
    /// Someone ended the drill.
    Interrupted = "interrupted", Inconclusive,
        "Run the drill again; the evidence says whether anything was left, and `turnback clean` removes it.";
}

/// A reason with what was seen in this drill.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// The stable code.
    pub code: ReasonCode,
    /// What was seen, in a sentence.
    pub message: String,
    /// What to do next.
    pub remedy: String,
}

impl Reason {
    /// A reason and its remedy.
    #[must_use]
    pub fn new(code: ReasonCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), remedy: code.remedy().to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn codes_are_unique_and_found_again() {
        let codes: BTreeSet<_> = ReasonCode::ALL.iter().map(|reason| reason.code()).collect();
        assert_eq!(codes.len(), ReasonCode::ALL.len());
        for reason in ReasonCode::ALL {
            assert_eq!(ReasonCode::from_code(reason.code()), Some(*reason));
            assert!(!reason.remedy().is_empty());
        }
    }

    #[test]
    fn only_one_reason_of_each_kind_of_drill_says_go() {
        let go: Vec<_> = ReasonCode::ALL.iter().filter(|reason| reason.decision() == Decision::Go).collect();
        assert_eq!(go, [&ReasonCode::RecoveredExactly, &ReasonCode::RestoredExactly]);
    }
}
