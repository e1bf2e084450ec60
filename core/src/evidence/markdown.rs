//! report.md: the drill as it reads in a pull request or a CI summary. Verdict and reasons first.

use super::terminal::{rpo, rto};
use super::text::{counted, duration, exact_time, markdown_code as code, markdown_prose as prose, number, shortened, size, time};
use super::{ComparisonRecord, DrillRecord, RestoreRecord, StepStatus};
use crate::comparison::{Change, RowDifference};
use std::fmt::Write as _;

/// Differences shown of each kind; the rest is in the package.
const SHOWN: usize = 20;

/// The longest value shown of one cell.
const CELL: usize = 160;

/// The drill in Markdown, GitHub's flavour.
#[must_use]
pub fn markdown(record: &DrillRecord) -> String {
    let mut out = String::new();
    verdict(&mut out, record);
    objectives(&mut out, record);
    proof(&mut out, record);
    differences(&mut out, record);
    checks(&mut out, record);
    steps(&mut out, record);
    facts(&mut out, record);
    not_tested(&mut out, record);
    again(&mut out, record);
    out
}

fn put(out: &mut String, line: impl AsRef<str>) {
    out.push_str(line.as_ref());
    out.push('\n');
}

fn verdict(out: &mut String, record: &DrillRecord) {
    let verdict = record.decided();
    put(out, format!("# {}: {}\n", verdict.decision, prose(&record.scenario.name)));
    for reason in &verdict.reasons {
        put(out, format!("- **`{}`**: {}", reason.code.code(), prose(&shortened(&reason.message, 600))));
    }
    put(out, "\n**What to do next**\n");
    for note in record.remediation() {
        put(out, format!("- {}", prose(&note.note)));
    }
    put(
        out,
        format!(
            "\nRun `{}` on {} by {}, {}, in {}. {}\n",
            record.run.id,
            code(&record.run.platform),
            code(&record.run.actor),
            time(record.run.started),
            duration(record.run.wall_ms),
            prose(&record.run.platform_note)
        ),
    );
}

fn objectives(out: &mut String, record: &DrillRecord) {
    put(out, "## Time\n");
    let goals = &record.objectives;
    if let Some((text, met)) = rto(goals) {
        put(out, format!("- **Recovery time (RTO)**: {}{}", prose(&text), if met { "" } else { " — **missed**" }));
    }
    if let Some((text, met)) = rpo(goals) {
        put(out, format!("- **Recovery point (RPO)**: {}{}", prose(&text), if met { "" } else { " — **missed**" }));
    }
    if goals.rto_ms.is_none() {
        put(out, "- Recovery time was not measured: the drill did not get that far.");
    }
    put(out, "\n| Phase | Began | Took |\n| --- | --- | ---: |");
    for phase in &record.phases {
        put(out, format!("| {} | {} | {} |", phase.phase, phase.started.strftime("%H:%M:%S%.3f"), duration(phase.ms)));
    }
    put(out, "");
}

fn proof(out: &mut String, record: &DrillRecord) {
    for restore in &record.restores {
        restored(out, record, restore);
    }
}

fn restored(out: &mut String, record: &DrillRecord, restore: &RestoreRecord) {
    put(out, "## Where replay stopped\n");
    put(
        out,
        format!(
            "- Restored {} from backup {}, to {}.",
            code(&restore.recovery_point),
            code(&restore.backup),
            code(&restore.target.to_string())
        ),
    );
    if let Some(point) = record.recovery_points.iter().find(|point| point.name == restore.recovery_point) {
        put(out, format!("- The recovery point: LSN `{}`, {}, timeline {}.", point.lsn, exact_time(point.time), point.timeline));
    }
    match &restore.reached {
        Some(reached) => {
            let commit =
                reached.last_commit.map_or_else(|| "no commit replayed".to_owned(), |time| format!("last commit {}", exact_time(time)));
            // Where the platform itself promotes, the server is never seen paused.
            let when = if reached.pause_state == "paused" { "Before promotion: replay" } else { "Replay:" };
            put(out, format!("- {when} {} at LSN `{}`, {commit}.", code(&reached.pause_state), reached.lsn));
            if let (Some(marker), Some(sentinel)) = (reached.marker_present, reached.sentinel_absent) {
                let marker = if marker { "there" } else { "**missing**" };
                let sentinel = if sentinel { "not there" } else { "**there**" };
                put(out, format!("- The last wanted transaction is {marker}; the first unwanted one is {sentinel}."));
            }
        }
        None => put(out, "- Replay never paused at the target."),
    }
    match (restore.timeline, &restore.system_identifier) {
        (Some(timeline), Some(system)) => put(out, format!("- After promotion: timeline {timeline}, system identifier {}.", code(system))),
        _ => put(out, "- It was not promoted."),
    }
    put(out, "");
}

