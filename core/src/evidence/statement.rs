//! evidence.json: an in-toto Statement v1 over the package's files, with the drill as its predicate.
//!
//! The predicate also carries the fields of in-toto's test-result predicate, so that tools which know only that one can read the outcome. It
//! knows nothing about signatures: an envelope goes around these bytes as they are.

use super::{ComparisonRecord, DrillRecord, StepStatus};
use crate::drill::{CheckStatus, Decision};
use serde::Serialize;
use serde_json::{Value, json};

/// The type of the statement.
pub const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";

/// The type of the predicate. A name, not an address: nothing fetches it.
pub const PREDICATE_TYPE: &str = "https://turnback.dev/evidence/v1";

/// A file that the statement speaks of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Subject {
    /// Its path within the package.
    pub name: String,
    /// Its SHA-256, in hexadecimal.
    pub sha256: String,
}

/// The statement: `subjects` are the manifest and every file that it lists.
///
/// Keys keep their order; the verdict comes first in the predicate.
#[must_use]
pub fn statement(record: &DrillRecord, subjects: &[Subject]) -> Value {
    let subject: Vec<_> = subjects.iter().map(|file| json!({ "name": file.name, "digest": { "sha256": file.sha256 } })).collect();
    json!({
        "_type": STATEMENT_TYPE,
        "subject": subject,
        "predicateType": PREDICATE_TYPE,
        "predicate": predicate(record),
    })
}

fn predicate(record: &DrillRecord) -> Value {
    let verdict = record.decided();
    // The words of in-toto's test-result predicate.
    let result = match verdict.decision {
        Decision::Go => "PASSED",
        Decision::Inconclusive => "WARNED",
        Decision::NoGo => "FAILED",
    };
    let names = |status: CheckStatus| -> Vec<&str> {
        record.checks.iter().filter(|check| check.status == status).map(|check| check.id.name()).collect()
    };
    let scenario = &record.scenario;
    let steps = |status: StepStatus| scenario.steps.iter().filter(|step| step.status == status).count();
    json!({
        "verdict": verdict,
        "result": result,
        "configuration": [{ "name": scenario.file, "annotations": { "feature": scenario.feature, "scenario": scenario.name } }],
        "passedTests": names(CheckStatus::Passed),
        "failedTests": names(CheckStatus::Failed),
        "remediation": record.remediation(),
        "run": record.run,
        "actors": [{ "role": "operator", "name": record.run.actor }],
        "toolchain": record.toolchain,
        "backups": record.backups,
        "recovery_points": record.recovery_points,
        "changes": record.changes,
        "faults_injected": record.faults,
        "reverts": record.reverts,
        "recovery": record.restores,
        "objectives": objectives(record),
        "comparison": record.final_comparison().map(comparison),
        "comparisons": record.comparisons.iter().map(comparison_summary).collect::<Vec<_>>(),
        "checks": record.checks,
        "incidents": record.incidents,
        "phases": record.phases,
        "scenario": {
            "feature": scenario.feature,
            "file": scenario.file,
            "name": scenario.name,
            "steps_passed": steps(StepStatus::Passed),
            "steps_failed": steps(StepStatus::Failed),
            "steps_skipped": steps(StepStatus::Skipped),
        },
        "steps": scenario.steps,
        "cleanup": record.cleanup,
        "redactions": record.redactions,
        "limits": { "not_tested": record.limits, "not_exercised": record.not_exercised },
    })
}

fn objectives(record: &DrillRecord) -> Value {
    let goals = &record.objectives;
    // Unknown is not met: `null` where either side is missing.
    let met = |target: Option<u64>, measured: Option<u64>| Some(measured? <= target?);
    let parts: Vec<_> = goals.rto_parts.iter().map(|(name, ms)| json!({ "name": name, "ms": ms })).collect();
    json!({
        "rto": { "target_ms": goals.rto_target_ms, "measured_ms": goals.rto_ms, "met": met(goals.rto_target_ms, goals.rto_ms), "parts": parts },
        "rpo": {
            "target_ms": goals.rpo_target_ms,
            "measured_ms": goals.rpo_ms,
            "met": met(goals.rpo_target_ms, goals.rpo_ms),
            "lost_commits": goals.lost_commits,
            "lost_writes": goals.lost_writes,
        },
    })
}

fn comparison(made: &ComparisonRecord) -> Value {
    let result = &made.result;
    let (sequences, schema): (Vec<_>, Vec<_>) = result.schema.iter().partition(|difference| difference.kind == "sequence");
    json!({
        "name": made.name,
        "against": made.against,
        "at": made.at,
        "equal": result.equal(),
        "summary": result.summary(),
        "schema": { "equal": result.schema_equal(), "differences": schema },
        "sequences": { "equal": sequences.is_empty(), "differences": sequences },
        "tables": result.tables,
        "tolerated": result.tolerated,
        "excluded": result.excluded,
        "file": made.file,
    })
}

fn comparison_summary(made: &ComparisonRecord) -> Value {
    let result = &made.result;
    json!({
        "name": made.name,
        "against": made.against,
        "at": made.at,
        "equal": result.equal(),
        "schema_differences": result.schema.len(),
        "tables": result.tables.len(),
        "tables_differing": result.damaged_tables().count(),
        "rows": result.rows(),
        "summary": result.summary(),
        "file": made.file,
    })
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;

    fn text(record: &DrillRecord) -> String {
        let subjects = [Subject { name: "manifest.json".into(), sha256: "0".repeat(64) }];
        serde_json::to_string_pretty(&statement(record, &subjects)).unwrap()
    }

    #[test]
    fn a_go_reads_as_it_should() {
        insta::assert_snapshot!(text(&samples::go()));
    }

    #[test]
    fn the_first_decision_is_the_verdicts_and_reads_literally() {
        for (record, decision, result) in
            [(samples::go(), "GO", "PASSED"), (samples::no_go(), "NO_GO", "FAILED"), (samples::hostile(), "INCONCLUSIVE", "WARNED")]
        {
            let text = text(&record);
            let at = text.find("\"decision\"").unwrap();
            assert!(text[at..].starts_with(&format!("\"decision\": \"{decision}\"")));
            assert!(text.contains(&format!("\"result\": \"{result}\"")));
        }
    }

    #[test]
    fn a_drill_without_a_verdict_is_inconclusive_whatever_its_checks_say() {
        let mut record = samples::go();
        record.verdict = None;
        let value = statement(&record, &[]);
        assert_eq!(value["predicate"]["verdict"]["decision"], "INCONCLUSIVE");
        assert_eq!(value["predicate"]["verdict"]["reasons"][0]["code"], "interrupted");
    }

    #[test]
    fn an_objective_that_nobody_measured_is_not_met() {
        let mut record = samples::go();
        record.objectives.rto_ms = None;
        assert!(statement(&record, &[])["predicate"]["objectives"]["rto"]["met"].is_null());
    }

    #[test]
    fn sequences_stand_apart_from_the_schema() {
        let value = statement(&samples::no_go(), &[]);
        let made = &value["predicate"]["comparison"];
        assert_eq!(made["sequences"]["differences"][0]["object"], "public.dummy_id_seq");
        assert_eq!(made["schema"]["differences"].as_array().unwrap().len(), 1);
    }
}
