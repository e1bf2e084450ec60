//! The seventh phase: the restored database equals the known-good state, exactly.

use super::drill::ms;
use super::{Drill, Failure, Outcome};
use std::time::Duration;
use turnback_core::comparison::{Comparison, Difference};
use turnback_core::drill::{Check, CheckId, Phase};

impl Drill {
    /// Compares every schema object and every row of the restored database with a known-good state.
    pub async fn expect_equal(&mut self, point: &str) -> Outcome {
        self.enter(Phase::Verification);
        if self.stage()?.restored.is_none() {
            return Err(Failure::order("nothing has been restored that could be compared"));
        }
        let result = self.compare_with(point, "after-restore").await?;
        let file = "comparisons/after-restore.json";
        let schema = super::damage::schema_differences(&result);
        let rows: u64 = result.damaged_tables().map(|table| table.added + table.removed + table.changed).sum();
        let tables: Vec<_> = result.damaged_tables().map(|table| table.table.as_str()).collect();
        let data = if tables.is_empty() {
            format!("all {} rows equal", result.rows())
        } else {
            format!("{rows} differing rows in {}", tables.join(", "))
        };
        let first =
            self.require(Check::observed(CheckId::SchemaEqual, result.schema_equal(), "0 schema differences", schema).shown_in(file));
        let second = self.require(Check::observed(CheckId::DataEqual, result.data_equal(), "every row equal", data).shown_in(file));
        first.and(second)?;
        let tolerated = tolerances(&result).map_or_else(String::new, |said| format!("\n{said}"));
        Ok(format!("{}{tolerated}", result.summary()))
    }

    /// Asserts that the recovery took no longer than this.
    pub fn expect_rto(&mut self, allowed: Duration) -> Outcome {
        self.record.objectives.rto_target_ms = Some(ms(allowed));
        match self.record.objectives.rto_ms {
            Some(took) if took <= ms(allowed) => Ok(format!("{took} ms")),
            Some(took) => Err(Failure::because(
                turnback_core::drill::ReasonCode::RtoMissed,
                format!("recovery took {took} ms, and {} ms are allowed", ms(allowed)),
            )),
            None => Err(Failure::order("nothing has been restored")),
        }
    }

    /// Holds what was measured against what was promised, once, at the end.
    pub(super) fn check_objectives(&mut self) {
        let objectives = self.record.objectives.clone();
        if let (Some(target), Some(took)) = (objectives.rto_target_ms, objectives.rto_ms) {
            self.check(Check::observed(CheckId::RtoMet, took <= target, format!("at most {target} ms"), format!("{took} ms")));
        }
        if let (Some(target), Some(lost)) = (objectives.rpo_target_ms, objectives.rpo_ms) {
            self.check(Check::observed(CheckId::RpoMet, lost <= target, format!("at most {target} ms"), format!("{lost} ms")));
        }
    }
}

/// What differs and is tolerated, said in a line; `None` where nothing is.
pub(super) fn tolerances(result: &Comparison) -> Option<String> {
    let named = |difference: &Difference| {
        let why = if difference.kind == "sequence" { "recovery leaves it up to 32 ahead" } else { "it is unlogged and came back empty" };
        format!("{} {} ({why})", difference.kind, difference.object)
    };
    let all: Vec<_> = result.tolerated.iter().map(named).collect();
    (!all.is_empty()).then(|| format!("tolerated and reported: {}", all.join(", ")))
}

/// A name as a file name.
pub(super) fn slug(name: &str) -> String {
    let mut slug = String::new();
    for c in name.chars() {
        if c.is_ascii_alphanumeric() {
            slug.push(c.to_ascii_lowercase());
        } else if !slug.is_empty() && !slug.ends_with('-') {
            slug.push('-');
        }
    }
    let slug = slug.trim_end_matches('-').chars().take(60).collect::<String>();
    if slug.is_empty() { "unnamed".to_owned() } else { slug }
}
