//! GO, NO-GO or INCONCLUSIVE, and why.

use super::{Check, CheckId, Reason, ReasonCode};
use serde::{Deserialize, Serialize};
use std::fmt;

/// The three ways a drill can end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Decision {
    /// The release can be turned back.
    #[serde(rename = "GO")]
    Go,
    /// It was not shown either way.
    #[serde(rename = "INCONCLUSIVE")]
    Inconclusive,
    /// It cannot.
    #[serde(rename = "NO_GO")]
    NoGo,
}

impl Decision {
    /// The process's exit code for this decision.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Go => 0,
            Self::NoGo => 1,
            Self::Inconclusive => 3,
        }
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Go => "GO",
            Self::NoGo => "NO-GO",
            Self::Inconclusive => "INCONCLUSIVE",
        })
    }
}

/// A decision and the reasons it follows from; never empty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// The decision.
    pub decision: Decision,
    /// Why, the weightiest first.
    pub reasons: Vec<Reason>,
}

/// What a drill sets out to show, and so which checks it needs and what its GO says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DrillKind {
    /// A change is made, found to do damage, reverted, and the database restored.
    Rollback,
    /// An existing backup and WAL archive are restored and compared with a baseline.
    Restore,
}

impl DrillKind {
    /// Without each of these passed there is no GO.
    #[must_use]
    pub fn critical(self) -> &'static [CheckId] {
        match self {
            Self::Rollback => &CheckId::CRITICAL,
            Self::Restore => &CheckId::CRITICAL_FOR_RESTORE,
        }
    }

    fn success(self) -> Reason {
        match self {
            Self::Rollback => Reason::new(
                ReasonCode::RecoveredExactly,
                "the damage was shown, reverting the code did not heal it, and the restored database equals the known-good state in every schema object and every row",
            ),
            Self::Restore => Reason::new(
                ReasonCode::RestoredExactly,
                "the backup is whole, replay stopped at the target, and the restored database equals the baseline in every schema object and every row",
            ),
        }
    }

    fn lack(self, missing: &[CheckId]) -> Reason {
        if self == Self::Restore && missing == [CheckId::SchemaEqual, CheckId::DataEqual] {
            return Reason::new(
                ReasonCode::NothingCompared,
                "the backup could be restored to the target, but nothing was compared: whether the right data is in it is not known",
            );
        }
        let names: Vec<_> = missing.iter().map(|id| id.name()).collect();
        Reason::new(ReasonCode::CheckNotRun, format!("never checked: {}", names.join(", ")))
    }
}

/// Draws the verdict of a rollback drill; see [`verdict_for`].
#[must_use]
pub fn verdict(checks: &[Check], incidents: &[Reason]) -> Verdict {
    verdict_for(DrillKind::Rollback, checks, incidents)
}

