//! Every step with an example and what it does, for `turnback vocabulary`, and the proof that the two agree.

use super::DrillWorld;
use cucumber::World;
#[cfg(test)]
use cucumber::codegen::{WorldInventory, inventory};
use cucumber::gherkin::{LineCol, Span, Step, StepType};
use cucumber::step::Collection;
use serde::Serialize;
use turnback_core::drill::CheckId;

/// What a sentence does with the name of a recovery point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// It names none.
    None,
    /// It records one under a name of its own.
    Recorded,
    /// It names one that an earlier step recorded.
    Named,
}

/// One sentence that a scenario may say.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Sentence {
    /// `Given`, `When` or `Then`.
    pub keyword: &'static str,
    /// The sentence, with example values.
    pub example: &'static str,
    /// What it does or asserts.
    pub says: &'static str,
    /// The phase of the drill it belongs to.
    pub phase: &'static str,
    /// The sentence with every other value of a parameter that has only a few.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub also: &'static [&'static str],
    /// The checks that it makes.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub makes: &'static [CheckId],
    /// What it does with a recovery point's name.
    #[serde(skip)]
    pub point: Point,
    /// Whether it changes the database, so that what was compared before counts for nothing.
    #[serde(skip)]
    pub changes: bool,
}

const fn sentence(keyword: &'static str, phase: &'static str, example: &'static str, says: &'static str) -> Sentence {
    Sentence { keyword, example, says, phase, also: &[], makes: &[], point: Point::None, changes: false }
}

impl Sentence {
    const fn also(self, also: &'static [&'static str]) -> Self {
        Self { also, ..self }
    }

    const fn makes(self, makes: &'static [CheckId]) -> Self {
        Self { makes, ..self }
    }

    const fn records(self) -> Self {
        Self { point: Point::Recorded, ..self }
    }

    const fn names(self) -> Self {
        Self { point: Point::Named, ..self }
    }

    const fn changes(self) -> Self {
        Self { changes: true, ..self }
    }
}

/// What every restore checks.
const RESTORED: &[CheckId] = &[
    CheckId::BackupIntact,
    CheckId::ReplayStoppedAtTarget,
    CheckId::MarkerPresent,
    CheckId::SentinelAbsent,
    CheckId::TimelineAdvanced,
    CheckId::SystemIdentifierUnchanged,
];

