//! The restore drill alone: an existing base backup and WAL archive, restored on a scratch server, proven, promoted, compared, removed.
//!
//! Backup and archive are only read. What is checked is another set than a rollback drill's: see `DrillKind::Restore`.

mod prepare;

pub use prepare::{PrepareError, Prepared, Sources, prepare};

use super::drill::{StartError, local_tools, ms, run, toolchain};
use super::outcome::chain;
use super::{Failure, finish::read_end, restore::log_of};
use crate::clock;
use crate::database::{self, Address, CompareOptions, DatabaseError, SnapshotOptions};
use crate::evidence::Package;
use crate::platform::local::server::MAINTENANCE;
use crate::platform::local::{
    Account, Login, Paused, Programs, RestoreError, RestoreRequest, SegmentFault, Server, ServerOptions, Shutdown, WorkDir, restore,
    stage_archive,
};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use turnback_core::drill::{Check, CheckId, DrillKind, Phase, Reason, ReasonCode, verdict_for};
use turnback_core::evidence::{
    BackupRecord, ComparisonRecord, DrillRecord, PhaseTime, Reached, RestoreRecord, Scenario, StepRecord, StepStatus,
};
use turnback_core::recovery::pg_time;

/// The port in the name of the scratch server's socket.
const PORT: u16 = 5432;
/// How long replay may take: a base backup can be weeks old.
const REPLAY_LIMIT: Duration = Duration::from_secs(4 * 3600);
/// How long verifying the backup may take.
const VERIFY_LIMIT: Duration = Duration::from_secs(4 * 3600);

/// What a restore drill is told from outside, beside its sources.
#[derive(Clone, Debug)]
pub struct RestoreSettings {
    /// PostgreSQL's server programs.
    pub programs: Programs,
    /// As whom the scratch server runs.
    pub account: Account,
    /// A superuser in the backup.
    pub user: String,
    /// The database to compare; without one, the baseline's.
    pub database: Option<String>,
    /// Where an evidence package goes, where one is wanted.
    pub evidence: Option<PathBuf>,
    /// Where the scratch server lives while it runs.
    pub work: PathBuf,
    /// Whether it stays up afterwards.
    pub keep: bool,
    /// The command line that reproduces the drill.
    pub command: String,
}

/// A restore drill under way.
pub struct RestoreDrill {
    settings: RestoreSettings,
    prepared: Prepared,
    workdir: Option<WorkDir>,
    package: Option<Package>,
    record: DrillRecord,
    begun: Instant,
    server: Option<Server>,
}

/// A restore drill that ended.
#[derive(Debug)]
pub struct RestoreFinished {
    /// Everything it did and saw.
    pub record: DrillRecord,
    /// The evidence package, where one was wanted.
    pub package: Option<PathBuf>,
    /// How to reach the server that was kept.
    pub kept: Vec<String>,
    /// Why the evidence could not be sealed, where it could not.
    pub unsealed: Option<String>,
}

