//! One observation held against one expectation.

use super::ReasonCode;
use serde::{Deserialize, Serialize};

/// What a drill can check. The names are stable: evidence, approvals and rollback conditions refer to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CheckId {
    /// The base backup's files and WAL agree with its manifest.
    BackupVerified,
    /// Catalog snapshot and fingerprint are bound to a recovery point whose WAL is archived.
    KnownGoodRecorded,
    /// The change is in Git, reconciled, and in the migration history.
    ChangeApplied,
    /// Schema or rows differ from known-good after the change.
    DamageShown,
    /// The application itself reports database errors.
    ApplicationErrorsShown,
    /// The reconciler reached exactly the reverting revision.
    RevertApplied,
    /// After the revert alone, the data is still damaged.
    RevertAloneInsufficient,
    /// The base backup that was restored is whole.
    BackupIntact,
    /// The WAL that replay needs is there and whole.
    WalIntact,
    /// Replay paused at the target, before promotion.
    ReplayStoppedAtTarget,
    /// The last wanted transaction is there.
    MarkerPresent,
    /// The first unwanted transaction is not.
    SentinelAbsent,
    /// The restored server runs on a new timeline.
    TimelineAdvanced,
    /// The restored server is the same database system.
    SystemIdentifierUnchanged,
    /// Every schema object equals the known-good state.
    SchemaEqual,
    /// Every row equals the known-good state.
    DataEqual,
    /// The bad migration is not in the restored history.
    ChangeNotInHistory,
    /// The application is healthy on the restored server.
    ApplicationHealthy,
    /// The application runs the known-good version.
    ApplicationVersion,
    /// Recovery took no longer than promised.
    RtoMet,
    /// No more was lost than promised.
    RpoMet,
}

impl CheckId {
    /// Without each of these passed there is no GO.
    pub const CRITICAL: [Self; 14] = [
        Self::BackupVerified,
        Self::KnownGoodRecorded,
        Self::ChangeApplied,
        Self::DamageShown,
        Self::RevertApplied,
        Self::RevertAloneInsufficient,
        Self::ReplayStoppedAtTarget,
        Self::MarkerPresent,
        Self::SentinelAbsent,
        Self::TimelineAdvanced,
        Self::SystemIdentifierUnchanged,
        Self::SchemaEqual,
        Self::DataEqual,
        Self::ChangeNotInHistory,
    ];

    /// The same for a restore drill alone, where nothing was changed and nothing reverted.
    pub const CRITICAL_FOR_RESTORE: [Self; 6] = [
        Self::BackupIntact,
        Self::ReplayStoppedAtTarget,
        Self::TimelineAdvanced,
        Self::SystemIdentifierUnchanged,
        Self::SchemaEqual,
        Self::DataEqual,
    ];

    /// What says something about the restored server, and nothing about it any more once something changed there.
    pub const OF_THE_RESTORED: [Self; 4] = [Self::SchemaEqual, Self::DataEqual, Self::ChangeNotInHistory, Self::ApplicationHealthy];

