//! report.html: the drill as one page that needs no network and no script.
//!
//! Everything from outside goes through [`plain`] and minijinja's HTML escaping; the template marks nothing as safe.

use super::terminal::{rpo, rto};
use super::text::{counted, duration, exact_time, number, plain, shortened, size, time};
use super::{ComparisonRecord, DrillRecord, StepStatus};
use crate::comparison::{Change, Difference};
use crate::recovery::{Lsn, Target};
use minijinja::{Environment, Value, context};

const TEMPLATE: &str = include_str!("templates/report.html");

/// Differences and rows shown of each kind; the rest is in the package.
const SHOWN: usize = 50;

/// The longest value shown.
const CELL: usize = 400;

/// The drill as one page.
#[must_use]
pub fn html(record: &DrillRecord) -> String {
    let mut environment = Environment::new();
    let page =
        environment.add_template("report.html", TEMPLATE).and_then(|()| environment.get_template("report.html")?.render(view(record)));
    // The template is compiled in and rendered by the tests: an error here is one of memory. The page then says so instead of a wrong verdict.
    page.unwrap_or_else(|error| {
        format!("<!doctype html><title>Turnback</title><p>This report could not be rendered ({error}). See report.md.</p>")
    })
}

fn clean(text: &str) -> String {
    plain(&shortened(text, 4 * CELL))
}

fn view(record: &DrillRecord) -> Value {
    let verdict = record.decided();
    let goals = &record.objectives;
    let objective = |told: Option<(String, bool)>| told.map(|(text, met)| context! { text => clean(&text), met });
    let damage = record.comparisons.iter().rev().find(|made| !made.result.equal());
    let last = record.final_comparison();
    context! {
        decision => verdict.decision.to_string(),
        tone => match verdict.decision {
            crate::drill::Decision::Go => "go",
            crate::drill::Decision::NoGo => "nogo",
            crate::drill::Decision::Inconclusive => "open",
        },
        title => clean(&record.scenario.name),
        reasons => verdict.reasons.iter().map(|reason| context! { code => reason.code.code(), message => clean(&reason.message) }).collect::<Vec<_>>(),
        remedies => record.remediation().iter().map(|note| clean(&note.note)).collect::<Vec<_>>(),
        run => context! {
            id => clean(&record.run.id), platform => clean(&record.run.platform), note => clean(&record.run.platform_note), actor => clean(&record.run.actor),
            started => time(record.run.started), took => duration(record.run.wall_ms), turnback => clean(&record.run.turnback), command => plain(&record.run.command),
        },
        rto => objective(rto(goals)),
        rpo => objective(rpo(goals)),
        rto_parts => bar(goals.rto_parts.iter().map(|(name, ms)| (clean(name), *ms, String::new()))),
        phases => bar(record.phases.iter().map(|phase| (phase.phase.to_string(), phase.ms, phase.started.strftime("%H:%M:%S%.3f").to_string()))),
        axis => axis(record),
        restores => restores(record),
        comparisons => record.comparisons.iter().map(|made| context! {
            name => clean(&made.name), at => time(made.at), equal => made.result.equal(), summary => clean(&made.result.summary()), file => clean(&made.file),
        }).collect::<Vec<_>>(),
        damage => damage.map(differences),
        tolerated => last.map(|made| made.result.tolerated.iter().map(difference).collect::<Vec<_>>()),
        excluded => last.map(|made| made.result.excluded.iter().map(|text| clean(text)).collect::<Vec<_>>()),
        checks => record.checks.iter().map(|check| context! {
            name => check.id.name(), title => check.id.title(), passed => check.passed(), expected => clean(&check.expected), actual => clean(&check.actual),
            file => check.file.as_deref().map(clean),
        }).collect::<Vec<_>>(),
        checks_passed => record.checks.iter().filter(|check| check.passed()).count(),
        steps => steps(record),
        done => done(record),
        not_tested => record.limits.iter().chain(&record.not_exercised).map(|text| clean(text)).collect::<Vec<_>>(),
        faults => record.faults.iter().map(|text| clean(text)).collect::<Vec<_>>(),
        left => record.cleanup.left.iter().map(|text| clean(text)).collect::<Vec<_>>(),
        removed => record.cleanup.removed.iter().map(|text| clean(text)).collect::<Vec<_>>(),
        cleaned => record.cleanup.complete,
        redactions => record.redactions,
    }
}

/// Parts of a bar: each as wide as it took long, but never too narrow to be seen.
fn bar(parts: impl Iterator<Item = (String, u64, String)>) -> Vec<Value> {
    parts
        .enumerate()
        .map(|(place, (name, ms, began))| context! { name, began, took => duration(ms), weight => ms.max(1), tint => place % 8 })
        .collect()
}

