//! One drill: its settings, its record, and what every phase needs.

use super::{Config, Failure, On, Outcome};
use crate::clock;
use crate::evidence::{EvidenceError, Package};
use crate::platform::local::{Programs, WorkDir, WorkDirError};
use serde_json::json;
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use turnback_core::drill::{Check, Phase, Reason};
use turnback_core::evidence::{DrillRecord, PhaseTime, Run, Scenario, StepRecord, Tool};
use turnback_core::recovery::TargetKind;

/// What a drill is told from outside.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The platform.
    pub on: On,
    /// Where evidence packages go.
    pub evidence: PathBuf,
    /// Where platforms live while they run.
    pub work: PathBuf,
    /// Whether the platform stays up afterwards.
    pub keep: bool,
    /// The command line that reproduces the drill.
    pub command: String,
    /// `turnback.yaml`, where there is one.
    pub config: Option<Config>,
}

/// Why a drill could not even begin.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The work directory is taken or cannot be used.
    #[error(transparent)]
    Work(#[from] WorkDirError),
    /// The evidence cannot be written.
    #[error(transparent)]
    Evidence(#[from] EvidenceError),
}

/// One drill, from its platform to its verdict.
pub struct Drill {
    pub(super) settings: Settings,
    pub(super) workdir: Option<WorkDir>,
    pub(super) package: Package,
    pub(super) record: DrillRecord,
    pub(super) begun: Instant,
    pub(super) phase: Phase,
    phase_begun: Instant,
    pub(super) stage: Option<super::platform::Stage>,
    pub(super) known_good: BTreeMap<String, super::known_good::KnownGood>,
    /// What the platform's database is to be called, where the scenario says.
    pub(super) database_name: Option<String>,
    pub(super) change: Option<super::change::Deployed>,
    pub(super) reverted: Option<super::revert::Reverted>,
    pub(super) faults: super::faults::Faults,
    /// How to reach the servers that were kept.
    pub(super) kept: Vec<String>,
}

impl fmt::Debug for Drill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Drill").field("run", &self.record.run.id).field("phase", &self.phase).finish_non_exhaustive()
    }
}

impl Drill {
    /// Begins a drill: takes the work directory, opens the evidence. Nothing else is started yet.
    ///
    /// # Errors
    /// [`StartError`] when another drill runs there or the evidence cannot be written.
    pub async fn begin(settings: Settings, scenario: Scenario) -> Result<Self, StartError> {
        let id = uuid::Uuid::now_v7().to_string();
        let started = clock::now();
        // The work directory first: a drill that may not run leaves no empty evidence behind.
        let description = settings.on.describe();
        let workdir = WorkDir::open(&settings.work, &id, settings.on.account(), description.space)?;
        let package = match Package::create(&settings.evidence, started, &scenario.name) {
            Ok(package) => package,
            Err(error) => {
                workdir.remove().await?;
                return Err(error.into());
            }
        };
        let mut limits = description.limits;
        limits.push("tables' physical layout, planner statistics, roles and tablespaces were not compared".into());
        let run = run(id, started, &settings.command, description.name, description.note);
        let record = DrillRecord::begun(run, scenario, toolchain(description.tools), limits);
        let mut drill = Self {
            settings,
            workdir: Some(workdir),
            package,
            record,
            begun: Instant::now(),
            phase: Phase::Platform,
            phase_begun: Instant::now(),
            stage: None,
            known_good: BTreeMap::new(),
            database_name: None,
            change: None,
            reverted: None,
            faults: Default::default(),
            kept: Vec::new(),
        };
        if let Some(config) = &drill.settings.config {
            drill.record.objectives.rto_target_ms = config.rto.map(ms);
            drill.record.objectives.rpo_target_ms = config.rpo.map(ms);
        }
        drill.journal(
            "drill-began",
            json!({ "run": drill.record.run, "scenario": drill.record.scenario.name, "feature": drill.record.scenario.feature }),
        );
        drill.journal("phase", json!({ "phase": Phase::Platform }));
        Ok(drill)
    }

    /// The phase that the drill is in.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Where the evidence is being written.
    #[must_use]
    pub fn package_path(&self) -> PathBuf {
        self.package.path().to_path_buf()
    }

    /// Puts a step on the record before it runs, so that the journal says what was going on when everything ended.
    pub fn step_began(&mut self, keyword: &str, text: &str) {
        self.journal("step-began", json!({ "step": format!("{} {text}", keyword.trim()) }));
    }

    /// Puts a step on the record.
    pub fn record_step(&mut self, step: StepRecord) {
        self.journal("step", json!(step));
        self.record.scenario.steps.push(step);
    }

