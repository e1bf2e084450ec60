//! The last lines of a run, as text with a meaning; who prints them chooses colours.

use super::text::{counted, duration, plain};
use super::{DrillRecord, Objectives};

/// What a line is, so that it can be styled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineKind {
    /// The decision.
    Decision,
    /// A reason.
    Reason,
    /// What to do about it.
    Remedy,
    /// A fact of the drill, with its label.
    Fact,
    /// A fact that speaks against the release.
    Miss,
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// What it is.
    pub kind: LineKind,
    /// What stands to its left; may be empty.
    pub label: String,
    /// The text; one line, without control characters.
    pub text: String,
}

/// Decision, reasons with remedies, RTO and RPO, what was compared, and where the evidence lies (`evidence`, as the user knows the path).
#[must_use]
pub fn terminal_summary(record: &DrillRecord, evidence: &str) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut line = |kind, label: &str, text: String| lines.push(Line { kind, label: label.to_owned(), text: plain(&text) });
    let verdict = record.decided();
    line(LineKind::Decision, &verdict.decision.to_string(), record.scenario.name.clone());
    for reason in &verdict.reasons {
        line(LineKind::Reason, reason.code.code(), reason.message.clone());
        line(LineKind::Remedy, "", reason.remedy.clone());
    }
    if let Some((text, met)) = rto(&record.objectives) {
        line(if met { LineKind::Fact } else { LineKind::Miss }, "RTO", text);
    }
    if let Some((text, met)) = rpo(&record.objectives) {
        line(if met { LineKind::Fact } else { LineKind::Miss }, "RPO", text);
    }
    if let Some(made) = record.final_comparison() {
        let kind = if made.result.equal() { LineKind::Fact } else { LineKind::Miss };
        line(kind, "compared", format!("{}: {}", made.name, made.result.summary()));
    }
    if !record.cleanup.left.is_empty() {
        line(LineKind::Miss, "left behind", record.cleanup.left.join("; "));
    }
    line(LineKind::Fact, "took", duration(record.run.wall_ms));
    line(LineKind::Fact, "evidence", evidence.to_owned());
    lines
}

/// Recovery time in words, and whether it kept its promise.
pub(super) fn rto(goals: &Objectives) -> Option<(String, bool)> {
    let measured = goals.rto_ms?;
    let parts: Vec<_> = goals.rto_parts.iter().map(|(name, ms)| format!("{name} {}", duration(*ms))).collect();
    let parts = if parts.is_empty() { String::new() } else { format!(" = {}", parts.join(" + ")) };
    Some((
        format!("{}{parts}{}", duration(measured), promised(goals.rto_target_ms)),
        goals.rto_target_ms.is_none_or(|target| measured <= target),
    ))
}

/// Recovery point in words, and whether it kept its promise.
pub(super) fn rpo(goals: &Objectives) -> Option<(String, bool)> {
    let measured = goals.rpo_ms?;
    let mut lost = Vec::new();
    if let Some(commits) = goals.lost_commits {
        lost.push(counted(commits, "commit", "commits"));
    }
    if let Some(writes) = goals.lost_writes {
        lost.push(counted(writes, "acknowledged write", "acknowledged writes"));
    }
    let lost = if lost.is_empty() { String::new() } else { format!("; {} lost", lost.join(" and ")) };
    Some((
        format!("{}{lost}{}", duration(measured), promised(goals.rpo_target_ms)),
        goals.rpo_target_ms.is_none_or(|target| measured <= target),
    ))
}

fn promised(target: Option<u64>) -> String {
    target.map_or_else(|| "; no target set".to_owned(), |target| format!("; promised {}", duration(target)))
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;

    fn text(lines: &[Line]) -> String {
        lines.iter().map(|line| format!("{:>16}  {}", line.label, line.text)).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn a_go_is_short() {
        insta::assert_snapshot!(text(&terminal_summary(&samples::go(), "turnback-evidence/20261120T210405Z-data-rollback")));
    }

    #[test]
    fn a_no_go_says_why_and_what_next() {
        insta::assert_snapshot!(text(&terminal_summary(&samples::no_go(), "evidence")));
    }

    #[test]
    fn no_escape_sequence_reaches_the_terminal() {
        assert!(terminal_summary(&samples::hostile(), "a\u{1b}[2Jb").iter().all(|line| !line.text.contains(char::is_control)));
    }
}