/// The vocabulary, in the order of a drill.
pub const SENTENCES: &[Sentence] = &[
    sentence(
        "Given",
        "platform",
        "a platform with the sample application running",
        "starts PostgreSQL, Git, the reconciler and the sample application",
    ),
    sentence("Given", "platform", "a platform with an empty database", "the same without an application or tables"),
    sentence("Given", "platform", "a platform with the database from \"shop.sql\"", "the same with your own database, loaded by psql"),
    sentence("Given", "platform", "a platform with this database:", "the same with SQL written below the step, between \"\"\""),
    sentence("Given", "platform", "a platform with the configured database", "the same with `database:` of turnback.yaml"),
    sentence(
        "Given",
        "platform",
        "the database is named \"My \\\"own\\\" database\"",
        "what the next platform's database is called (otherwise app); \\\" stands for a quote",
    ),
    sentence(
        "Given",
        "platform",
        "the migration \"add_email\" has been deployed:",
        "a migration that belongs to the known-good state, SQL below the step",
    ),
    sentence("Given", "platform", "recovery may take at most 5 minutes", "sets the recovery time objective (RTO)"),
    sentence("Given", "platform", "at most 30 seconds of writes may be lost", "sets the recovery point objective (RPO)"),
    sentence("Given", "known-good", "the last backup is verified", "checks the platform's last base backup with pg_verifybackup")
        .makes(&[CheckId::BackupVerified]),
    sentence("Given", "known-good", "a fresh backup is taken", "takes a base backup and verifies it").makes(&[CheckId::BackupVerified]),
    sentence(
        "Given",
        "known-good",
        "the known-good state is recorded as \"before the release\"",
        "binds catalog snapshot and data fingerprint to a recovery point",
    )
    .records()
    .makes(&[CheckId::KnownGoodRecorded]),
    sentence(
        "When",
        "change",
        "the application keeps taking orders",
        "lets the sample application write, so that what is lost is measured",
    ),
    sentence(
        "When",
        "change",
        "the migration \"corrupt_dummy\" is deployed",
        "commits a shipped migration to Git and waits for the reconciler",
    )
    .changes()
    .makes(&[CheckId::ChangeApplied]),
    sentence("When", "change", "the migration \"drop_email\" is deployed:", "the same with SQL written below the step")
        .changes()
        .makes(&[CheckId::ChangeApplied]),
    sentence("When", "change", "the migration from \"0042_drop_email.sql\" is deployed", "the same from a file beside the feature")
        .changes()
        .makes(&[CheckId::ChangeApplied]),
    sentence("When", "change", "the configured migration is deployed", "the same with `migration:` of turnback.yaml")
        .changes()
        .makes(&[CheckId::ChangeApplied]),
    sentence("Then", "change", "the migration history contains \"corrupt_dummy\"", "looks it up in the migrator's own table")
        .makes(&[CheckId::ChangeApplied]),
    sentence("Then", "change", "the change is in the migration history", "the same for whatever was deployed last")
        .makes(&[CheckId::ChangeApplied]),
    sentence(
        "Then",
        "damage",
        "schema or data differ from \"before the release\"",
        "compares every schema object and every row; nothing found voids the drill",
    )
    .names()
    .makes(&[CheckId::DamageShown]),
    sentence("Then", "damage", "table \"dummy\" has changed rows", "rows of a table that were inserted, deleted or changed")
        .also(&["table \"dummy\" has inserted rows", "table \"dummy\" has deleted rows"]),
    sentence("Then", "damage", "table \"dummy\" has 500 deleted rows", "exactly so many of them"),
    sentence("Then", "damage", "the schema differs in \"public.dummy.label\"", "an object among the schema differences"),
    sentence("Then", "damage", "the application reports database errors", "in its health, its metrics and its log")
        .makes(&[CheckId::ApplicationErrorsShown]),
    sentence("When", "revert", "the change is reverted in Git", "a real revert, and the reconciler's answer to it"),
    sentence("Then", "revert", "exactly the reverting revision is applied", "not just something newer").makes(&[CheckId::RevertApplied]),
    sentence("Then", "revert", "the application runs the known-good version", "the code is back").makes(&[CheckId::ApplicationVersion]),
    sentence("Then", "revert", "the data is still damaged", "and the data is not").makes(&[CheckId::RevertAloneInsufficient]),
    sentence(
        "When",
        "restore",
        "the database is restored to \"before the release\" by time",
        "by time | LSN | transaction | restore point | immediate target, on the side that leads exactly there",
    )
    .names()
    .makes(RESTORED)
    .also(&[
        "the database is restored to \"before the release\" by LSN",
        "the database is restored to \"before the release\" by transaction",
        "the database is restored to \"before the release\" by restore point",
        "the database is restored to \"before the release\" by immediate target",
    ]),
    sentence(
        "When",
        "restore",
        "the database is restored to \"before the release\" by LSN, exclusive",
        "the same with the side of the target on which replay stops: inclusive | exclusive",
    )
    .names()
    .makes(RESTORED)
    .also(&[
        "the database is restored to \"before the release\" by LSN, inclusive",
        "the database is restored to \"before the release\" by time, inclusive",
        "the database is restored to \"before the release\" by time, exclusive",
        "the database is restored to \"before the release\" by transaction, inclusive",
        "the database is restored to \"before the release\" by transaction, exclusive",
    ]),
    sentence(
        "When",
        "restore",
        "the database is restored to \"before the release\" by the configured target",
        "by `target:` of turnback.yaml",
    )
    .names()
    .makes(RESTORED),
    sentence(
        "When",
        "restore",
        "the database is restored to the time \"2026-11-20 21:04:05.123456+00\"",
        "to an instant of your own, with its offset",
    )
    .makes(RESTORED),
    sentence("Then", "restore", "replay stopped exactly there", "paused, the last wanted transaction there, the first unwanted one not"),
    sentence("Then", "restore", "the restored server is the same system on a new timeline", "after promotion"),
    sentence("When", "restore", "the application is pointed at the restored database", "by a commit"),
    sentence("Then", "verification", "schema and data equal \"before the release\", exactly", "every schema object and every row")
        .names()
        .makes(&[CheckId::SchemaEqual, CheckId::DataEqual]),
    sentence("Then", "verification", "the migration history does not contain \"corrupt_dummy\"", "looks it up in the migrator's own table")
        .makes(&[CheckId::ChangeNotInHistory]),
    sentence("Then", "verification", "the change is not in the migration history", "the same for whatever was deployed last")
        .makes(&[CheckId::ChangeNotInHistory]),
    sentence("Then", "verification", "the application is healthy", "by its own word, on the database it was pointed at")
        .makes(&[CheckId::ApplicationHealthy]),
    sentence("Then", "verification", "recovery took at most 5 minutes", "from the decision to roll back to the end of the restore"),
    sentence(
        "When",
        "fault",
        "the fault: the WAL segment that holds the recovery point is missing",
        "missing, truncated or altered by one byte",
    ),
    sentence("Given", "fault", "the fault: the WAL segment that holds the recovery point is truncated", "the same before the change"),
    sentence("When", "fault", "the fault: a file of the base backup is altered by one byte", "missing, truncated or altered by one byte"),
    sentence("Given", "fault", "the fault: a file of the base backup is missing", "the same before the change"),
    sentence("When", "fault", "the fault: the restore stops one transaction too late", "too early or too late, by one transaction")
        .also(&["the fault: the restore stops one transaction too early"]),
    sentence("When", "fault", "the fault: the reconciler is suspended", "as someone may have left it"),
    sentence("When", "fault", "the fault: the migration is applied again after the restore", "as a Job that Git still lists would")
        .changes(),
    sentence("When", "fault", "the fault: someone changes the restored database:", "SQL below the step, run on the restored server")
        .changes(),
];

