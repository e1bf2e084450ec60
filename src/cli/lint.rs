//! Finds what is wrong with a feature file before anything starts: undefined and ambiguous steps, misspelt keywords, empty scenarios,
//! parameters that cannot be read.

use super::features::{self, Scenario, Source};
use crate::steps::DrillWorld;
use crate::steps::vocabulary::SENTENCES;
use cucumber::gherkin::{Feature, Step};
use cucumber::step::Collection;
use serde::Serialize;
use turnback_core::recovery::{PositionError, parse_time};

/// One thing that is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The file.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1.
    pub column: usize,
    /// A stable code.
    pub code: &'static str,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub hint: String,
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}:{}: {} [{}]", self.file, self.line, self.column, self.message, self.code)?;
        if !self.hint.is_empty() {
            write!(f, "\n  {}", self.hint)?;
        }
        Ok(())
    }
}

/// Lints a source; hands out its scenarios when nothing is wrong.
pub fn lint(source: &Source, collection: &Collection<DrillWorld>) -> Result<Vec<Scenario>, Vec<Finding>> {
    let finding = |line: usize, column: usize, code, message: String, hint: String| Finding {
        file: source.name.clone(),
        line,
        column,
        code,
        message,
        hint,
    };
    let mut findings: Vec<Finding> = misspelt(source)
        .into_iter()
        .map(|(line, column, word, keyword)| {
            finding(line, column, "misspelt-keyword", format!("“{word}” is not a keyword"), format!("did you mean “{keyword}”?"))
        })
        .collect();
    if source.text.trim().is_empty() {
        return Err(vec![finding(1, 1, "empty-file", "the file is empty".into(), "write a Feature with at least one Scenario".into())]);
    }
    let feature = match features::parse(source) {
        Ok(feature) => feature,
        Err(unreadable) => {
            if findings.is_empty() {
                let features::Unreadable { line, column, code, message } = unreadable;
                let text = source.text.lines().nth(line.saturating_sub(1)).unwrap_or_default().trim();
                findings.push(finding(line, column, code, message, format!("the line reads: {text}")));
            }
            return Err(findings);
        }
    };
    let scenarios = features::scenarios(source, &feature);
    if scenarios.is_empty() && findings.is_empty() {
        let line = feature.position.line;
        findings.push(finding(
            line,
            1,
            "no-scenario",
            "the feature has no scenario to run".into(),
            "write a Scenario, or Examples for a Scenario Outline".into(),
        ));
    }
    for name in empty_scenarios(&feature) {
        findings.push(finding(
            name.0,
            1,
            "empty-scenario",
            format!("the scenario “{}” has no steps", name.1),
            "a scenario without steps proves nothing: write its steps".into(),
        ));
    }
    for scenario in &scenarios {
        for step in &scenario.steps {
            let missing = missing_file(step, &scenario.base)
                .map(|file| ("missing-file", format!("there is no file {file}"), "files are looked up beside the feature file".to_owned()));
            if let Some((code, message, hint)) = wrong_step(step, collection).or(missing) {
                let found = finding(step.position.line, step.position.col, code, message, hint);
                if !findings.contains(&found) {
                    findings.push(found);
                }
            }
        }
    }
    findings.sort_by_key(|found| (found.line, found.column));
    if findings.is_empty() { Ok(scenarios) } else { Err(findings) }
}

/// A file that a step names and that is not there.
fn missing_file(step: &Step, base: &std::path::Path) -> Option<String> {
    let named = ["a platform with the database from ", "the migration from "].iter().find_map(|start| step.value.strip_prefix(start))?;
    let file = base.join(named.split('"').nth(1)?);
    (!file.is_file()).then(|| file.display().to_string())
}

fn empty_scenarios(feature: &Feature) -> Vec<(usize, String)> {
    let all = feature.scenarios.iter().chain(feature.rules.iter().flat_map(|rule| &rule.scenarios));
    all.filter(|scenario| scenario.steps.is_empty()).map(|scenario| (scenario.position.line, scenario.name.clone())).collect()
}

