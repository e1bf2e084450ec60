//! The fourth phase: show what the change broke, in the database and in the application.

use super::{Drill, Failure, Outcome};
use crate::clock;
use crate::database::{self, CompareOptions, SnapshotOptions, history};
use crate::platform::local::application::Observation;
use serde_json::json;
use turnback_core::comparison::{Change, Comparison, Difference, TableComparison};
use turnback_core::drill::{Check, CheckId, Phase, ReasonCode};
use turnback_core::evidence::ComparisonRecord;

/// Where the sample application's orders go.
const ORDERS: &str = "public.orders";
/// The sequence behind them.
const ORDERS_SEQUENCE: &str = "public.orders_id_seq";

impl Drill {
    /// Compares the database as it is now with a known-good state.
    pub(super) async fn compare_with(&mut self, point: &str, moment: &str) -> Result<Comparison, Failure> {
        let known = self.known(point)?.snapshot.clone();
        let address = self.stage()?.current();
        let directory = self.package.path().join("snapshots").join(moment);
        let snapshot = database::snapshot(&address, &SnapshotOptions::default(), &directory).await.map_err(|e| Failure::platform(&e))?;
        let result = database::compare(&known, &snapshot, &CompareOptions::default()).map_err(|e| Failure::platform(&e))?;
        // The rows' sidecar has done its work; the known-good one stays in the evidence, this one would only repeat it.
        std::fs::remove_file(directory.join(database::ROWS_FILE)).map_err(|e| Failure::platform(&e))?;
        let file = format!("comparisons/{moment}.json");
        let text = serde_json::to_string_pretty(&result).map_err(|e| Failure::platform(&e))?;
        self.package.add_file(&file, text.as_bytes()).map_err(|e| Failure::platform(&e))?;
        self.journal("comparison", json!({ "moment": moment, "against": point, "summary": result.summary(), "digest": snapshot.digest() }));
        self.record.comparisons.push(ComparisonRecord {
            name: moment.to_owned(),
            against: point.to_owned(),
            at: clock::now(),
            result: result.clone(),
            file,
        });
        Ok(result)
    }

    /// Shows the damage; finding none voids the drill.
    pub async fn show_damage(&mut self, point: &str) -> Outcome {
        self.enter(Phase::Damage);
        let result = self.compare_with(point, "after-change").await?;
        let damage = self.damage(&result)?;
        let found = if damage.equal() {
            "nothing beside the migrator's own history and orders that were placed meanwhile".to_owned()
        } else {
            damage.summary()
        };
        let check = Check::observed(CheckId::DamageShown, !damage.equal(), "a difference that the change made", found);
        self.require(check.shown_in("comparisons/after-change.json"))?;
        Ok(list(&result))
    }

    /// What of a comparison counts as damage. The migrator's own history changes with every migration, and the sample application goes on
    /// placing orders while it may: neither is what the change did to the data.
    pub(super) fn damage(&mut self, result: &Comparison) -> Result<Comparison, Failure> {
        let orders = self.stage()?.orders_placed;
        let only_new = |table: &TableComparison| table.removed == 0 && table.changed == 0;
        let counted = |difference: &Difference| difference.kind == "sequence" && difference.object == ORDERS_SEQUENCE;
        Ok(result.without(
            |difference| history::owns(&difference.object) || orders && counted(difference),
            |table| table.table == history::TABLE || orders && table.table == ORDERS && only_new(table),
        ))
    }

    /// Asserts how many rows of a table differ in a certain way, in the comparison made last.
    pub fn expect_rows(&mut self, table: &str, change: Change, count: Option<u64>) -> Outcome {
        let result = self.last_comparison()?;
        let Some(found) = result.tables.iter().find(|compared| names(&compared.table, table)) else {
            let tables: Vec<_> = result.tables.iter().map(|compared| compared.table.as_str()).collect();
            return Err(Failure::expectation(format!("there is no table {table} among those compared: {}", tables.join(", "))));
        };
        let (rows, word) = match change {
            Change::Added => (found.added, "inserted"),
            Change::Removed => (found.removed, "deleted"),
            Change::Changed => (found.changed, "changed"),
        };
        let said = format!("{}: {} inserted, {} deleted, {} changed", found.table, found.added, found.removed, found.changed);
        match count {
            Some(count) if rows != count => Err(Failure::expectation(format!("expected {count} {word} rows; {said}"))),
            None if rows == 0 => Err(Failure::expectation(format!("expected {word} rows; {said}"))),
            _ => Ok(said),
        }
    }

    /// Asserts that a schema object differs, in the comparison made last.
    pub fn expect_schema_difference(&mut self, object: &str) -> Outcome {
        let result = self.last_comparison()?;
        let found: Vec<_> = result.schema.iter().filter(|difference| names(&difference.object, object)).map(describe).collect();
        if found.is_empty() {
            let all: Vec<_> = result.schema.iter().map(|difference| difference.object.as_str()).collect();
            return Err(Failure::expectation(format!(
                "{object} does not differ; these do: {}",
                if all.is_empty() { "none".to_owned() } else { all.join(", ") }
            )));
        }
        Ok(found.join("\n"))
    }

    fn last_comparison(&self) -> Result<&Comparison, Failure> {
        self.record.comparisons.last().map(|record| &record.result).ok_or_else(|| Failure::order("nothing has been compared yet"))
    }

