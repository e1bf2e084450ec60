//! Finds what is wrong with a feature file before anything starts: undefined and ambiguous steps, misspelt keywords, empty scenarios,
//! parameters that cannot be read, recovery points that nobody recorded, scenarios that can never be GO.

mod course;
mod lines;

use super::features::{self, Scenario, Source};
use crate::steps::DrillWorld;
use crate::steps::parameters::{first_quoted, unquoted};
use crate::steps::vocabulary::{Point, SENTENCES, sentence_of};
use course::{Naming, Points};
use cucumber::gherkin::{Feature, Step, StepType};
use cucumber::step::Collection;
use serde::Serialize;
use turnback_core::recovery::{PositionError, parse_time};

/// How much a finding weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Nothing is started.
    Error,
    /// The drill can run; what it shows is less than its author may think.
    Warning,
}

/// One thing that is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The file.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1.
    pub column: usize,
    /// How much it weighs.
    pub severity: Severity,
    /// A stable code.
    pub code: &'static str,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub hint: String,
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let weight = if self.severity == Severity::Warning { "warning: " } else { "" };
        write!(f, "{}:{}:{}: {weight}{} [{}]", self.file, self.line, self.column, self.message, self.code)?;
        if !self.hint.is_empty() {
            write!(f, "\n  {}", self.hint)?;
        }
        Ok(())
    }
}

/// What a source holds.
#[derive(Debug, Default)]
pub struct Linted {
    /// Its scenarios; none where there is an error.
    pub scenarios: Vec<Scenario>,
    /// Why it cannot be run.
    pub errors: Vec<Finding>,
    /// What its author should know before it is run.
    pub warnings: Vec<Finding>,
}

/// Lints several sources, one after the other.
pub fn lint_all(sources: &[Source], collection: &Collection<DrillWorld>) -> Linted {
    let mut all = Linted::default();
    for source in sources {
        let linted = lint(source, collection);
        all.scenarios.extend(linted.scenarios);
        all.errors.extend(linted.errors);
        all.warnings.extend(linted.warnings);
    }
    all
}

/// Lints a source.
pub fn lint(source: &Source, collection: &Collection<DrillWorld>) -> Linted {
    match examine(source, collection) {
        Ok(scenarios) => {
            let warnings = scenarios.iter().filter_map(|scenario| never_go(source, scenario, collection)).collect();
            Linted { scenarios, warnings, errors: Vec::new() }
        }
        Err(errors) => Linted { errors, ..Linted::default() },
    }
}

fn found(source: &Source, place: (usize, usize), code: &'static str, message: impl Into<String>, hint: impl Into<String>) -> Finding {
    let (line, column) = place;
    let (message, hint) = (message.into(), hint.into());
    Finding { file: source.name.clone(), line, column, severity: Severity::Error, code, message, hint }
}

