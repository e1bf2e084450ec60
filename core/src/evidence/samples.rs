//! Records for tests: a drill that ends well, one that does not, and one whose every string is hostile.

use super::*;
use crate::comparison::{Change, Comparison, Difference, RowDifference, TableComparison};
use crate::drill::{Check, CheckId, Phase, Reason, ReasonCode, verdict};
use crate::recovery::{BaseBackup, Lsn, Marker, RecoveryPoint, TargetKind};
use jiff::Timestamp;

fn at(ms: u64) -> Timestamp {
    let start: Timestamp = "2026-11-20T21:04:05.123456Z".parse().unwrap();
    start + jiff::SignedDuration::from_millis(i64::try_from(ms).unwrap())
}

fn table(name: &str, key: &[&str], left: u64, right: u64, differing: (u64, u64, u64), rows: Vec<RowDifference>) -> TableComparison {
    let digest = |seed: &str| seed.repeat(32);
    TableComparison {
        table: name.into(),
        key: key.iter().map(|column| (*column).to_owned()).collect(),
        rows_left: Some(left),
        rows_right: Some(right),
        digest_left: Some(digest("a1")),
        digest_right: Some(digest(if rows.is_empty() { "a1" } else { "b2" })),
        added: differing.0,
        removed: differing.1,
        changed: differing.2,
        rows,
    }
}

fn row(change: Change, id: &str) -> RowDifference {
    RowDifference { change, key: vec![("id".into(), id.into())], count: 1 }
}

fn difference(kind: &str, object: &str, change: Change, property: &str, left: Option<&str>, right: Option<&str>) -> Difference {
    Difference {
        kind: kind.into(),
        object: object.into(),
        change,
        property: property.into(),
        left: left.map(Into::into),
        right: right.map(Into::into),
    }
}

pub(super) fn damaged() -> Comparison {
    let rows = ["1", "2", "3"].map(|id| row(Change::Changed, id)).into_iter().chain([row(Change::Removed, "1000")]).collect();
    Comparison {
        schema: vec![
            difference("column", "public.dummy.amount", Change::Changed, "type", Some("numeric(12,2)"), Some("text")),
            difference("sequence", "public.dummy_id_seq", Change::Changed, "last_value", Some("1000"), Some("1033")),
        ],
        tables: vec![
            table("public.dummy", &["id"], 1000, 999, (0, 1, 999), rows),
            table("public.orders", &["id"], 12_345, 12_345, (0, 0, 0), vec![]),
        ],
        tolerated: vec![],
        excluded: vec!["public._sqlx_migrations.installed_on: the time of application differs by design".into()],
    }
}

fn healthy() -> Comparison {
    let mut equal = damaged();
    equal.schema.clear();
    equal.tolerated = vec![difference("sequence", "public.dummy_id_seq", Change::Changed, "last_value", Some("1000"), Some("1032"))];
    equal.tables[0] = table("public.dummy", &["id"], 1000, 1000, (0, 0, 0), vec![]);
    equal
}

fn compared(name: &str, ms: u64, result: Comparison) -> ComparisonRecord {
    ComparisonRecord { name: name.into(), against: "before-release".into(), at: at(ms), result, file: format!("comparisons/{name}.json") }
}

fn step(keyword: &str, text: &str, phase: Phase, ms: u64, seen: &str) -> StepRecord {
    StepRecord {
        keyword: keyword.into(),
        text: text.into(),
        phase,
        status: StepStatus::Passed,
        ms,
        seen: (!seen.is_empty()).then(|| seen.into()),
        error: None,
    }
}

fn steps() -> Vec<StepRecord> {
    use Phase::{Change, Damage, KnownGood, Platform, Restore, Revert, Verification};
    vec![
        step("Given", "a running PostgreSQL primary with archived WAL", Platform, 1410, "PostgreSQL 15.8, data checksums on"),
        step("And", "the application is healthy", Platform, 120, "/readyz answered 200"),
        step("And", "a verified base backup", KnownGood, 830, "pg_verifybackup: backup successfully verified"),
        step("And", "the known-good state is recorded as \"before-release\"", KnownGood, 410, "13,345 rows in 2 tables; LSN 0/5000148"),
        step("When", "the migration \"corrupt_dummy\" is deployed", Change, 310, "revision main@sha1:9f2c1d"),
        step(
            "Then",
            "table \"dummy\" differs from \"before-release\"",
            Damage,
            95,
            "2 schema differences and 1000 differing rows in 1 table",
        ),
        step("And", "the application reports database errors", Damage, 60, "/healthz answered 503"),
        step("When", "the migration is reverted in Git", Revert, 280, "revision main@sha1:41d07a"),
        step("Then", "the data is still damaged", Revert, 80, "1000 differing rows in 1 table"),
        step("When", "the database is restored to \"before-release\"", Restore, 1490, "paused at 0/5000148; timeline 2"),
        step("Then", "schema and data equal \"before-release\"", Verification, 130, "equal in every schema object and in all 13345 rows"),
    ]
}