    /// Puts what ended the drill on the record.
    pub fn fail(&mut self, failure: Failure) {
        // What a failed check already says is not said again.
        let said = self.record.checks.iter().any(|check| !check.passed() && check.id.reason() == failure.reason.code);
        self.journal("incident", json!(failure.reason));
        if !said {
            self.record.incidents.push(failure.reason);
        }
    }

    /// Sets the recovery time objective.
    pub fn promise_rto(&mut self, length: Duration) -> Outcome {
        self.record.objectives.rto_target_ms = Some(ms(length));
        Ok(String::new())
    }

    /// Sets the recovery point objective.
    pub fn promise_rpo(&mut self, length: Duration) -> Outcome {
        self.record.objectives.rpo_target_ms = Some(ms(length));
        Ok(String::new())
    }

    /// The kind of target that `turnback.yaml` asks for.
    #[must_use]
    pub fn configured_target(&self) -> TargetKind {
        self.settings.config.as_ref().map_or(TargetKind::Time, |config| config.target)
    }

    pub(super) fn enter(&mut self, phase: Phase) {
        if self.phase == phase {
            return;
        }
        self.close_phase();
        self.phase = phase;
        self.phase_begun = Instant::now();
        self.journal("phase", json!({ "phase": phase }));
    }

    pub(super) fn close_phase(&mut self) {
        let took = ms(self.phase_begun.elapsed());
        if let Some(known) = self.record.phases.iter_mut().find(|known| known.phase == self.phase) {
            known.ms += took;
            return;
        }
        let started = jiff::SignedDuration::try_from(self.phase_begun.elapsed()).map_or_else(|_| clock::now(), |ago| clock::now() - ago);
        self.record.phases.push(PhaseTime { phase: self.phase, started, ms: took });
    }

    pub(super) fn check(&mut self, check: Check) -> bool {
        self.journal("check", json!(check));
        self.record.take(check)
    }

    /// Records a check and turns a failed one into the step's failure.
    pub(super) fn require(&mut self, check: Check) -> Result<(), Failure> {
        let reason = Reason::new(check.id.reason(), format!("{}: expected {}, found {}", check.id.title(), check.expected, check.actual));
        if self.check(check) { Ok(()) } else { Err(Failure::new(reason)) }
    }

    pub(super) fn journal(&mut self, kind: &str, data: serde_json::Value) {
        // A journal that cannot be written any more must not hide what ended the drill; sealing the package reports it.
        if let Err(error) = self.package.journal().append(kind, &data) {
            self.record.cleanup.left.push(format!("a journal entry could not be written: {error}"));
        }
    }

    /// The directory of this run.
    pub(super) fn dir(&self) -> Result<PathBuf, Failure> {
        self.workdir.as_ref().map(|dir| dir.path().to_path_buf()).ok_or_else(|| Failure::order("the drill has ended"))
    }

    pub(super) fn stage(&mut self) -> Result<&mut super::platform::Stage, Failure> {
        self.stage.as_mut().ok_or_else(|| {
            Failure::order(
                "there is no platform yet: begin the scenario with a step such as “Given a platform with the sample application running”",
            )
        })
    }
}

pub(super) fn ms(length: Duration) -> u64 {
    u64::try_from(length.as_millis()).unwrap_or(u64::MAX)
}

/// Which drill this is: the facts that every kind of drill on this machine shares.
pub(super) fn run(id: String, started: jiff::Timestamp, command: &str, platform: &str, platform_note: String) -> Run {
    Run {
        id,
        nonce: uuid::Uuid::new_v4().simple().to_string(),
        turnback: env!("CARGO_PKG_VERSION").to_owned(),
        command: command.to_owned(),
        platform: platform.to_owned(),
        platform_note,
        actor: actor(),
        started,
        ended: started,
        wall_ms: 0,
    }
}

/// This program, and what the platform is made of.
pub(super) fn toolchain(platform: Vec<Tool>) -> Vec<Tool> {
    let mut tools = vec![Tool { name: "turnback".into(), version: env!("CARGO_PKG_VERSION").into() }];
    tools.extend(platform);
    tools
}

/// The programs that a drill on this machine uses.
pub(super) fn local_tools(programs: &Programs) -> Vec<Tool> {
    vec![
        Tool { name: "PostgreSQL".into(), version: programs.version.clone() },
        Tool { name: "operating system".into(), version: operating_system() },
    ]
}

fn actor() -> String {
    let user = std::env::var("USER")
        .or_else(|_| std::env::var("LOGNAME"))
        .unwrap_or_else(|_| format!("uid {}", rustix::process::getuid().as_raw()));
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    format!("{user}@{host}")
}

pub(super) fn operating_system() -> String {
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME=")).map(|name| name.trim_matches('"').to_owned());
    let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
    format!("{}, kernel {kernel}", name.unwrap_or_else(|| "unknown".into()))
}