fn examine(source: &Source, collection: &Collection<DrillWorld>) -> Result<Vec<Scenario>, Vec<Finding>> {
    if source.text.trim().is_empty() {
        return Err(vec![found(source, (1, 1), "empty-file", "the file is empty", "write a Feature with at least one Scenario")]);
    }
    if let Some(lines::Unclosed { line, column, fence }) = lines::unclosed(&source.text) {
        let message = format!("the text that begins here with {fence} is never closed");
        return Err(vec![found(
            source,
            (line, column),
            "unclosed-text",
            message,
            format!("end it with another {fence} on a line of its own"),
        )]);
    }
    let misspelt = |line, column, word: &str, keyword: &str| {
        found(source, (line, column), "misspelt-keyword", format!("“{word}” is not a keyword"), format!("did you mean “{keyword}”?"))
    };
    let mut findings: Vec<Finding> =
        lines::misspelt(&source.text).iter().map(|slip| misspelt(slip.line, slip.column, &slip.word, slip.keyword)).collect();
    let feature = match features::parse(source) {
        Ok(feature) => feature,
        Err(features::Unreadable { line, column, code, message }) => {
            let whole = source.text.lines().nth(line.saturating_sub(1)).unwrap_or_default();
            let text = whole.trim();
            // The parser points at where it gave up; it is the line as a whole that it cannot place.
            let indent = whole.chars().count() - whole.trim_start().chars().count();
            let column = if code == "not-gherkin" && !text.is_empty() { indent + 1 } else { column };
            let slip = lines::keyword_near(text).filter(|_| code == "not-gherkin");
            if !findings.is_empty() {
                return Err(findings);
            }
            return Err(vec![match slip {
                Some((word, keyword)) => misspelt(line, column, &word, keyword),
                None => found(source, (line, column), code, message, format!("the line reads: {text}")),
            }]);
        }
    };
    let scenarios = features::scenarios(source, &feature);
    if scenarios.is_empty() && findings.is_empty() {
        let hint = "write a Scenario, or Examples for a Scenario Outline";
        findings.push(found(source, (feature.position.line, 1), "no-scenario", "the feature has no scenario to run", hint));
    }
    for (line, name) in empty_scenarios(&feature) {
        let hint = "a scenario without steps proves nothing: write its steps";
        findings.push(found(source, (line, 1), "empty-scenario", format!("the scenario “{name}” has no steps"), hint));
    }
    for scenario in &scenarios {
        let mut points = Points::default();
        for step in &scenario.steps {
            let place = (step.position.line, step.position.col);
            let missing =
                || missing_file(step, &scenario.base).map(|file| ("missing-file", format!("there is no file {file}"), BESIDE.to_owned()));
            let wrong =
                wrong_step(step, collection).or_else(missing).map(|(code, message, hint)| found(source, place, code, message, hint));
            for finding in wrong.into_iter().chain(wrong_point(source, step, collection, &mut points)) {
                if !findings.contains(&finding) {
                    findings.push(finding);
                }
            }
        }
    }
    findings.sort_by_key(|finding| (finding.line, finding.column));
    if findings.is_empty() { Ok(scenarios) } else { Err(findings) }
}

const BESIDE: &str = "files are looked up beside the feature file";

/// A recovery point that no step before this one records, or that one has recorded already.
fn wrong_point(source: &Source, step: &Step, collection: &Collection<DrillWorld>, points: &mut Points) -> Option<Finding> {
    let sentence = sentence_of(step, collection).filter(|sentence| sentence.point != Point::None)?;
    let quoted = first_quoted(&step.value)?;
    let naming = points.next(sentence, &unquoted(quoted)).err()?;
    let line = source.text.lines().nth(step.position.line.saturating_sub(1)).unwrap_or_default();
    let column = line.split_once('"').map_or(step.position.col, |(before, _)| before.chars().count() + 1);
    let place = (step.position.line, column);
    Some(match naming {
        Naming::Unknown { name, recorded } if recorded.is_empty() => found(
            source,
            place,
            "unknown-recovery-point",
            format!("no step before this one records a recovery point “{name}”"),
            format!("record it first: Given the known-good state is recorded as \"{name}\""),
        ),
        Naming::Unknown { name, recorded } => {
            let near = recorded.iter().find(|known| strsim::normalized_damerau_levenshtein(known, &name) > 0.6);
            let all = recorded.iter().map(|known| format!("“{known}”")).collect::<Vec<_>>().join(", ");
            let hint = near
                .map_or_else(|| format!("recorded before it: {all}"), |near| format!("did you mean “{near}”? recorded before it: {all}"));
            found(source, place, "unknown-recovery-point", format!("no step before this one records a recovery point “{name}”"), hint)
        }
        Naming::Twice { name } => found(
            source,
            place,
            "recovery-point-twice",
            format!("a step before this one records “{name}” already"),
            "give each known-good state its own name",
        ),
    })
}

