//! The last phase: gather what is left to gather, stop and remove what was created, draw the verdict, seal the evidence.

use super::Drill;
use super::drill::ms;
use crate::clock;
use serde_json::json;
use std::path::{Path, PathBuf};
use turnback_core::drill::{Decision, Phase, Reason, ReasonCode, verdict};
use turnback_core::evidence::{DrillRecord, StepStatus};

/// A drill that ended, and where its evidence lies.
#[derive(Debug)]
pub struct Finished {
    /// Everything it did and saw.
    pub record: DrillRecord,
    /// The evidence package.
    pub package: PathBuf,
    /// How to reach the servers that were kept.
    pub kept: Vec<String>,
    /// Why the evidence could not be sealed, where it could not.
    pub unsealed: Option<String>,
}

/// How much of a log enters the evidence, in bytes.
const LOG_LIMIT: u64 = 4 * 1024 * 1024;

impl Drill {
    /// Ends the drill: nothing of the platform remains unless it is to be kept.
    pub async fn finish(mut self) -> Finished {
        self.end_platform().await;
        self.check_objectives();
        let skipped = self.record.scenario.steps.iter().any(|step| step.status == StepStatus::Skipped);
        let failed = self.record.scenario.steps.iter().any(|step| step.status == StepStatus::Failed);
        if skipped && !failed {
            self.record.incidents.push(Reason::new(ReasonCode::StepSkipped, "a step was skipped"));
        }
        if self.record.scenario.steps.is_empty() {
            self.record.incidents.push(Reason::new(ReasonCode::NoScenario, "no step ran"));
        }
        let mut drawn = verdict(&self.record.checks, &self.record.incidents);
        // A GO that tolerates something says so in the same breath.
        let tolerated = self.record.comparisons.last().and_then(|last| super::verification::tolerances(&last.result));
        if let (Decision::Go, Some(said), Some(reason)) = (drawn.decision, tolerated, drawn.reasons.first_mut()) {
            reason.message = format!("{}; {said}", reason.message);
        }
        self.journal("verdict", json!(drawn));
        self.record.verdict = Some(drawn);
        self.close_phase();
        self.record.run.ended = clock::now();
        self.record.run.wall_ms = ms(self.begun.elapsed());
        let package = self.package.path().to_path_buf();
        let unsealed = self.package.seal(&self.record).err().map(|error| super::outcome::chain(&error));
        Finished { record: self.record, package, kept: self.kept, unsealed }
    }

    /// Stops and removes what was created, unless it is to be kept; [`Drill::finish`] does so too where it has not been done. An
    /// interruption that comes meanwhile can still be put on the record.
    pub async fn end_platform(&mut self) {
        self.enter(Phase::Verdict);
        if let Some(mut stage) = self.stage.take() {
            if let Some(traffic) = stage.traffic.take() {
                traffic.stop().await;
            }
            let ended = stage.platform.end(self.settings.keep).await;
            for (name, text) in &ended.files {
                self.keep_text(name, text);
            }
            for (name, error) in ended.lost {
                self.journal("log-lost", json!({ "log": name, "error": error }));
            }
            self.kept.extend(ended.kept);
            self.record.cleanup.removed.extend(ended.removed);
            self.record.cleanup.left.extend(ended.left);
        }
        if let Some(work) = self.workdir.take() {
            let dir = work.path().to_path_buf();
            if self.settings.keep {
                self.record.cleanup.left.push(format!("kept on request: {} (`turnback clean` removes it)", dir.display()));
            } else {
                // An interruption may have dropped a start or a restore half way: whatever of it still runs goes first.
                if let Err(left) = work.end_processes().await {
                    self.record.cleanup.left.extend(left);
                }
                match work.remove().await {
                    Ok(()) => {
                        self.record.cleanup.removed.push("servers, application, repository, WAL archive and backups of this drill".into())
                    }
                    Err(error) => self.record.cleanup.left.push(format!("{}: {error}", dir.display())),
                }
            }
        }
        self.record.cleanup.complete = self.record.cleanup.left.is_empty();
    }

    fn keep_text(&mut self, name: &str, text: &str) {
        if let Err(error) = self.package.add_file(name, text.as_bytes()) {
            self.journal("file-lost", json!({ "file": name, "error": error.to_string() }));
        }
    }
}

/// The end of a log, whole lines only.
pub(super) fn read_end(path: &Path) -> std::io::Result<String> {
    use std::io::{Read as _, Seek as _, SeekFrom};
    let mut file = std::fs::File::open(path)?;
    let length = file.metadata()?.len();
    let from = length.saturating_sub(LOG_LIMIT);
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    Ok(if from == 0 { text } else { text.split_once('\n').map_or(String::new(), |(_, rest)| rest.to_owned()) })
}
