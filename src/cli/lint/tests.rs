use super::*;
use std::path::PathBuf;

fn linted(text: &str) -> Linted {
    let source = Source { name: "x.feature".into(), base: PathBuf::new(), text: text.into() };
    lint(&source, &crate::steps::vocabulary::self_test().unwrap())
}

fn codes(text: &str) -> Vec<(&'static str, usize)> {
    linted(text).errors.iter().map(|found| (found.code, found.line)).collect()
}

#[test]
fn every_shipped_feature_is_clean() {
    for name in features::shipped_names() {
        let source = features::shipped(&name).unwrap();
        let linted = lint(&source, &crate::steps::vocabulary::self_test().unwrap());
        assert!(!linted.scenarios.is_empty() && linted.errors.is_empty() && linted.warnings.is_empty(), "{name}: {linted:#?}");
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
    let findings = lint(&Source { name: "x.feature".into(), base: PathBuf::new(), text }, &collection).errors;
    assert_eq!((findings[0].code, findings[0].line), ("ambiguous-step", 3));
    assert!(findings[0].hint.contains("a fresh backup is .+"), "{}", findings[0]);
}

#[test]
fn a_step_that_needs_text_says_so() {
    assert_eq!(codes("Feature: a\n  Scenario: b\n    Given a platform with this database:\n"), [("missing-text", 3)]);
}

/// A feature of one scenario, its first step on line 3.
fn scenario(steps: &str) -> String {
    let steps: Vec<_> = steps.lines().map(|step| format!("    {}\n", step.trim())).collect();
    format!("Feature: a\n  Scenario: b\n{}", steps.concat())
}

#[test]
fn a_recovery_point_that_no_step_records_is_refused_where_it_is_named() {
    for (step, column) in [
        ("When the database is restored to \"befor\" by time", 38),
        ("Then schema and data equal \"befor\", exactly", 32),
        ("Then schema or data differ from \"befor\"", 37),
    ] {
        let errors = linted(&scenario(&format!("Given the known-good state is recorded as \"before\"\n{step}"))).errors;
        assert_eq!((errors[0].code, errors[0].line, errors[0].column), ("unknown-recovery-point", 4, column), "{}", errors[0]);
        assert!(errors[0].hint.contains("did you mean “before”?"), "{}", errors[0]);
    }
    // Recorded only afterwards is not recorded.
    let late = scenario("Then schema and data equal \"x\", exactly\nGiven the known-good state is recorded as \"x\"");
    assert_eq!(codes(&late), [("unknown-recovery-point", 3)]);
    let twice = scenario("Given the known-good state is recorded as \"x\"\nGiven the known-good state is recorded as \"x\"");
    assert_eq!(codes(&twice), [("recovery-point-twice", 4)]);
    // Each scenario records its own; an outline's name is the one filled in; quotes may be in it.
    let both = format!(
        "{}{}",
        scenario("Given the known-good state is recorded as \"x\""),
        "  Scenario: c\n    Then schema or data differ from \"x\"\n"
    );
    assert_eq!(codes(&both), [("unknown-recovery-point", 5)]);
    let outline = "Feature: a\n  Scenario Outline: b\n    Given the known-good state is recorded as \"<n>\"\n    \
                   Then schema or data differ from \"good\"\n    Examples:\n      | n |\n      | good |\n      | bad |\n";
    assert_eq!(codes(outline), [("unknown-recovery-point", 4)]);
    assert_eq!(
        codes(&scenario("Given the known-good state is recorded as \"a \\\"b\\\"\"\nThen schema or data differ from \"a \\\"b\\\"\"")),
        []
    );
}

#[test]
fn a_scenario_that_can_never_be_go_is_told_so_and_why() {
    let full = features::shipped("own_database").unwrap().text.replace("    But ", "    Then ");
    for (left_out, ids) in [
        ("schema or data differ from", "damage-shown"),
        ("the data is still damaged", "revert-alone-insufficient"),
        ("exactly the reverting revision", "revert-applied"),
        ("schema and data equal", "schema-equal, data-equal"),
        ("the change is not in the migration history", "change-not-in-history"),
        (
            "is restored to \"before",
            "replay-stopped-at-target, marker-present, sentinel-absent, timeline-advanced, system-identifier-unchanged",
        ),
    ] {
        let text: String = full.lines().filter(|line| !line.contains(left_out)).map(|line| format!("{line}\n")).collect();
        let linted = linted(&text);
        assert_eq!((linted.errors.len(), linted.scenarios.len(), linted.warnings.len()), (0, 1, 1), "{left_out}: {linted:#?}");
        let warning = &linted.warnings[0];
        assert_eq!((warning.code, warning.line, warning.column), ("never-go", 4, 3), "{warning}");
        assert!(warning.to_string().contains("warning: ") && warning.message.contains("INCONCLUSIVE (check-not-run)"), "{warning}");
        let own_words = warning.hint.contains(left_out) && !warning.hint.contains("before the release") && !warning.hint.contains("dummy");
        assert!(own_words, "{warning}");
        assert!(warning.message.ends_with(&format!("no step checks {ids}")), "{warning}");
    }
}

#[test]
fn the_same_words_under_another_keyword_are_told_so() {
    let errors = linted(&scenario("When replay stopped exactly there")).errors;
    assert_eq!(errors[0].code, "wrong-keyword");
    assert_eq!(errors[0].message, "“replay stopped exactly there” is a Then step; it stands under When");
    assert_eq!(errors[0].hint, "write “Then replay stopped exactly there”");
    let errors = linted(&scenario("Given a fresh backup is taken\nAnd the change is reverted in Git")).errors;
    assert!(
        errors[0].message.ends_with("is a When step; it stands under Given, because “And” goes on with the keyword before it"),
        "{}",
        errors[0]
    );
}

#[test]
fn text_that_is_never_closed_is_reported_where_it_begins() {
    let text = scenario("Given a platform with this database:\n\"\"\"\nSELECT 1;\nWhen the change is reverted in Git");
    let errors = linted(&text).errors;
    assert_eq!((errors.len(), errors[0].code, errors[0].line, errors[0].column), (1, "unclosed-text", 4, 5), "{errors:#?}");
}

#[test]
fn a_short_keyword_that_is_misspelt_is_recognised_too() {
    for (word, keyword) in [("Adn", "And"), ("Ad", "And"), ("and", "And"), ("Bt", "But"), ("GIVEN", "Given"), ("Tehn", "Then")] {
        let errors = linted(&scenario(&format!("Given a fresh backup is taken\n{word} the last backup is verified"))).errors;
        assert_eq!((errors[0].code, errors[0].line, errors[0].column), ("misspelt-keyword", 4, 5), "{word}: {errors:#?}");
        assert_eq!(errors[0].hint, format!("did you mean “{keyword}”?"));
    }
    assert_eq!(codes(&scenario("Given a fresh backup is taken\nSometimes it rains")), [("not-gherkin", 4)]);
}