fn differences(out: &mut String, record: &DrillRecord) {
    if record.comparisons.is_empty() {
        return;
    }
    put(out, "## Comparisons with the known-good state\n\n| When | Result | In full |\n| --- | --- | --- |");
    for made in &record.comparisons {
        put(out, format!("| {} | {} | {} |", prose(&made.name), prose(&made.result.summary()), code(&made.file)));
    }
    put(out, "");
    // The last one that found something: after a GO that is the damage the restore healed, otherwise what is wrong now.
    if let Some(made) = record.comparisons.iter().rev().find(|made| !made.result.equal()) {
        difference_tables(out, made);
    }
    let made = record.final_comparison().map(|made| &made.result);
    for difference in made.into_iter().flat_map(|made| &made.tolerated) {
        put(
            out,
            format!(
                "- Tolerated: {} {} was {}, is {}.",
                prose(&difference.kind),
                code(&difference.object),
                value(difference.left.as_deref()),
                value(difference.right.as_deref())
            ),
        );
    }
    for left_out in made.into_iter().flat_map(|made| &made.excluded) {
        put(out, format!("- Left out: {}", prose(left_out)));
    }
    put(out, "");
}

fn difference_tables(out: &mut String, made: &ComparisonRecord) {
    put(out, format!("<details><summary>What differed {}</summary>\n", prose(&made.name.replace('-', " "))));
    if !made.result.schema.is_empty() {
        put(out, "| Object | Property | Known-good | Found |\n| --- | --- | --- | --- |");
        for difference in made.result.schema.iter().take(SHOWN) {
            let property = if difference.property.is_empty() { change(difference.change).to_owned() } else { prose(&difference.property) };
            let object = format!("{} {}", prose(&difference.kind), code(&shortened(&difference.object, CELL)));
            put(out, format!("| {object} | {property} | {} | {} |", value(difference.left.as_deref()), value(difference.right.as_deref())));
        }
        more(out, made.result.schema.len().saturating_sub(SHOWN) as u64, "schema difference", "schema differences");
        put(out, "");
    }
    if made.result.damaged_tables().next().is_some() {
        put(
            out,
            "| Table | Rows before | Rows after | Added | Removed | Changed | First differing rows |\n| --- | ---: | ---: | ---: | ---: | ---: | --- |",
        );
        for table in made.result.damaged_tables().take(SHOWN) {
            let rows = |rows: Option<u64>| rows.map_or_else(|| "no table".to_owned(), number);
            put(
                out,
                format!(
                    "| {} | {} | {} | {} | {} | {} | {} |",
                    code(&shortened(&table.table, CELL)),
                    rows(table.rows_left),
                    rows(table.rows_right),
                    number(table.added),
                    number(table.removed),
                    number(table.changed),
                    table.rows.iter().take(5).map(row).collect::<Vec<_>>().join(", ")
                ),
            );
        }
        more(out, made.result.damaged_tables().count().saturating_sub(SHOWN) as u64, "table", "tables");
    }
    put(out, "\n</details>\n");
}

fn more(out: &mut String, count: u64, one: &str, many: &str) {
    if count > 0 {
        put(out, format!("\nand {} more, in the file named above.", counted(count, one, many)));
    }
}

fn change(change: Change) -> &'static str {
    match change {
        Change::Added => "added",
        Change::Removed => "removed",
        Change::Changed => "changed",
    }
}

fn row(row: &RowDifference) -> String {
    let key: Vec<_> = row.key.iter().map(|(column, value)| format!("{column}={value}")).collect();
    let times = if row.count > 1 { format!(" ×{}", number(row.count)) } else { String::new() };
    format!("{} {}{times}", change(row.change), code(&shortened(&key.join(", "), CELL)))
}

fn value(value: Option<&str>) -> String {
    value.map_or_else(|| "—".to_owned(), |text| code(&shortened(text, CELL)))
}

fn checks(out: &mut String, record: &DrillRecord) {
    put(out, "## Checks\n\n| | Check | Expected | Found |\n| --- | --- | --- | --- |");
    for check in &record.checks {
        let mark = if check.passed() { "✓" } else { "✗" };
        let found = check.file.as_deref().map_or_else(String::new, |file| format!(" ({})", code(file)));
        put(
            out,
            format!(
                "| {mark} | {} (`{}`) | {} | {}{found} |",
                check.id.title(),
                check.id.name(),
                prose(&shortened(&check.expected, CELL)),
                prose(&shortened(&check.actual, 2 * CELL))
            ),
        );
    }
    put(out, "");
}