fn wrong_step(step: &Step, collection: &Collection<DrillWorld>) -> Option<(&'static str, String, String)> {
    let said = format!("{}{}", step.keyword.trim_end(), if step.value.is_empty() { String::new() } else { format!(" {}", step.value) });
    match collection.find(step) {
        Err(ambiguous) => {
            let places: Vec<_> = ambiguous.possible_matches.iter().map(|(regex, _)| regex.as_str().to_owned()).collect();
            Some(("ambiguous-step", format!("the step “{said}” means {} things", places.len()), places.join("\n  ")))
        }
        Ok(None) => Some(("undefined-step", format!("no step is defined as “{said}”"), nearest(step))),
        Ok(Some(_)) => {
            let needs_text = step.value.ends_with(':') && step.docstring.is_none();
            if needs_text {
                return Some((
                    "missing-text",
                    format!("the step “{said}” needs text below it"),
                    "write it between two lines of \"\"\"".into(),
                ));
            }
            let quoted = step.value.strip_prefix("the database is restored to the time ")?;
            match parse_time(quoted.trim_matches('"')) {
                Ok(_) => None,
                Err(error @ PositionError::OffsetMissing(_)) => Some(("target-without-offset", error.to_string(), String::new())),
                Err(error) => Some(("unreadable-target", error.to_string(), String::new())),
            }
        }
    }
}

/// The sentence of the vocabulary that comes nearest, so that a slip of the pen is mended at a glance.
fn nearest(step: &Step) -> String {
    let keyword = match step.ty {
        cucumber::gherkin::StepType::Given => "Given",
        cucumber::gherkin::StepType::When => "When",
        cucumber::gherkin::StepType::Then => "Then",
    };
    let best = SENTENCES
        .iter()
        .map(|sentence| (strsim::normalized_levenshtein(&step.value, sentence.example), sentence))
        .max_by(|a, b| a.0.total_cmp(&b.0));
    match best {
        Some((likeness, sentence)) if likeness > 0.5 && sentence.keyword == keyword => format!("did you mean “{}”?", sentence.example),
        Some((likeness, sentence)) if likeness > 0.5 => format!("did you mean “{} {}”?", sentence.keyword, sentence.example),
        _ => "`turnback vocabulary` prints every step with an example".into(),
    }
}