/// The LSN axis: where things stand in the WAL, at even distances in their order, because true distances would put them on one spot.
fn axis(record: &DrillRecord) -> Vec<Value> {
    let mut marks: Vec<(Lsn, &str, &str)> = Vec::new();
    for backup in &record.backups {
        marks.push((backup.backup.end_lsn, "end of the base backup", "plain"));
    }
    for point in &record.recovery_points {
        marks.push((point.marker.lsn, "last wanted transaction", "plain"));
        marks.push((point.lsn, "recovery point", "point"));
        marks.push((point.sentinel.lsn, "first unwanted transaction begins", "bad"));
    }
    for restore in &record.restores {
        // A time, a transaction or a name stands for the recovery point's own place.
        let point = record.recovery_points.iter().find(|point| point.name == restore.recovery_point).map(|point| point.lsn);
        let target = if let Target::Lsn(lsn) = restore.target.target { Some(lsn) } else { point };
        marks.extend(target.map(|lsn| (lsn, "target", "point")));
        if let Some(reached) = &restore.reached {
            marks.push((reached.lsn, "replay stopped here", "reached"));
        }
    }
    marks.sort_by_key(|mark| mark.0);
    let mut spots: Vec<(Lsn, Vec<&str>, &str)> = Vec::new();
    for (lsn, label, kind) in marks {
        match spots.last_mut() {
            Some(spot) if spot.0 == lsn => {
                if !spot.1.contains(&label) {
                    spot.1.push(label);
                }
                // Where several meet, what was reached says most, then what must not be there.
                let weight = |kind: &str| ["plain", "point", "bad", "reached"].iter().position(|known| *known == kind);
                if weight(kind) > weight(spot.2) {
                    spot.2 = kind;
                }
            }
            _ => spots.push((lsn, vec![label], kind)),
        }
    }
    let mut axis: Vec<Value> = spots.into_iter().map(|(lsn, labels, kind)| context! { lsn => lsn.to_string(), labels, kind }).collect();
    if !axis.is_empty() {
        axis.extend(
            record
                .changes
                .iter()
                .map(|made| context! { lsn => "later", labels => [format!("the change {}", clean(&made.migration))], kind => "bad" }),
        );
    }
    axis
}

fn restores(record: &DrillRecord) -> Vec<Value> {
    let rows = record.restores.iter().map(|restore| {
        let point = record.recovery_points.iter().find(|point| point.name == restore.recovery_point);
        context! {
            point => clean(&restore.recovery_point),
            point_at => point.map(|point| format!("LSN {}, {}, timeline {}", point.lsn, exact_time(point.time), point.timeline)),
            backup => clean(&restore.backup),
            target => clean(&restore.target.to_string()),
            state => restore.reached.as_ref().map(|reached| clean(&reached.pause_state)),
            lsn => restore.reached.as_ref().map(|reached| reached.lsn.to_string()),
            last_commit => restore.reached.as_ref().and_then(|reached| reached.last_commit).map(exact_time),
            marker => restore.reached.as_ref().and_then(|reached| reached.marker_present),
            sentinel_absent => restore.reached.as_ref().and_then(|reached| reached.sentinel_absent),
            timeline => restore.timeline,
            system => restore.system_identifier.as_deref().map(clean),
        }
    });
    rows.collect()
}

fn change(change: Change) -> &'static str {
    match change {
        Change::Added => "added",
        Change::Removed => "removed",
        Change::Changed => "changed",
    }
}

fn difference(found: &Difference) -> Value {
    let side = |value: &Option<String>| value.as_deref().map(|text| plain(&shortened(text, CELL)));
    context! {
        kind => clean(&found.kind), object => clean(&found.object), change => change(found.change), property => clean(&found.property),
        left => side(&found.left), right => side(&found.right),
    }
}