    /// The name used in evidence.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::BackupVerified => "backup-verified",
            Self::KnownGoodRecorded => "known-good-recorded",
            Self::ChangeApplied => "change-applied",
            Self::DamageShown => "damage-shown",
            Self::ApplicationErrorsShown => "application-errors-shown",
            Self::RevertApplied => "revert-applied",
            Self::RevertAloneInsufficient => "revert-alone-insufficient",
            Self::BackupIntact => "backup-intact",
            Self::WalIntact => "wal-intact",
            Self::ReplayStoppedAtTarget => "replay-stopped-at-target",
            Self::MarkerPresent => "marker-present",
            Self::SentinelAbsent => "sentinel-absent",
            Self::TimelineAdvanced => "timeline-advanced",
            Self::SystemIdentifierUnchanged => "system-identifier-unchanged",
            Self::SchemaEqual => "schema-equal",
            Self::DataEqual => "data-equal",
            Self::ChangeNotInHistory => "change-not-in-history",
            Self::ApplicationHealthy => "application-healthy",
            Self::ApplicationVersion => "application-version",
            Self::RtoMet => "rto-met",
            Self::RpoMet => "rpo-met",
        }
    }

    /// What a person reads.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::BackupVerified => "the base backup is verified",
            Self::KnownGoodRecorded => "the known-good state is bound to a recovery point",
            Self::ChangeApplied => "the change is applied and in the migration history",
            Self::DamageShown => "the damage is shown",
            Self::ApplicationErrorsShown => "the application reports database errors",
            Self::RevertApplied => "exactly the reverting revision is applied",
            Self::RevertAloneInsufficient => "reverting the code alone did not heal the data",
            Self::BackupIntact => "the restored backup is whole",
            Self::WalIntact => "the WAL needed is whole",
            Self::ReplayStoppedAtTarget => "replay stopped at the target",
            Self::MarkerPresent => "the last wanted transaction is there",
            Self::SentinelAbsent => "the first unwanted transaction is not",
            Self::TimelineAdvanced => "a new timeline began",
            Self::SystemIdentifierUnchanged => "it is the same database system",
            Self::SchemaEqual => "the schema equals the known-good one",
            Self::DataEqual => "every row equals the known-good one",
            Self::ChangeNotInHistory => "the bad migration is not in the history",
            Self::ApplicationHealthy => "the application is healthy",
            Self::ApplicationVersion => "the application runs the known-good version",
            Self::RtoMet => "recovery was fast enough (RTO)",
            Self::RpoMet => "no more was lost than allowed (RPO)",
        }
    }

    /// What it means for the verdict when this check fails.
    #[must_use]
    pub fn reason(self) -> ReasonCode {
        match self {
            Self::BackupVerified | Self::BackupIntact => ReasonCode::BackupDamaged,
            Self::KnownGoodRecorded => ReasonCode::KnownGoodNotRecorded,
            Self::ChangeApplied => ReasonCode::ChangeNotApplied,
            Self::DamageShown => ReasonCode::NoDamage,
            Self::ApplicationErrorsShown => ReasonCode::ApplicationErrorsNotShown,
            Self::RevertApplied => ReasonCode::RevertNotApplied,
            Self::RevertAloneInsufficient => ReasonCode::RevertAloneHealed,
            Self::WalIntact => ReasonCode::WalDamaged,
            Self::ReplayStoppedAtTarget => ReasonCode::TargetNotReached,
            Self::MarkerPresent => ReasonCode::RestoredTooEarly,
            Self::SentinelAbsent => ReasonCode::RestoredTooLate,
            Self::TimelineAdvanced => ReasonCode::WrongTimeline,
            Self::SystemIdentifierUnchanged => ReasonCode::WrongSystemIdentifier,
            Self::SchemaEqual => ReasonCode::SchemaDiffers,
            Self::DataEqual => ReasonCode::DataDiffers,
            Self::ChangeNotInHistory => ReasonCode::ChangeInHistory,
            Self::ApplicationHealthy => ReasonCode::ApplicationUnhealthy,
            Self::ApplicationVersion => ReasonCode::ApplicationVersionWrong,
            Self::RtoMet => ReasonCode::RtoMissed,
            Self::RpoMet => ReasonCode::RpoMissed,
        }
    }
}

/// How a check ended. What was never looked at is unknown, and unknown is never passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CheckStatus {
    /// Observed as expected.
    Passed,
    /// Observed, and not as expected.
    Failed,
}

/// One observation held against one expectation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// Which.
    pub id: CheckId,
    /// How it ended.
    pub status: CheckStatus,
    /// What had to be.
    pub expected: String,
    /// What was.
    pub actual: String,
    /// The evidence file that shows it, relative to the package.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
}

impl Check {
    /// A check from an observation.
    #[must_use]
    pub fn observed(id: CheckId, passed: bool, expected: impl Into<String>, actual: impl Into<String>) -> Self {
        let status = if passed { CheckStatus::Passed } else { CheckStatus::Failed };
        Self { id, status, expected: expected.into(), actual: actual.into(), file: None }
    }

    /// Names the file that shows it.
    #[must_use]
    pub fn shown_in(mut self, file: impl Into<String>) -> Self {
        self.file = Some(file.into());
        self
    }

    /// Makes one check of this and a later one of the same id.
    pub(crate) fn join(&mut self, later: Self) {
        let both = |mine: &mut String, theirs: &str| {
            if mine.as_str() != theirs {
                *mine = format!("{mine}; {theirs}");
            }
        };
        both(&mut self.expected, &later.expected);
        both(&mut self.actual, &later.actual);
        if !later.passed() {
            self.status = CheckStatus::Failed;
        }
        self.file = later.file.or(self.file.take());
    }

    /// Whether it passed.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.status == CheckStatus::Passed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_checks_of_one_id_become_one_that_passed_only_where_both_did() {
        let check = |passed, actual: &str| Check::observed(CheckId::BackupVerified, passed, "every file whole", actual);
        for (first, second) in [(true, true), (true, false), (false, true)] {
            let mut joined = check(first, "“a”: whole");
            joined.join(check(second, "“b”: whole").shown_in("logs/b.log"));
            assert_eq!(joined.passed(), first && second);
            assert_eq!((joined.expected.as_str(), joined.actual.as_str()), ("every file whole", "“a”: whole; “b”: whole"));
            joined.join(check(true, "“a”: whole; “b”: whole"));
            assert_eq!((joined.actual.as_str(), joined.file.as_deref()), ("“a”: whole; “b”: whole", Some("logs/b.log")));
        }
    }
}