    /// Asserts that the application itself reports database errors: in its health, its metrics and its log.
    pub async fn expect_application_errors(&mut self) -> Outcome {
        self.enter(Phase::Damage);
        let seen = self.observe().await?;
        let shown = !seen.healthy && seen.database_errors > 0 && !seen.log_errors.is_empty();
        let actual = format!(
            "health {} ({}), {} database errors counted, {} error lines logged",
            status(&seen),
            seen.detail,
            seen.database_errors,
            seen.log_errors.len()
        );
        let check = Check::observed(CheckId::ApplicationErrorsShown, shown, "errors in health, metrics and log", actual.clone());
        self.require(check)?;
        Ok(actual)
    }

    /// Asks the application how it is, and keeps the answer.
    pub(super) async fn observe(&mut self) -> Result<Observation, Failure> {
        let seen = self.stage()?.platform.observe().await?;
        let phase = self.phase;
        self.journal("application", json!({ "phase": phase, "healthy": seen.healthy, "status": seen.status, "version": seen.version, "database_errors": seen.database_errors, "detail": seen.detail }));
        Ok(seen)
    }

    /// The application's version must be the one of the known-good state.
    pub async fn expect_known_good_version(&mut self) -> Outcome {
        self.enter(Phase::Revert);
        let Some(wanted) = self.known_good.values().find_map(|known| known.version.clone()) else {
            return Err(Failure::order("no known-good state with an application is recorded"));
        };
        let seen = self.observe().await?;
        let version = seen.version.unwrap_or_else(|| "no version".to_owned());
        self.require(Check::observed(CheckId::ApplicationVersion, version == wanted, &wanted, &version))?;
        Ok(format!("version {wanted}, as in the known-good state"))
    }

    /// The application must be healthy on the database that it was pointed at.
    pub async fn expect_healthy(&mut self) -> Outcome {
        let seen = self.observe().await?;
        if self.change.is_none() {
            return if seen.healthy { Ok(seen.detail) } else { Err(Failure::because(ReasonCode::PlatformFailed, seen.detail)) };
        }
        self.enter(Phase::Verification);
        self.require(Check::observed(CheckId::ApplicationHealthy, seen.healthy, "healthy", format!("{}: {}", status(&seen), seen.detail)))?;
        Ok(if seen.detail.is_empty() { status(&seen) } else { format!("{}: {}", status(&seen), seen.detail) })
    }
}

fn status(seen: &Observation) -> String {
    seen.status.map_or_else(|| "no answer".to_owned(), |status| status.to_string())
}

/// Whether a quoted, qualified name is the one that a person wrote, with or without its schema and quotes.
fn names(full: &str, written: &str) -> bool {
    let plain = |name: &str| name.replace('"', "");
    let (full, written) = (plain(full), plain(written));
    full == written || full.strip_suffix(&written).is_some_and(|schema| schema.ends_with('.'))
}

fn describe(difference: &turnback_core::comparison::Difference) -> String {
    let value = |value: &Option<String>| value.as_deref().unwrap_or("nothing").to_owned();
    match difference.change {
        Change::Added => format!("{} {} added", difference.kind, difference.object),
        Change::Removed => format!("{} {} removed", difference.kind, difference.object),
        Change::Changed => {
            format!(
                "{} {}: {} was {}, is {}",
                difference.kind,
                difference.object,
                difference.property,
                value(&difference.left),
                value(&difference.right)
            )
        }
    }
}

/// How many schema objects differ, and the first few of them.
pub(super) fn schema_differences(result: &Comparison) -> String {
    const SHOWN: usize = 3;
    let count = result.schema.len();
    let mut said = format!("{count} schema difference{}", if count == 1 { "" } else { "s" });
    for (place, difference) in result.schema.iter().take(SHOWN).enumerate() {
        said.push_str(if place == 0 { ": " } else { "; " });
        said.push_str(&describe(difference));
    }
    if count > SHOWN {
        said.push_str("; …");
    }
    said
}

/// The differences in a few lines.
fn list(result: &Comparison) -> String {
    const SHOWN: usize = 4;
    let mut lines = vec![result.summary()];
    lines.extend(result.schema.iter().take(SHOWN).map(describe));
    if result.schema.len() > SHOWN {
        lines.push(format!("… and {} more schema differences", result.schema.len() - SHOWN));
    }
    for table in result.damaged_tables().take(SHOWN) {
        let keys: Vec<_> = table
            .rows
            .iter()
            .take(3)
            .map(|row| row.key.iter().map(|(column, value)| format!("{column}={value}")).collect::<Vec<_>>().join(","))
            .collect();
        let more = if table.rows.len() > 3 { ", …" } else { "" };
        lines.push(format!(
            "{}: {} inserted, {} deleted, {} changed ({}{more})",
            table.table,
            table.added,
            table.removed,
            table.changed,
            keys.join("; ")
        ));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::names;

    #[test]
    fn a_name_may_be_written_short() {
        assert!(names("public.dummy", "dummy"));
        assert!(names("public.dummy", "public.dummy"));
        assert!(names("public.\"Odd Name\"", "Odd Name"));
        assert!(!names("public.mydummy", "dummy"));
    }
}