fn steps(out: &mut String, record: &DrillRecord) {
    put(out, "## Steps\n\n| | Step | Took | Seen |\n| --- | --- | ---: | --- |");
    for step in &record.scenario.steps {
        let (mark, took) = match step.status {
            StepStatus::Passed => ("✓", duration(step.ms)),
            StepStatus::Failed => ("✗", duration(step.ms)),
            StepStatus::Skipped => ("–", "not run".to_owned()),
        };
        let seen = step.error.as_deref().or(step.seen.as_deref()).unwrap_or_default();
        put(
            out,
            format!(
                "| {mark} | **{}** {} | {took} | {} |",
                prose(step.keyword.trim()),
                prose(&step.text),
                prose(&shortened(seen, 2 * CELL))
            ),
        );
    }
    put(out, "");
}

fn facts(out: &mut String, record: &DrillRecord) {
    put(out, "## What was done\n");
    for backup in &record.backups {
        let verified = match backup.verified {
            Some(true) => "verified",
            Some(false) => "**not whole**",
            None => "not verified",
        };
        put(
            out,
            format!(
                "- Backup {}: LSN `{}` to `{}`, {}, {verified}: {}",
                code(&backup.backup.id),
                backup.backup.begin_lsn,
                backup.backup.end_lsn,
                size(backup.backup.bytes),
                prose(&shortened(&backup.verification, 2 * CELL))
            ),
        );
    }
    for change in &record.changes {
        put(
            out,
            format!(
                "- Change: {} in commit {}, applied as {} at {}.",
                code(&change.migration),
                code(&change.commit),
                code(&change.applied_revision),
                time(change.applied)
            ),
        );
    }
    for revert in &record.reverts {
        put(
            out,
            format!(
                "- Revert: commit {} of {}, applied as {} at {}.",
                code(&revert.commit),
                code(&revert.reverts),
                code(&revert.applied_revision),
                time(revert.applied)
            ),
        );
    }
    for tool in &record.toolchain {
        put(out, format!("- {} {}", prose(&tool.name), prose(&tool.version)));
    }
    put(out, format!("- Turnback {}", prose(&record.run.turnback)));
    let cleanup = &record.cleanup;
    let removed = if cleanup.removed.is_empty() {
        "nothing".to_owned()
    } else {
        cleanup.removed.iter().map(|what| prose(what)).collect::<Vec<_>>().join(", ")
    };
    put(out, format!("- Cleaned up: {removed}."));
    for left in &cleanup.left {
        put(out, format!("- **Left behind**: {}", prose(left)));
    }
    if record.redactions > 0 {
        put(out, format!("- {} taken out of this package.", counted(record.redactions, "secret was", "secrets were")));
    }
    put(out, "");
}

fn not_tested(out: &mut String, record: &DrillRecord) {
    put(out, "## What was not tested\n");
    for limit in record.limits.iter().chain(&record.not_exercised) {
        put(out, format!("- {}", prose(limit)));
    }
    if record.limits.is_empty() && record.not_exercised.is_empty() {
        put(out, "- Nothing was recorded here; that does not mean that everything was tested.");
    }
    for fault in &record.faults {
        put(out, format!("- Broken on purpose: {}", prose(fault)));
    }
    put(out, "");
}

fn again(out: &mut String, record: &DrillRecord) {
    // An indented block cannot be ended by what stands in it.
    let _ = writeln!(out, "## How to run it again\n\n    {}", super::plain(&record.run.command));
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;

    #[test]
    fn a_go_reads_as_it_should() {
        insta::assert_snapshot!(markdown(&samples::go()));
    }

    #[test]
    fn a_no_go_reads_as_it_should() {
        insta::assert_snapshot!(markdown(&samples::no_go()));
    }

    #[test]
    fn hostile_strings_are_only_text() {
        let text = markdown(&samples::hostile());
        insta::assert_snapshot!(text);
        // Between backticks and in the indented command nothing is markup.
        let outside: String = text.lines().filter(|line| !line.starts_with("    ")).flat_map(|line| line.split('`').step_by(2)).collect();
        assert!(!outside.contains("<script") && !text.contains('\u{1b}') && !text.contains("\n## heading") && !text.contains('\0'));
        for line in text.lines().filter(|line| line.starts_with('|')) {
            let cells = line.replace("\\|", "").matches('|').count();
            assert!((4..=8).contains(&cells), "{cells} cells: {line}");
        }
    }
}
