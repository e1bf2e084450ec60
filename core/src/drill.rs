//! What a drill is: its phases, the checks that must have run, and the verdict that follows from them.
//!
//! The verdict is a pure function of what was recorded. It knows nothing about who observed it, on which platform, or how it is printed.

mod check;
mod reason;
mod verdict;

pub use check::{Check, CheckId, CheckStatus};
pub use reason::{Reason, ReasonCode};
pub use verdict::{Decision, DrillKind, Verdict, verdict, verdict_for};

use serde::{Deserialize, Serialize};
use std::fmt;

/// The ordered phases of a drill.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Servers, repository, reconciler and application come up.
    Platform,
    /// The backup is verified, a fresh one taken, the known-good state bound to a recovery point.
    KnownGood,
    /// The migration is committed and reconciled.
    Change,
    /// What it broke is shown.
    Damage,
    /// The commit is reverted and reconciled.
    Revert,
    /// Point-in-time recovery onto a new server.
    Restore,
    /// The restored state is compared with the known-good one.
    Verification,
    /// The verdict is drawn and the evidence sealed.
    Verdict,
}

impl Phase {
    /// All phases, in order.
    pub const ALL: [Self; 8] =
        [Self::Platform, Self::KnownGood, Self::Change, Self::Damage, Self::Revert, Self::Restore, Self::Verification, Self::Verdict];

    /// The name used in journals, reports and messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Platform => "platform",
            Self::KnownGood => "known-good",
            Self::Change => "change",
            Self::Damage => "damage",
            Self::Revert => "revert",
            Self::Restore => "restore",
            Self::Verification => "verification",
            Self::Verdict => "verdict",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