/// A scenario that leaves out a check without which there is no GO.
fn never_go(source: &Source, scenario: &Scenario, collection: &Collection<DrillWorld>) -> Option<Finding> {
    let missing = course::never_made(scenario.steps.iter().filter_map(|step| sentence_of(step, collection)));
    if missing.is_empty() {
        return None;
    }
    let ids: Vec<_> = missing.iter().flat_map(|(_, ids)| ids).map(|id| id.name()).collect();
    let message = format!(
        "the scenario “{}” can never be GO, at best INCONCLUSIVE (check-not-run): no step checks {}",
        scenario.name,
        ids.join(", ")
    );
    // In the scenario's own words, where it has a recovery point to speak of.
    let records = |step: &&Step| sentence_of(step, collection).is_some_and(|sentence| sentence.point == Point::Recorded);
    let point = scenario.steps.iter().find(records).and_then(|step| first_quoted(&step.value)).unwrap_or("\"before the release\"");
    let example = |example: &str| example.replace("\"before the release\"", point);
    let wanted: Vec<_> = missing.iter().map(|(sentence, _)| format!("{} {}", sentence.keyword, example(sentence.example))).collect();
    let hint = format!("these steps make them, and count where no change to the database comes after:\n    {}", wanted.join("\n    "));
    Some(Finding { severity: Severity::Warning, ..found(source, (scenario.line, scenario.column), "never-go", message, hint) })
}

/// A file that a step names and that is not there.
fn missing_file(step: &Step, base: &std::path::Path) -> Option<String> {
    let named = ["a platform with the database from ", "the migration from "].iter().find_map(|start| step.value.strip_prefix(start))?;
    let file = base.join(unquoted(first_quoted(named)?));
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
        Ok(None) => Some(match other_keyword(step, collection) {
            Some((right, message)) => ("wrong-keyword", message, format!("write “{right} {}”", step.value)),
            None => ("undefined-step", format!("no step is defined as “{said}”"), nearest(step)),
        }),
        Ok(Some(_)) => {
            let needs_text = step.value.ends_with(':') && step.docstring.is_none();
            if needs_text {
                return Some((
                    "missing-text",
                    format!("the step “{said}” needs text below it"),
                    "write it between two lines of \"\"\"".into(),
                ));
            }
            if let Some(quoted) = step.value.strip_prefix("the database is named ") {
                let name = unquoted(quoted);
                let why = turnback::workflow::check_database_name(&name).err()?;
                return Some(("impossible-name", format!("“{name}” {why}"), String::new()));
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

fn keyword(ty: StepType) -> &'static str {
    match ty {
        StepType::Given => "Given",
        StepType::When => "When",
        StepType::Then => "Then",
    }
}

/// The keyword under which the very same words are a step, and what is wrong in words.
fn other_keyword(step: &Step, collection: &Collection<DrillWorld>) -> Option<(&'static str, String)> {
    let others = [StepType::Given, StepType::When, StepType::Then].into_iter().filter(|ty| *ty != step.ty);
    let right = others.map(|ty| Step { ty, ..step.clone() }).find(|other| !matches!(collection.find(other), Ok(None)))?;
    let (right, under, said) = (keyword(right.ty), keyword(step.ty), step.keyword.trim());
    let why = if said == under { String::new() } else { format!(", because “{said}” goes on with the keyword before it") };
    Some((right, format!("“{}” is a {right} step; it stands under {under}{why}", step.value)))
}

/// The sentence of the vocabulary that comes nearest, so that a slip of the pen is mended at a glance.
fn nearest(step: &Step) -> String {
    let best = SENTENCES
        .iter()
        .map(|sentence| (strsim::normalized_levenshtein(&step.value, sentence.example), sentence))
        .max_by(|a, b| a.0.total_cmp(&b.0));
    match best {
        Some((likeness, sentence)) if likeness > 0.5 && sentence.keyword == keyword(step.ty) => {
            format!("did you mean “{}”?", sentence.example)
        }
        Some((likeness, sentence)) if likeness > 0.5 => format!("did you mean “{} {}”?", sentence.keyword, sentence.example),
        _ => "`turnback vocabulary` prints every step with an example".into(),
    }
}

#[cfg(test)]
mod tests;