impl RestoreDrill {
    /// Takes the work directory and opens the evidence; nothing else is started yet.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn begin(settings: RestoreSettings, prepared: Prepared) -> Result<Self, StartError> {
        let id = uuid::Uuid::now_v7().to_string();
        let started = clock::now();
        let workdir = WorkDir::open(&settings.work, &id, &settings.account, prepared.space())?;
        let package = settings.evidence.as_deref().map(|root| Package::create(root, started, "restore drill")).transpose()?;
        let record = record(&settings, &prepared, id, started);
        let drill = Self { settings, prepared, workdir: Some(workdir), package, record, begun: Instant::now(), server: None };
        let sources = json!({ "backup": drill.prepared.backup_dir, "archive": drill.prepared.archive_dir });
        drill.journal("drill-began", &json!({ "run": drill.record.run, "scenario": drill.record.scenario.name, "sources": sources }));
        drill.journal("restore-planned", &json!({ "plan": drill.prepared.plan }));
        Ok(drill)
    }

    /// Restores, proves, promotes and compares. Dropping the future ends what it started; [`RestoreDrill::finish`] comes after in any case.
    pub async fn carry_out(&mut self) {
        if let Err(failure) = self.all().await {
            let said = self.record.checks.iter().any(|check| !check.passed() && check.id.reason() == failure.reason.code);
            self.journal("incident", &json!(failure.reason));
            if !said {
                self.record.incidents.push(failure.reason);
            }
        }
    }

    /// Puts a signal on the record.
    pub fn interrupted(&mut self, signal: &str) {
        self.record.incidents.push(Reason::new(ReasonCode::Interrupted, format!("{signal} during the restore drill")));
    }

    async fn all(&mut self) -> Result<(), Failure> {
        let begun = Instant::now();
        let paused = self.restore().await;
        let paused = self.step(Phase::Restore, "the backup is verified and restored up to the target", begun, paused)?;
        let begun = Instant::now();
        let promoted = self.prove_and_promote(paused).await;
        self.step(Phase::Restore, "where replay stopped is proven, and the server promoted", begun, promoted)?;
        self.phase(Phase::Restore, self.begun);
        if self.prepared.baseline.is_some() {
            let begun = Instant::now();
            let compared = self.compare().await;
            self.phase(Phase::Verification, begun);
            self.step(Phase::Verification, "every schema object and every row is compared with the baseline", begun, compared)?;
        }
        Ok(())
    }

    async fn restore(&mut self) -> Result<Paused, Failure> {
        let dir = self.dir()?;
        let Prepared { plan, backup_dir, archive, found, .. } = self.prepared.clone();
        let (programs, account) = (self.settings.programs.clone(), self.settings.account.clone());
        let run = dir.join("restored");
        let begun = Instant::now();
        let archive =
            stage_archive(&archive, &account, &plan.first_segment, &dir.join("wal-archive")).map_err(|e| Failure::platform(&e))?;
        let settings = found.isolation(&run, &account).map_err(|e| Failure::platform(&e))?;
        let request = RestoreRequest {
            programs: &programs,
            account: &account,
            plan: &plan,
            backup_dir: &backup_dir,
            archive: &archive,
            dir: &run,
            options: ServerOptions { socket_dir: dir.join("s"), port: PORT, settings },
            archive_to: None,
            login: Login { user: self.settings.user.clone(), database: MAINTENANCE.to_owned() },
            limit: REPLAY_LIMIT,
        };
        // Both only read the backup; what a damaged one leads to does not count, because its verification is asked first.
        let verifying = async {
            let verified = found.verify(&programs, &backup_dir, VERIFY_LIMIT).await;
            (verified, begun.elapsed())
        };
        let ((verified, verify_took), restored) = tokio::join!(verifying, restore(request));
        let (waited, verified) = (begun.elapsed(), verified.map_err(|e| Failure::platform(&e))?);
        let said = match &verified.damaged_file {
            Some(file) => format!("{file}: {}", verified.output),
            None => verified.output.clone(),
        };
        let recorded = BackupRecord { backup: plan.backup.clone(), verified: Some(verified.ok), verification: verified.output };
        self.record.backups.push(recorded);
        if let Err(failure) = self.require(Check::observed(CheckId::BackupIntact, verified.ok, "every file as its manifest says", said)) {
            if let Ok(mut paused) = restored {
                paused.stop().await.map_err(|e| Failure::platform(&e))?;
            }
            return Err(failure);
        }
        let paused = restored.map_err(|error| self.restore_failed(&error))?;
        let restore = self.restored();
        restore.parts.extend([
            ("verify".to_owned(), ms(verify_took)),
            ("files".to_owned(), ms(paused.files)),
            ("replay".to_owned(), ms(paused.replay)),
        ]);
        let beyond = waited.saturating_sub(paused.files + paused.replay);
        self.record.objectives.rto_parts.extend([
            ("files".to_owned(), ms(paused.files)),
            ("replay".to_owned(), ms(paused.replay)),
            ("rest of the verification".to_owned(), ms(beyond)),
        ]);
        Ok(paused)
    }

    async fn prove_and_promote(&mut self, mut paused: Paused) -> Result<(), Failure> {
        let begun = Instant::now();
        let reached = paused.reached().await.map_err(|e| Failure::platform(&e))?;
        let line = paused.stopping_line();
        let proof = begun.elapsed();
        self.journal("replay-stopped", &json!({ "reached": reached, "log": line }));
        let proven = self.hold(&reached, line.as_deref());
        self.restored().reached = Some(reached);
        // A server at the wrong place is promoted all the same: what it holds is evidence of how wrong.
        let promoted = paused.promote().await.map_err(|error| self.restore_failed(&error))?;
        let parts = [("proof".to_owned(), ms(proof)), ("promotion".to_owned(), ms(promoted.promotion))];
        self.record.objectives.rto_parts.extend(parts.clone());
        self.record.objectives.rto_ms = Some(ms(self.begun.elapsed()));
        let (timeline, system) = (promoted.timeline, promoted.system_identifier.clone());
        self.journal("promoted", &json!({ "timeline": timeline, "system_identifier": system, "pid": promoted.server.pid() }));
        self.server = Some(promoted.server);
        let restore = self.restored();
        restore.timeline = Some(timeline);
        restore.system_identifier = Some(system.clone());
        restore.parts.extend(parts);
        let backup = self.prepared.plan.backup.clone();
        let known = self.prepared.baseline.as_ref().and_then(|snapshot| snapshot.server().system_identifier.clone());
        let expected = known.unwrap_or(backup.system_identifier);
        let first = self.require(Check::observed(
            CheckId::TimelineAdvanced,
            timeline > backup.timeline,
            format!("later than {}", backup.timeline),
            timeline.to_string(),
        ));
        let second = self.require(Check::observed(CheckId::SystemIdentifierUnchanged, system == expected, expected, system));
        proven.and(first).and(second)
    }

    fn hold(&mut self, reached: &Reached, line: Option<&str>) -> Result<(), Failure> {
        let target = self.prepared.plan.target.clone();
        let passed = reached.pause_state == "paused" && target.fits(reached.lsn, reached.last_commit);
        let last = reached.last_commit.map_or_else(|| "no commit replayed".to_owned(), |time| format!("last commit {}", pg_time(time)));
        let said = line.map_or_else(String::new, |line| format!("; PostgreSQL says: {line}"));
        let actual = format!("{} at LSN {}, {last}{said}", reached.pause_state, reached.lsn);
        self.require(Check::observed(CheckId::ReplayStoppedAtTarget, passed, format!("paused at {target}"), actual))
    }

    async fn compare(&mut self) -> Result<(), Failure> {
        let dir = self.dir()?;
        let database = self.database();
        let address = Address::socket(&dir.join("s"), PORT, &self.settings.user, &database);
        let now = database::snapshot(&address, &SnapshotOptions::default(), &dir.join("compared")).await.map_err(|error| match &error {
            DatabaseError::Connect { problem, .. } if problem.contains("does not exist") => {
                Failure::because(ReasonCode::SchemaDiffers, format!("the restored server has no such database: {problem}"))
            }
            _ => Failure::platform(&error),
        })?;
        let Some(baseline) = self.prepared.baseline.clone() else { return Ok(()) };
        let result = database::compare(&baseline, &now, &CompareOptions::default()).map_err(|e| Failure::platform(&e))?;
        let file = "comparisons/after-restore.json";
        if let Some(package) = &self.package {
            package.add_json(file, &result).map_err(|e| Failure::platform(&e))?;
        }
        let tables: Vec<_> = result
            .damaged_tables()
            .map(|table| format!("{} ({} inserted, {} deleted, {} changed)", table.table, table.added, table.removed, table.changed))
            .collect();
        let objects: Vec<_> = result.schema.iter().take(5).map(|one| format!("{} {}", one.kind, one.object)).collect();
        let schema = if objects.is_empty() {
            "0 schema differences".to_owned()
        } else {
            format!("{} schema differences: {}", result.schema.len(), objects.join(", "))
        };
        let data = if tables.is_empty() { format!("all {} rows equal", result.rows()) } else { tables.join(", ") };
        let checks = [
            Check::observed(CheckId::SchemaEqual, result.schema_equal(), "0 schema differences", schema),
            Check::observed(CheckId::DataEqual, result.data_equal(), "every row equal", data),
        ];
        let against = baseline.directory().display().to_string();
        let file = file.to_owned();
        self.record.comparisons.push(ComparisonRecord {
            name: "after-restore".into(),
            against,
            at: clock::now(),
            result,
            file: file.clone(),
        });
        let shown = self.package.is_some();
        let [schema, data] = checks.map(|check| self.require(if shown { check.shown_in(&file) } else { check }));
        schema.and(data)
    }

    /// Stops and removes what was created (unless it is to be kept), draws the verdict, seals the evidence.
    pub async fn finish(mut self) -> RestoreFinished {
        let begun = Instant::now();
        let mut kept = Vec::new();
        let database = self.database();
        if let Some(mut server) = self.server.take() {
            if self.settings.keep {
                kept.push(format!("psql '{}'", server.url(&database)));
                server.detach();
            } else if let Err(error) = server.stop(Shutdown::Immediate).await {
                self.record.cleanup.left.push(format!("the restored server: {error}"));
            }
        }
        if let Some(work) = self.workdir.take() {
            let dir = work.path().to_owned();
            self.keep_log(&dir.join("restored/server.log"));
            if kept.is_empty() {
                match work.remove().await {
                    Ok(()) => self.record.cleanup.removed.push("the restored server and its files".into()),
                    Err(error) => self.record.cleanup.left.push(chain(&error)),
                }
            } else {
                self.record.cleanup.left.push(format!("kept on request: {} (`turnback clean` removes it)", dir.display()));
            }
        }
        self.record.cleanup.complete = self.record.cleanup.left.is_empty();
        let drawn = verdict_for(DrillKind::Restore, &self.record.checks, &self.record.incidents);
        self.journal("verdict", &json!(drawn));
        self.record.verdict = Some(drawn);
        self.phase(Phase::Verdict, begun);
        self.record.run.ended = clock::now();
        self.record.run.wall_ms = ms(self.begun.elapsed());
        let unsealed = self.package.as_ref().and_then(|package| package.seal(&self.record).err()).map(|error| chain(&error));
        let package = self.package.as_ref().map(|package| package.path().to_owned());
        RestoreFinished { record: self.record, package, kept, unsealed }
    }

    fn database(&self) -> String {
        let named = self.settings.database.as_deref().or_else(|| self.prepared.database());
        named.unwrap_or("postgres").to_owned()
    }

    fn dir(&self) -> Result<PathBuf, Failure> {
        self.workdir.as_ref().map(|dir| dir.path().to_owned()).ok_or_else(|| Failure::order("the drill has ended"))
    }

    /// The record of the one restore.
    fn restored(&mut self) -> &mut RestoreRecord {
        if self.record.restores.is_empty() {
            self.record.restores.push(blank(&self.prepared));
        }
        &mut self.record.restores[0]
    }

    fn require(&mut self, check: Check) -> Result<(), Failure> {
        self.journal("check", &json!(check));
        let reason = Reason::new(check.id.reason(), format!("{}: expected {}, found {}", check.id.title(), check.expected, check.actual));
        if self.record.take(check) { Ok(()) } else { Err(Failure::new(reason)) }
    }

    fn step<T>(&mut self, phase: Phase, text: &str, begun: Instant, outcome: Result<T, Failure>) -> Result<T, Failure> {
        let (status, error) = match &outcome {
            Ok(_) => (StepStatus::Passed, None),
            Err(failure) => (StepStatus::Failed, Some(failure.to_string())),
        };
        let step = StepRecord { keyword: "Then".into(), text: text.to_owned(), phase, status, ms: ms(begun.elapsed()), seen: None, error };
        self.journal("step", &json!(step));
        self.record.scenario.steps.push(step);
        outcome
    }

    fn phase(&mut self, phase: Phase, begun: Instant) {
        let took = begun.elapsed();
        let started = jiff::SignedDuration::try_from(took).map_or_else(|_| clock::now(), |ago| clock::now() - ago);
        self.record.phases.push(PhaseTime { phase, started, ms: ms(took) });
    }

    fn journal(&self, kind: &str, data: &serde_json::Value) {
        if let Some(package) = &self.package {
            // A journal that cannot be written any more must not hide what ended the drill; sealing the package reports it.
            let _reported_when_sealed = package.journal().append(kind, data);
        }
    }

    fn keep_log(&mut self, path: &Path) {
        if let (Some(package), Ok(text)) = (&self.package, read_end(path))
            && let Err(error) = package.add_file("logs/restored.log", text.as_bytes())
        {
            self.journal("file-lost", &json!({ "file": "logs/restored.log", "error": error.to_string() }));
        }
    }

    fn restore_failed(&mut self, error: &RestoreError) -> Failure {
        self.restored();
        if let (Some(package), Some(log)) = (&self.package, log_of(error)) {
            // The log is kept as well when the drill ends; a failure to write it here must not hide the error itself.
            let _kept_at_the_end = package.add_file("restore/recovery.log", log.as_bytes());
        }
        let text = chain(error);
        let code = match error {
            RestoreError::BackupDamaged { .. } => ReasonCode::BackupDamaged,
            RestoreError::Segment { fault: SegmentFault::Missing { .. }, .. } => ReasonCode::WalMissing,
            RestoreError::Segment { .. } => ReasonCode::WalDamaged,
            RestoreError::TargetNotReached { .. } => ReasonCode::TargetNotReached,
            RestoreError::SettingsBroken { .. } => ReasonCode::SettingsBroken,
            RestoreError::DiskFull { .. } => ReasonCode::DiskFull,
            RestoreError::TimedOut { .. } => ReasonCode::DeadlineExceeded,
            RestoreError::Observe(refused) if refused.is_refusal() => {
                let text = format!("{text}; name a superuser of the backed up server with --user");
                return Failure::because(ReasonCode::PlatformFailed, text);
            }
            other => return Failure::platform(other),
        };
        Failure::because(code, text)
    }
}