/// Draws the verdict.
///
/// `incidents` are what went wrong outside any check: a failed step, a broken platform, an interruption. A failing platform outweighs what the
/// checks would have said, because a check that fails on a broken platform says nothing about the release: then the verdict is INCONCLUSIVE.
/// Otherwise anything that speaks against the release makes it NO-GO, anything unknown makes it INCONCLUSIVE, and only when nothing remains
/// and every critical check passed is it GO.
#[must_use]
pub fn verdict_for(kind: DrillKind, checks: &[Check], incidents: &[Reason]) -> Verdict {
    let platform = |reason: &&Reason| {
        matches!(
            reason.code,
            ReasonCode::PlatformFailed
                | ReasonCode::DiskFull
                | ReasonCode::Interrupted
                | ReasonCode::DeadlineExceeded
                | ReasonCode::BackupNotCompleted
        )
    };
    if incidents.iter().any(|reason| platform(&reason)) {
        return Verdict { decision: Decision::Inconclusive, reasons: incidents.to_vec() };
    }

    let failed = checks
        .iter()
        .filter(|check| !check.passed())
        .map(|check| Reason::new(check.id.reason(), format!("{}: expected {}, found {}", check.id.title(), check.expected, check.actual)));
    let mut reasons: Vec<Reason> = incidents.to_vec();
    for reason in failed {
        if !reasons.iter().any(|known| known.code == reason.code) {
            reasons.push(reason);
        }
    }
    let missing: Vec<_> = kind.critical().iter().copied().filter(|id| !checks.iter().any(|check| check.id == *id)).collect();
    // A drill that ended early lacks checks because of what ended it; that is the reason, not the lack.
    if reasons.is_empty() && !missing.is_empty() {
        reasons.push(kind.lack(&missing));
    }
    // A drill whose change did nothing is void whatever else failed in it.
    let void = reasons.iter().any(|reason| matches!(reason.code, ReasonCode::NoDamage | ReasonCode::RevertAloneHealed));
    let decision =
        if void { Decision::Inconclusive } else { reasons.iter().map(|reason| reason.code.decision()).max().unwrap_or(Decision::Go) };
    if reasons.is_empty() {
        reasons.push(kind.success());
    }
    reasons.sort_by_key(|reason| std::cmp::Reverse(reason.code.decision()));
    if void {
        reasons.sort_by_key(|reason| !matches!(reason.code, ReasonCode::NoDamage | ReasonCode::RevertAloneHealed));
    }
    Verdict { decision, reasons }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all_passed() -> Vec<Check> {
        CheckId::CRITICAL.iter().map(|id| Check::observed(*id, true, "x", "x")).collect()
    }

    #[test]
    fn go_needs_every_critical_check() {
        assert_eq!(verdict(&all_passed(), &[]).decision, Decision::Go);
        for id in CheckId::CRITICAL {
            let without: Vec<_> = all_passed().into_iter().filter(|check| check.id != id).collect();
            let drawn = verdict(&without, &[]);
            assert_eq!(drawn.decision, Decision::Inconclusive, "{id:?}");
            assert!(drawn.reasons[0].message.contains(id.name()));
        }
    }

    #[test]
    fn one_failed_check_is_never_go() {
        for id in CheckId::CRITICAL {
            let mut checks = all_passed();
            checks.push(Check::observed(id, false, "x", "y"));
            let drawn = verdict(&checks, &[]);
            assert_eq!(drawn.decision, id.reason().decision(), "{id:?}");
            assert_eq!(drawn.reasons[0].code, id.reason());
        }
    }

    #[test]
    fn nothing_at_all_is_not_go() {
        assert_eq!(verdict(&[], &[]).decision, Decision::Inconclusive);
    }

    #[test]
    fn a_restore_drill_has_its_own_checks_and_needs_each() {
        let passed: Vec<_> = CheckId::CRITICAL_FOR_RESTORE.iter().map(|id| Check::observed(*id, true, "x", "x")).collect();
        let drawn = verdict_for(DrillKind::Restore, &passed, &[]);
        assert_eq!((drawn.decision, drawn.reasons[0].code), (Decision::Go, ReasonCode::RestoredExactly));
        assert_eq!(verdict(&passed, &[]).decision, Decision::Inconclusive, "it says nothing about a rollback");
        for id in CheckId::CRITICAL_FOR_RESTORE {
            let without: Vec<_> = passed.iter().filter(|check| check.id != id).cloned().collect();
            let drawn = verdict_for(DrillKind::Restore, &without, &[]);
            assert_eq!((drawn.decision, drawn.reasons[0].code), (Decision::Inconclusive, ReasonCode::CheckNotRun), "{id:?}");
            let failed = passed.iter().cloned().chain([Check::observed(id, false, "x", "y")]).collect::<Vec<_>>();
            assert_eq!(verdict_for(DrillKind::Restore, &failed, &[]).decision, Decision::NoGo, "{id:?}");
        }
    }

    #[test]
    fn a_restore_without_a_baseline_is_never_go() {
        let compared = |id: &CheckId| matches!(id, CheckId::SchemaEqual | CheckId::DataEqual);
        let passed: Vec<_> =
            CheckId::CRITICAL_FOR_RESTORE.iter().filter(|id| !compared(id)).map(|id| Check::observed(*id, true, "x", "x")).collect();
        let drawn = verdict_for(DrillKind::Restore, &passed, &[]);
        assert_eq!((drawn.decision, drawn.reasons[0].code), (Decision::Inconclusive, ReasonCode::NothingCompared));
    }

    #[test]
    fn a_broken_platform_outweighs_what_checks_say() {
        let mut checks = all_passed();
        checks.push(Check::observed(CheckId::DataEqual, false, "x", "y"));
        let drawn = verdict(&checks, &[Reason::new(ReasonCode::DiskFull, "no space")]);
        assert_eq!((drawn.decision, drawn.reasons[0].code), (Decision::Inconclusive, ReasonCode::DiskFull));
    }

    #[test]
    fn a_drill_without_damage_is_void() {
        let checks =
            [Check::observed(CheckId::DamageShown, false, "a difference", "none"), Check::observed(CheckId::RtoMet, false, "1 s", "2 s")];
        let drawn = verdict(&checks, &[]);
        assert_eq!((drawn.decision, drawn.reasons[0].code), (Decision::Inconclusive, ReasonCode::NoDamage));
    }
}
