//! junit.xml: steps and checks as test cases, for CI systems that show those.

use super::text::plain;
use super::{DrillRecord, StepStatus};
use crate::drill::CheckStatus;
use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};
use std::time::Duration;

/// The drill as JUnit XML: one suite for the scenario's steps, one for the checks, one for the verdict.
///
/// A CI system shows a build as failed when the verdict is not GO: the verdict is a test case of its own.
#[must_use]
pub fn junit(record: &DrillRecord) -> String {
    let mut report = Report::new(plain(&format!("turnback: {}", record.scenario.name)));
    report.set_time(Duration::from_millis(record.run.wall_ms));
    report.timestamp = record.run.started.to_string().parse().ok();
    report.add_test_suite(verdict_suite(record));
    report.add_test_suite(steps_suite(record));
    report.add_test_suite(checks_suite(record));
    // A writer into memory does not fail, and every string is already valid XML text.
    report.to_string().unwrap_or_default()
}

fn failed(kind: NonSuccessKind, message: &str) -> TestCaseStatus {
    let mut status = TestCaseStatus::non_success(kind);
    status.set_message(plain(message));
    status
}

fn verdict_suite(record: &DrillRecord) -> TestSuite {
    let verdict = record.decided();
    let mut suite = TestSuite::new("verdict");
    suite.add_property(("decision".to_owned(), verdict.decision.to_string()));
    suite.add_property(("run".to_owned(), plain(&record.run.id)));
    suite.add_property(("platform".to_owned(), plain(&record.run.platform)));
    suite.add_property(("command".to_owned(), plain(&record.run.command)));
    let reasons: Vec<_> = verdict
        .reasons
        .iter()
        .map(|reason| format!("{}: {}\n  → {}", reason.code.code(), plain(&reason.message), plain(&reason.remedy)))
        .collect();
    let status = match verdict.decision {
        crate::drill::Decision::Go => TestCaseStatus::success(),
        decision => {
            let kind = if decision == crate::drill::Decision::NoGo { NonSuccessKind::Failure } else { NonSuccessKind::Error };
            let codes: Vec<_> = verdict.reasons.iter().map(|reason| reason.code.code()).collect();
            let mut status = failed(kind, &format!("{decision}: {}", codes.join(", ")));
            status.set_type(verdict.reasons.first().map_or("unknown", |reason| reason.code.code()));
            status.set_description(reasons.join("\n"));
            status
        }
    };
    let mut case = TestCase::new("the release can be turned back", status);
    case.set_classname("turnback.verdict");
    case.set_time(Duration::from_millis(record.run.wall_ms));
    suite.add_test_case(case);
    suite.set_time(Duration::from_millis(record.run.wall_ms));
    suite
}

fn steps_suite(record: &DrillRecord) -> TestSuite {
    let mut suite = TestSuite::new(plain(&record.scenario.feature));
    let mut total = 0;
    for (place, step) in record.scenario.steps.iter().enumerate() {
        let status = match step.status {
            StepStatus::Passed => TestCaseStatus::success(),
            StepStatus::Failed => failed(NonSuccessKind::Failure, step.error.as_deref().unwrap_or("failed")),
            StepStatus::Skipped => {
                let mut status = TestCaseStatus::skipped();
                status.set_message("not reached");
                status
            }
        };
        // Two steps may read the same: the number keeps them apart.
        let mut case = TestCase::new(plain(&format!("{:02} {} {}", place + 1, step.keyword.trim(), step.text)), status);
        case.set_classname(format!("turnback.{}", step.phase));
        case.set_time(Duration::from_millis(step.ms));
        if let Some(seen) = &step.seen {
            case.set_system_out(plain(seen));
        }
        total += step.ms;
        suite.add_test_case(case);
    }
    suite.set_time(Duration::from_millis(total));
    suite
}

fn checks_suite(record: &DrillRecord) -> TestSuite {
    let mut suite = TestSuite::new("checks");
    for check in &record.checks {
        let status = match check.status {
            CheckStatus::Passed => TestCaseStatus::success(),
            CheckStatus::Failed => {
                let mut status = failed(NonSuccessKind::Failure, &format!("expected {}, found {}", check.expected, check.actual));
                status.set_type(check.id.reason().code());
                status.set_description(plain(check.id.reason().remedy()));
                status
            }
        };
        let mut case = TestCase::new(check.id.name(), status);
        case.set_classname("turnback.checks");
        case.set_time(Duration::ZERO);
        suite.add_test_case(case);
    }
    suite.set_time(Duration::ZERO);
    suite
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;

    #[test]
    fn a_no_go_reads_as_it_should() {
        insta::assert_snapshot!(junit(&samples::no_go()));
    }

    #[test]
    fn hostile_strings_are_only_text() {
        let xml = junit(&samples::hostile());
        insta::assert_snapshot!(xml);
        assert!(!xml.contains("<script>") && !xml.contains("]]>") && !xml.contains('\u{1b}'), "{xml}");
        assert_eq!(
            Report::deserialize_from_str(&xml).unwrap().tests,
            Report::deserialize_from_str(&junit(&samples::hostile())).unwrap().tests
        );
    }

    #[test]
    fn the_build_is_green_only_on_go() {
        let failures = |xml: &str| {
            let report = Report::deserialize_from_str(xml).unwrap();
            report.failures + report.errors
        };
        assert_eq!(failures(&junit(&samples::go())), 0);
        assert!(failures(&junit(&samples::no_go())) > 0);
        let mut unfinished = samples::go();
        unfinished.verdict = None;
        assert_eq!(failures(&junit(&unfinished)), 1);
    }
}