fn blank(prepared: &Prepared) -> RestoreRecord {
    RestoreRecord {
        recovery_point: prepared.plan.target.to_string(),
        backup: prepared.plan.backup.id.clone(),
        target: prepared.plan.target.clone(),
        reached: None,
        timeline: None,
        system_identifier: None,
        commits: Vec::new(),
        parts: Vec::new(),
    }
}

fn record(settings: &RestoreSettings, prepared: &Prepared, id: String, started: jiff::Timestamp) -> DrillRecord {
    let mut limits = vec![
        "this was a restore drill: no change was made, none reverted, and no application was pointed at the restored server".to_owned(),
        "the restored server ran with its own pg_hba.conf, without archiving, logical replication workers and fsync".to_owned(),
        "tables' physical layout, planner statistics, roles and tablespaces were not compared".to_owned(),
    ];
    if prepared.baseline.is_none() {
        limits.push("nothing was compared: no baseline was given".to_owned());
    }
    let scenario = Scenario {
        feature: "Restore drill".into(),
        file: "turnback restore".into(),
        name: format!("restore drill to {}", prepared.plan.target),
        steps: Vec::new(),
    };
    let note =
        format!("a restore drill: an existing base backup and WAL archive, restored on a scratch PostgreSQL {}", settings.programs.version);
    DrillRecord::begun(run(id, started, &settings.command, "local", note), scenario, toolchain(local_tools(&settings.programs)), limits)
}