/// A sentence as a step of a scenario.
pub fn step_for(sentence: &Sentence) -> Step {
    step(sentence, sentence.example)
}

/// The sentence of the vocabulary that the same definition understands.
pub fn sentence_of(step: &Step, collection: &Collection<DrillWorld>) -> Option<&'static Sentence> {
    let place = |step: &Step| collection.find(step).ok().flatten().and_then(|(_, _, location, _)| location);
    let wanted = place(step)?;
    SENTENCES.iter().find(|sentence| place(&step_for(sentence)) == Some(wanted))
}

fn step(sentence: &Sentence, text: &str) -> Step {
    let ty = match sentence.keyword {
        "Given" => StepType::Given,
        "When" => StepType::When,
        _ => StepType::Then,
    };
    Step {
        keyword: sentence.keyword.into(),
        ty,
        value: text.into(),
        docstring: None,
        table: None,
        span: Span { start: 0, end: 0 },
        position: LineCol { line: 1, col: 1 },
    }
}

/// Definitions that registered themselves in this executable.
#[cfg(test)]
fn registered() -> usize {
    inventory::iter::<<DrillWorld as WorldInventory>::Given>.into_iter().count()
        + inventory::iter::<<DrillWorld as WorldInventory>::When>.into_iter().count()
        + inventory::iter::<<DrillWorld as WorldInventory>::Then>.into_iter().count()
}

/// Makes sure that every sentence of the vocabulary is understood by exactly one definition in this very executable.
///
/// # Errors
/// Names the first sentence that is not.
pub fn self_test() -> Result<Collection<DrillWorld>, String> {
    let collection = DrillWorld::collection();
    for sentence in SENTENCES {
        for example in std::iter::once(&sentence.example).chain(sentence.also) {
            match collection.find(&step(sentence, example)) {
                Ok(Some(_)) => {}
                Ok(None) => return Err(format!("this executable lacks the step “{} {example}”: it was built wrongly", sentence.keyword)),
                Err(ambiguous) => return Err(format!("the step “{} {example}” is ambiguous: {ambiguous}", sentence.keyword)),
            }
        }
    }
    Ok(collection)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sentence_is_understood_and_every_definition_is_in_the_vocabulary() {
        let collection = self_test().unwrap();
        let mut used = std::collections::BTreeSet::new();
        for sentence in SENTENCES {
            let step = step_for(sentence);
            let (_, _, location, _) = collection.find(&step).unwrap().unwrap();
            used.insert((sentence.keyword, location));
        }
        assert_eq!(used.len(), registered(), "a definition has no sentence in the vocabulary, or two share one");
    }
}