/// Lines that Gherkin takes for a description, or refuses, because their keyword is misspelt.
fn misspelt(source: &Source) -> Vec<(usize, usize, String, &'static str)> {
    const HEADS: [&str; 7] = ["Feature", "Background", "Scenario", "Scenario Outline", "Examples", "Rule", "Example"];
    // Words of their own that a description may well begin with.
    const WORDS: [&str; 6] = ["They", "Them", "This", "That", "Than", "Thin"];
    const STEPS: [&str; 5] = ["Given", "When", "Then", "And", "But"];
    let mut found = Vec::new();
    let mut in_text = false;
    for (index, line) in source.text.lines().enumerate() {
        let trimmed = line.trim_start();
        if trimmed.starts_with("\"\"\"") || trimmed.starts_with("```") {
            in_text = !in_text;
            continue;
        }
        if in_text || trimmed.starts_with(['#', '@', '|']) {
            continue;
        }
        let column = line.chars().count() - trimmed.chars().count() + 1;
        if let Some((head, _)) = trimmed.split_once(':') {
            let exact = HEADS.contains(&head) || matches!(head, "Scenario Template" | "Scenarios" | "Ability" | "Business Need");
            let near = |keyword: &&&str| strsim::damerau_levenshtein(&head.to_lowercase(), &keyword.to_lowercase()) <= 2;
            if !exact
                && head.len() < 20
                && let Some(keyword) = HEADS.iter().find(near)
            {
                found.push((index + 1, column, format!("{head}:"), *keyword));
                continue;
            }
        }
        let word = trimmed.split_whitespace().next().unwrap_or_default();
        let candidate = word.len() >= 4 && word.chars().next().is_some_and(char::is_uppercase) && !word.contains(':');
        let near = |keyword: &&&str| keyword.len() >= 4 && strsim::damerau_levenshtein(word, keyword) == 1;
        if candidate
            && !STEPS.contains(&word)
            && !WORDS.contains(&word)
            && let Some(keyword) = STEPS.iter().find(near)
        {
            found.push((index + 1, column, word.to_owned(), *keyword));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn codes(text: &str) -> Vec<(&'static str, usize)> {
        let source = Source { name: "x.feature".into(), base: PathBuf::new(), text: text.into() };
        match lint(&source, &crate::steps::vocabulary::self_test().unwrap()) {
            Ok(_) => Vec::new(),
            Err(findings) => findings.iter().map(|found| (found.code, found.line)).collect(),
        }
    }

    #[test]
    fn every_shipped_feature_is_clean() {
        for name in features::shipped_names() {
            let source = features::shipped(&name).unwrap();
            let scenarios =
                lint(&source, &crate::steps::vocabulary::self_test().unwrap()).unwrap_or_else(|findings| panic!("{findings:#?}"));
            assert!(!scenarios.is_empty());
        }
    }

    #[test]
    fn what_would_pass_in_silence_is_refused() {
        assert_eq!(codes(""), [("empty-file", 1)]);
        assert_eq!(codes("Feature: a\n  Scenari: b\n    Given a fresh backup is taken\n"), [("misspelt-keyword", 2)]);
        assert_eq!(codes("Feature: a\n"), [("no-scenario", 1)]);
        assert_eq!(codes("Feature: a\n  Scenario: b\n"), [("empty-scenario", 2)]);
        assert_eq!(codes("Feature: a\n  Scenario: b\n    Given a fresh backup is baked\n"), [("undefined-step", 3)]);
        assert_eq!(
            codes("Feature: a\n  Scenario: b\n    Given a fresh backup is taken\n    Whne it rains\n").first().map(|found| found.0),
            Some("misspelt-keyword")
        );
        let outline = "Feature: a\n  Scenario Outline: b\n    Given a fresh backup is taken\n";
        assert_eq!(codes(outline), [("no-examples", 2)]);
        assert_eq!(codes(&format!("{outline}    Examples:\n      | x |\n")), [("no-examples", 2)]);
        assert_eq!(codes(&format!("{outline}    Examples:\n      | x |\n      | 1 |\n")), []);
    }

    #[test]
    fn a_time_without_offset_is_refused_before_anything_starts() {
        let text = "Feature: a\n  Scenario: b\n    When the database is restored to the time \"2026-11-20 21:04:05\"\n";
        assert_eq!(codes(text), [("target-without-offset", 3)]);
    }

    #[test]
    fn a_step_that_means_two_things_is_refused() {
        let second = cucumber::codegen::Regex::new("^a fresh backup is .+$").unwrap();
        let step: cucumber::Step<DrillWorld> = |_, _| Box::pin(std::future::ready(()));
        let collection = crate::steps::vocabulary::self_test().unwrap().given(None, second, step);
        let text = "Feature: a\n  Scenario: b\n    Given a fresh backup is taken\n".to_owned();
        let findings = lint(&Source { name: "x.feature".into(), base: PathBuf::new(), text }, &collection).unwrap_err();
        assert_eq!((findings[0].code, findings[0].line), ("ambiguous-step", 3));
        assert!(findings[0].hint.contains("a fresh backup is .+"), "{}", findings[0]);
    }

    #[test]
    fn a_step_that_needs_text_says_so() {
        assert_eq!(codes("Feature: a\n  Scenario: b\n    Given a platform with this database:\n"), [("missing-text", 3)]);
    }
}