fn point() -> RecoveryPoint {
    RecoveryPoint {
        name: "before-release".into(),
        restore_point: "turnback_before_release".into(),
        time: at(2_700),
        lsn: Lsn(0x500_0148),
        timeline: 1,
        system_identifier: "7439082193482117354".into(),
        marker: Marker { xid: 771, lsn: Lsn(0x500_0108) },
        sentinel: Marker { xid: 772, lsn: Lsn(0x500_0210) },
        sentinel_time: at(2_712),
        segment: "000000010000000000000005".into(),
    }
}

fn restore() -> RestoreRecord {
    RestoreRecord {
        recovery_point: "before-release".into(),
        backup: "base-1".into(),
        target: TargetKind::Time.of(&point()),
        reached: Some(Reached {
            pause_state: "paused".into(),
            lsn: Lsn(0x500_0148),
            last_commit: Some(at(2_699)),
            marker_present: Some(true),
            sentinel_absent: Some(true),
        }),
        timeline: Some(2),
        system_identifier: Some("7439082193482117354".into()),
        commits: vec!["c0ffee1".into(), "c0ffee2".into()],
        parts: parts(),
    }
}

fn parts() -> Vec<(String, u64)> {
    [("files", 310), ("replay", 620), ("proof", 45), ("promotion", 215), ("switch", 300)].map(|(name, ms)| (name.to_owned(), ms)).to_vec()
}

fn checks() -> Vec<Check> {
    CheckId::CRITICAL
        .iter()
        .map(|id| {
            let (expected, actual) = match id {
                CheckId::BackupVerified => ("pg_verifybackup agrees", "backup successfully verified"),
                CheckId::TimelineAdvanced => ("a timeline after 1", "2"),
                CheckId::SystemIdentifierUnchanged => ("7439082193482117354", "7439082193482117354"),
                CheckId::ReplayStoppedAtTarget => ("paused at or after 0/5000108", "paused at 0/5000148"),
                _ => ("yes", "yes"),
            };
            let check = Check::observed(*id, true, expected, actual);
            if *id == CheckId::DataEqual { check.shown_in("comparisons/after-restore.json") } else { check }
        })
        .collect()
}

fn phases() -> Vec<PhaseTime> {
    let lengths = [1_530, 1_240, 310, 155, 360, 1_490, 130, 40];
    let mut begin = 0;
    Phase::ALL
        .into_iter()
        .zip(lengths)
        .map(|(phase, ms)| {
            let time = PhaseTime { phase, started: at(begin), ms };
            begin += ms;
            time
        })
        .collect()
}

/// Everything as it should be.
pub(super) fn go() -> DrillRecord {
    let backup = BaseBackup {
        id: "base-1".into(),
        begin_lsn: Lsn(0x400_0028),
        end_lsn: Lsn(0x400_0158),
        begin_time: at(1_600),
        end_time: at(2_300),
        timeline: 1,
        system_identifier: "7439082193482117354".into(),
        bytes: 31_457_280,
    };
    let checks = checks();
    DrillRecord {
        run: Run {
            id: "0193e6d2-7a1b-7c3d-8e4f-5a6b7c8d9e0f".into(),
            nonce: "c4f1a2b39d8e7f60".into(),
            turnback: "0.1.0".into(),
            command: "turnback run features/data_rollback.feature --on local".into(),
            platform: "local".into(),
            platform_note: "Real PostgreSQL 15.8 servers on this machine; a rehearsal: a small reconciler stood in for Flux.".into(),
            actor: "student".into(),
            started: at(0),
            ended: at(5_255),
            wall_ms: 5_255,
        },
        scenario: Scenario {
            feature: "Data rollback".into(),
            file: "data_rollback.feature".into(),
            name: "A migration that corrupts a table is turned back, in code and in data".into(),
            steps: steps(),
        },
        toolchain: vec![
            Tool { name: "postgres".into(), version: "15.8 (Debian 15.8-0+deb12u1)".into() },
            Tool { name: "libgit2".into(), version: "1.9.1".into() },
        ],
        phases: phases(),
        backups: vec![BackupRecord { backup, verified: Some(true), verification: "pg_verifybackup: backup successfully verified".into() }],
        recovery_points: vec![point()],
        changes: vec![ChangeRecord {
            migration: "20261120210408 corrupt_dummy".into(),
            sql_sha256: "5d".repeat(32),
            commit: "9f2c1d7b".into(),
            applied_revision: "main@sha1:9f2c1d7b".into(),
            applied: at(3_050),
        }],
        reverts: vec![RevertRecord {
            commit: "41d07a92".into(),
            reverts: "9f2c1d7b".into(),
            applied_revision: "main@sha1:41d07a92".into(),
            applied: at(3_560),
        }],
        restores: vec![restore()],
        comparisons: vec![
            compared("after-change", 3_150, damaged()),
            compared("after-revert", 3_590, damaged()),
            compared("after-restore", 5_200, healthy()),
        ],
        objectives: Objectives {
            rto_target_ms: Some(300_000),
            rto_ms: Some(1_490),
            rto_parts: parts(),
            rpo_target_ms: None,
            rpo_ms: Some(350),
            lost_commits: Some(3),
            lost_writes: Some(1),
        },
        verdict: Some(verdict(&checks, &[])),
        checks,
        incidents: vec![],
        faults: vec!["the migration 20261120210408 corrupt_dummy, on purpose".into()],
        not_exercised: vec!["flux/infrastructure/data/cnpg-clusters/production: needs CloudNativePG".into()],
        limits: vec!["Flux itself, Kubernetes and the production cluster's storage.".into(), "Loss of the WAL archive.".into()],
        cleanup: Cleanup { complete: true, removed: vec!["2 servers".into(), "1 repository".into()], left: vec![] },
        redactions: 0,
    }
}

