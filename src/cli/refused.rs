//! Why a command ended before it started anything: for people on standard error, for machines as one JSON document on standard output.
//!
//! The document has the shape of a verdict's reason: a stable code, what was found, what to do. `docs/json.md` lists the codes.

use super::lint::Finding;
use super::{exit, say_error};
use owo_colors::OwoColorize;
use serde_json::{Value, json};
use std::error::Error;
use turnback::workflow::{StartError, chain};
use turnback_core::drill::ReasonCode;

/// The codes that no verdict has, each with what to do about it; the others are reasons of a verdict, met before anything was started.
pub const CODES: [(&str, &str); 13] = [
    ("usage", "Write the argument as the message says; `--help` shows every option."),
    ("configuration", "Repair turnback.yaml at the place that the message names; docs/own-database.md lists its keys."),
    ("feature", "Name a feature file, a directory of them, or one of the shipped features."),
    ("lint", "Repair what the findings name; `turnback lint` checks again without starting anything."),
    ("preflight", "Run `turnback doctor`: it checks everything that a drill needs, and names the fix for what is not there."),
    ("work-directory", "Wait for the drill that uses it, or name another directory with --work; `turnback clean` removes what was left."),
    ("evidence-directory", "Name a directory that can be written with --evidence."),
    ("database", "Check the URL or the snapshot's directory, and that the server lets this user read everything."),
    ("backup-or-archive-unusable", "Name a base backup in plain format as pg_basebackup wrote it, and the archive of the same server."),
    (
        "baseline-unusable",
        "Name the directory that `turnback snapshot` wrote, whole; without it record one with `turnback snapshot URL --out DIR`.",
    ),
    ("target-not-found", "Choose one of those that are there, or name an archive that reaches further."),
    ("no-target", "Name a target with --target, or a --baseline whose own position is then the target."),
    ("no-such-directory", "Name the directory itself, and check that it can be read."),
];

/// A refusal.
#[derive(Clone, Debug)]
pub struct Refused {
    /// The exit status.
    pub exit: u8,
    /// A stable code.
    pub code: &'static str,
    /// What was found.
    pub message: String,
    /// What lint found, where that is the reason.
    pub findings: Vec<Finding>,
}

impl Refused {
    /// A refusal for an error, with exit status 2.
    pub fn new(code: &'static str, error: &(dyn Error + 'static)) -> Self {
        Self::said(code, chain(error))
    }

    /// A refusal in words, with exit status 2.
    pub fn said(code: &'static str, message: impl Into<String>) -> Self {
        Self { exit: exit::USAGE, code, message: message.into(), findings: Vec::new() }
    }

    /// A drill that could not begin.
    pub fn start(error: &StartError) -> Self {
        let code = if matches!(error, StartError::Work(_)) { "work-directory" } else { "evidence-directory" };
        Self::new(code, error)
    }

    /// Feature files that would prove nothing.
    pub fn lint(findings: Vec<Finding>) -> Self {
        let none = findings.iter().all(|finding| matches!(finding.code, "no-scenario" | "empty-file"));
        let (exit, code) = if none { (exit::NO_SCENARIO, "no-scenario") } else { (exit::USAGE, "lint") };
        let message = match findings.as_slice() {
            [only] => only.to_string(),
            _ => format!("{} things are wrong in the feature files", findings.len()),
        };
        Self { exit, code, message, findings }
    }

    /// What to do.
    pub fn remedy(&self) -> &'static str {
        let ours = CODES.iter().find(|(code, _)| *code == self.code).map(|(_, remedy)| *remedy);
        ours.or_else(|| ReasonCode::from_code(self.code).map(ReasonCode::remedy)).unwrap_or("Do what the message says.")
    }

    /// As a value of a JSON document.
    pub fn value(&self) -> Value {
        let mut value = json!({ "code": self.code, "message": self.message, "remedy": self.remedy() });
        if !self.findings.is_empty() {
            value["findings"] = json!(self.findings);
        }
        value
    }

    /// Tells it and returns the exit status.
    pub fn tell(&self, json: bool) -> u8 {
        if json {
            anstream::println!("{}", json!({ "exit": self.exit, "refused": self.value() }));
            return self.exit;
        }
        if self.findings.is_empty() {
            say_error(&self.message);
        }
        for finding in &self.findings {
            anstream::eprintln!("{finding}");
        }
        anstream::eprintln!("{}", format!("{}: nothing was started", self.code).dimmed());
        self.exit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The document that machines are promised, and the page that promises it.
    const PAGE: &str = include_str!("../../docs/json.md");

    #[test]
    fn every_code_is_explained_with_its_remedy() {
        for (code, remedy) in CODES {
            assert!(PAGE.contains(&format!("| `{code}` | {remedy} |")), "docs/json.md lacks {code}, or says something else to do");
            assert!(ReasonCode::from_code(code).is_none(), "{code} is a verdict's");
        }
        let rows = PAGE.lines().filter(|line| line.starts_with("| `") && line.ends_with(". |")).count();
        assert_eq!(rows, CODES.len(), "docs/json.md explains a code that nothing has");
    }

    #[test]
    fn a_reason_of_a_verdict_keeps_its_remedy() {
        let refused = Refused::said("target-before-backup", "too early");
        assert_eq!(refused.value()["remedy"], ReasonCode::from_code("target-before-backup").unwrap().remedy());
        assert_eq!((refused.exit, refused.value().get("findings")), (2, None));
    }
}
