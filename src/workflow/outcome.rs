//! How a step of the workflow ends, and how an adapter's error becomes a reason with a code.

use std::fmt;
use turnback_core::drill::{Reason, ReasonCode};

/// What was seen, in a few lines, or why it did not hold.
pub type Outcome = Result<String, Failure>;

/// Why a step did not hold or could not be carried out.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The reason, as it enters the verdict.
    pub reason: Reason,
}

impl Failure {
    /// A failure for a reason.
    #[must_use]
    pub fn new(reason: Reason) -> Self {
        Self { reason }
    }

    /// A failure with a code and what was seen.
    pub fn because(code: ReasonCode, message: impl fmt::Display) -> Self {
        Self { reason: Reason::new(code, message.to_string()) }
    }

    /// The platform could not do what the drill needed: never held against the release.
    pub fn platform(error: &(dyn std::error::Error + 'static)) -> Self {
        let text = chain(error);
        let code = if disk_full(error, &text) { ReasonCode::DiskFull } else { ReasonCode::PlatformFailed };
        Self::because(code, text)
    }

    /// An expectation of the scenario did not hold.
    pub fn expectation(message: impl fmt::Display) -> Self {
        Self::because(ReasonCode::ExpectationFailed, message)
    }

    /// A step came before the one that it builds on.
    pub fn order(message: impl fmt::Display) -> Self {
        Self::because(ReasonCode::CheckNotRun, message)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason.message)
    }
}

/// An error with its sources, none of them said twice.
#[must_use]
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let more = inner.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        source = inner.source();
    }
    text
}

fn disk_full(error: &(dyn std::error::Error + 'static), text: &str) -> bool {
    let mut at = Some(error);
    while let Some(inner) = at {
        if inner.downcast_ref::<std::io::Error>().is_some_and(|io| io.kind() == std::io::ErrorKind::StorageFull) {
            return true;
        }
        at = inner.source();
    }
    // PostgreSQL's programs say it in words only (SQLSTATE 53100, strerror of ENOSPC).
    text.contains("No space left on device")
}

/// The text below a step.
///
/// # Errors
/// When there is none.
pub fn docstring(text: Option<&str>) -> Result<String, Failure> {
    text.map(|text| text.trim_matches('\n').to_owned())
        .filter(|text| !text.trim().is_empty())
        .ok_or_else(|| Failure::expectation("the step needs text below it, between two lines of \"\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_from_a_broken_platform() {
        let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
        assert_eq!(Failure::platform(&full).reason.code, ReasonCode::DiskFull);
        let said = std::io::Error::other("could not write to file \"base/5/1\": No space left on device");
        assert_eq!(Failure::platform(&said).reason.code, ReasonCode::DiskFull);
        assert_eq!(Failure::platform(&std::io::Error::other("boom")).reason.code, ReasonCode::PlatformFailed);
    }

    #[test]
    fn text_below_a_step_must_be_there() {
        assert!(docstring(None).is_err());
        assert!(docstring(Some("\n  \n")).is_err());
        assert_eq!(docstring(Some("\nselect 1\n")).unwrap(), "select 1");
    }
}