/// The restore ran, and did not bring everything back; later steps did not run.
pub(super) fn no_go() -> DrillRecord {
    let mut record = go();
    for check in record.checks.iter_mut().filter(|check| matches!(check.id, CheckId::SchemaEqual | CheckId::DataEqual)) {
        *check = Check::observed(check.id, false, "no difference", "2 schema differences and 1000 differing rows in 1 table");
    }
    record.comparisons[2].result = damaged();
    let last = record.scenario.steps.last_mut().unwrap();
    last.status = StepStatus::Failed;
    last.error = Some("2 schema differences and 1000 differing rows in 1 table".into());
    last.seen = None;
    record
        .scenario
        .steps
        .push(StepRecord { status: StepStatus::Skipped, ..step("And", "the application is healthy", Phase::Verification, 0, "") });
    record.objectives.rto_target_ms = Some(1_000);
    record.checks.push(Check::observed(CheckId::RtoMet, false, "at most 1.00 s", "1.49 s"));
    record.verdict = Some(verdict(&record.checks, &[]));
    record
}

/// What a name, a value or a log line may hold.
pub(super) const HOSTILE: &str =
    "\u{1b}[31mred\u{1b}[0m <script>alert(1)</script> a|b `c` ]]> \"q\" 'r' & {{ 7*7 }}\n## heading\u{0}\u{202e}";

/// Every string that comes from outside is hostile.
pub(super) fn hostile() -> DrillRecord {
    let mut record = no_go();
    let bad = || HOSTILE.to_owned();
    record.run.command = bad();
    record.run.platform_note = bad();
    record.run.actor = bad();
    record.scenario.feature = bad();
    record.scenario.file = bad();
    record.scenario.name = bad();
    for step in &mut record.scenario.steps {
        step.text = bad();
        step.seen = step.seen.as_ref().map(|_| bad());
        step.error = step.error.as_ref().map(|_| bad());
    }
    for tool in &mut record.toolchain {
        tool.version = bad();
    }
    for made in &mut record.comparisons {
        made.result.excluded = vec![bad()];
        for difference in &mut made.result.schema {
            difference.object = bad();
            difference.left = Some(bad());
            difference.right = Some(bad());
        }
        for table in &mut made.result.tables {
            table.table = bad();
            for row in &mut table.rows {
                row.key = vec![(bad(), bad())];
            }
        }
    }
    record.recovery_points[0].name = bad();
    record.restores[0].recovery_point = bad();
    record.changes[0].migration = bad();
    record.reverts[0].applied_revision = bad();
    record.backups[0].verification = bad();
    record.checks[0].actual = bad();
    record.objectives.rto_parts[0].0 = bad();
    record.limits = vec![bad()];
    record.faults = vec![bad()];
    record.not_exercised = vec![bad()];
    record.cleanup = Cleanup { complete: false, removed: vec![bad()], left: vec![bad()] };
    record.incidents = vec![Reason::new(ReasonCode::PlatformFailed, bad())];
    record.verdict = Some(verdict(&record.checks, &record.incidents));
    record
}