fn differences(made: &ComparisonRecord) -> Value {
    let tables = made.result.damaged_tables().take(SHOWN).map(|table| {
        let rows = table.rows.iter().take(SHOWN).map(|row| {
            let key: Vec<_> = row.key.iter().map(|(column, value)| format!("{} = {}", clean(column), plain(&shortened(value, CELL)))).collect();
            context! { change => change(row.change), key => key.join(", "), count => (row.count > 1).then(|| number(row.count)) }
        });
        let count = |rows: Option<u64>| rows.map_or_else(|| "no such table".to_owned(), |rows| counted(rows, "row", "rows"));
        let total = table.added + table.removed + table.changed;
        context! {
            table => clean(&table.table), left => count(table.rows_left), right => count(table.rows_right), added => number(table.added), removed => number(table.removed),
            changed => number(table.changed), rows => rows.collect::<Vec<_>>(),
            more => Some(total.saturating_sub(table.rows.len().min(SHOWN) as u64)).filter(|more| *more > 0).map(number),
        }
    });
    context! {
        name => clean(&made.name.replace('-', " ")), file => clean(&made.file),
        schema => made.result.schema.iter().take(SHOWN).map(difference).collect::<Vec<_>>(),
        more => Some(made.result.schema.len().saturating_sub(SHOWN)).filter(|more| *more > 0),
        tables => tables.collect::<Vec<_>>(),
    }
}

fn steps(record: &DrillRecord) -> Vec<Value> {
    let longest = record.scenario.steps.iter().map(|step| step.ms).max().unwrap_or(0).max(1);
    let rows = record.scenario.steps.iter().map(|step| {
        let (mark, status) = match step.status {
            StepStatus::Passed => ("✓", "passed"),
            StepStatus::Failed => ("✗", "failed"),
            StepStatus::Skipped => ("–", "not run"),
        };
        context! {
            mark, status, keyword => clean(step.keyword.trim()), text => clean(&step.text), phase => step.phase.name(), took => duration(step.ms),
            share => step.ms * 100 / longest, ran => step.status != StepStatus::Skipped, seen => step.seen.as_deref().map(clean), error => step.error.as_deref().map(clean),
        }
    });
    rows.collect()
}

/// What was done, as label and text.
fn done(record: &DrillRecord) -> Vec<(String, String)> {
    let mut rows = Vec::new();
    let mut row = |label: &str, text: String| rows.push((clean(label), clean(&text)));
    for backup in &record.backups {
        let whole = match backup.verified {
            Some(true) => "verified",
            Some(false) => "not whole",
            None => "not verified",
        };
        let of = &backup.backup;
        row(
            "Base backup",
            format!("{}, LSN {} to {}, {}, {whole}: {}", of.id, of.begin_lsn, of.end_lsn, size(of.bytes), backup.verification),
        );
    }
    for made in &record.changes {
        row(
            "Change",
            format!("{}, commit {}, applied as {} at {}", made.migration, made.commit, made.applied_revision, time(made.applied)),
        );
    }
    for made in &record.reverts {
        row(
            "Revert",
            format!("commit {} of {}, applied as {} at {}", made.commit, made.reverts, made.applied_revision, time(made.applied)),
        );
    }
    for tool in &record.toolchain {
        row(&tool.name, tool.version.clone());
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;

    #[test]
    fn the_page_needs_nothing_from_elsewhere() {
        let page = html(&samples::go());
        for outside in ["http://", "https://", "<script", "<link", "src=", "@import", "url("] {
            assert!(!page.contains(outside), "{outside}");
        }
        assert!(page.len() < 200_000);
    }

    #[test]
    fn the_verdict_comes_first_and_everything_is_there() {
        let page = html(&samples::no_go()).replace("&#x2f;", "/");
        let at = |text: &str| page.find(text).unwrap_or_else(|| panic!("{text} is missing"));
        assert!(at("NO-GO") < at("schema-differs") && at("schema-differs") < at("Where replay stopped"));
        for text in [
            "public.dummy.amount",
            "numeric(12,2)",
            "0/5000148",
            "999",
            "not run",
            "What was not tested",
            "turnback run features/data_rollback.feature --on local",
        ] {
            at(text);
        }
    }

    #[test]
    fn hostile_strings_are_only_text() {
        let page = html(&samples::hostile());
        assert!(page.contains("&lt;script&gt;"));
        for bad in ["<script", "\u{1b}", "\0", "\u{202e}"] {
            assert!(!page.contains(bad), "{bad:?}");
        }
        assert!(page.contains("{{ 7*7 }}"), "what looks like a template is not evaluated");
    }

    /// Writes the three reports beside the test's own files, for whoever wants to look at them.
    #[test]
    fn every_sample_renders() {
        for (name, record) in [("go", samples::go()), ("no-go", samples::no_go()), ("hostile", samples::hostile())] {
            let page = html(&record);
            assert!(page.trim_end().ends_with("</html>"), "{name}: {page}");
            if let Ok(dir) = std::env::var("TURNBACK_REPORT_SAMPLES") {
                std::fs::write(std::path::Path::new(&dir).join(format!("{name}.html")), page).unwrap();
            }
        }
    }
}
