//! The first phase, and what a drill needs of the platform that it runs on: the same questions whoever applies the tree and wherever the
//! servers are. One file below for each platform joins its adapters to these questions.

mod kind;
mod local;

use super::{Drill, Failure, Outcome};
use crate::database::Address;
use crate::gitops::{CommitId, Repository};
use crate::platform::local::application::Traffic;
use crate::platform::local::reconciler::Reconciled;
use crate::platform::local::{Account, Verification};
use crate::platform::observation::Observation;
use crate::recovery::Lost;
use futures::future::LocalBoxFuture;
use include_dir::{Dir, include_dir};
use jiff::Timestamp;
use serde_json::json;
use std::path::PathBuf;
use turnback_core::drill::{Check, Phase, ReasonCode};
use turnback_core::evidence::{BackupRecord, Reached, Tool};
use turnback_core::recovery::{ArchiveFacts, BaseBackup, Lsn, RecoveryPoint, RestorePlan};

use super::faults::Harm;
pub use kind::KindSettings;
pub use local::LocalSettings;

static MIGRATIONS: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/fixtures/migrations");

/// The file in a run's directory that names the kind cluster it made.
pub(super) const CLUSTER_FILE: &str = "kind-cluster";
/// The database Cluster that the tree's release names at first.
pub(super) const PRIMARY: &str = "orders-production";

/// The platform to drill on, with what it takes to bring it up.
#[derive(Clone, Debug)]
pub enum On {
    /// Real PostgreSQL servers on this machine; a rehearsal of Flux.
    Local(LocalSettings),
    /// A kind cluster with Flux and CloudNativePG: the real thing.
    Kind(Box<KindSettings>),
}

/// What evidence says about a platform before anything has happened on it.
pub(super) struct Description {
    pub name: &'static str,
    pub note: String,
    pub tools: Vec<Tool>,
    pub limits: Vec<String>,
    /// Free space that a drill needs where it works, in bytes.
    pub space: u64,
}

impl On {
    /// The platform in a line, for people.
    #[must_use]
    pub fn headline(&self) -> String {
        match self {
            Self::Local(settings) => format!("on local · PostgreSQL {} · a rehearsal of Flux", settings.programs.version),
            Self::Kind(settings) => settings.headline(),
        }
    }

    /// The account that must be able to enter the drill's directories.
    pub(super) fn account(&self) -> &Account {
        match self {
            Self::Local(settings) => &settings.account,
            Self::Kind(settings) => &settings.account,
        }
    }

    pub(super) fn describe(&self) -> Description {
        match self {
            Self::Local(settings) => settings.describe(),
            Self::Kind(settings) => settings.describe(),
        }
    }
}

/// What could not be answered is a failure with its code; adapters' own errors end at this seam.
pub(super) type Answer<'a, T> = LocalBoxFuture<'a, Result<T, Failure>>;

impl Recovery {
    /// A restore that could not even begin.
    fn failed(failure: Failure) -> Self {
        Self { verification: None, stopped: Some(Err(failure.into())) }
    }
}

impl From<Failure> for RecoveryFailure {
    fn from(failure: Failure) -> Self {
        Self { failure, check: None, log: None }
    }
}

/// A restore to be carried out, with nothing left to decide.
pub(super) struct RecoveryOrder<'a> {
    pub plan: &'a RestorePlan,
    /// The name of the new Cluster in the tree.
    pub cluster: &'a str,
    /// The commit that declares it.
    pub declared: &'a CommitId,
    pub point: &'a RecoveryPoint,
}

/// What came of a restore up to its target.
pub(super) struct Recovery {
    /// What verifying the backup said, where it was verified.
    pub verification: Option<Verification>,
    /// Where replay stopped, or why it did not get there. `None` where a bad backup ended it before.
    pub stopped: Option<Result<Stopped, RecoveryFailure>>,
}

/// Replay stopped at its target.
pub(super) struct Stopped {
    pub reached: Reached,
    /// Whether it stopped there because of the target.
    pub at_target: bool,
    /// PostgreSQL's or the platform's words for where it stopped.
    pub said: String,
    /// What was done and how many milliseconds it took.
    pub parts: Vec<(String, u64)>,
}

/// Why replay did not get to its target.
pub(super) struct RecoveryFailure {
    pub failure: Failure,
    /// The check that this decides.
    pub check: Option<Check>,
    /// The recovering server's log.
    pub log: Option<String>,
}

/// A restored server after its promotion.
pub(super) struct Promoted {
    pub address: Address,
    pub timeline: u32,
    pub system_identifier: String,
    pub parts: Vec<(String, u64)>,
    /// What the journal says about it beside the above.
    pub note: serde_json::Value,
}

/// What remains when a platform has ended.
#[derive(Default)]
pub(super) struct Ended {
    /// Files for the evidence: name and text.
    pub files: Vec<(String, String)>,
    /// What could not be read of them: name and cause.
    pub lost: Vec<(String, String)>,
    /// How to reach what was kept.
    pub kept: Vec<String>,
    /// What was removed.
    pub removed: Vec<String>,
    /// What is ours and could not be removed.
    pub left: Vec<String>,
}

impl Ended {
    /// Keeps the repository's history.
    fn keep_history(&mut self, repository: &Repository) {
        const FILE: &str = "git/log.json";
        match repository.log(1000).map(|log| serde_json::to_string_pretty(&log)) {
            Ok(Ok(text)) => self.files.push((FILE.to_owned(), text)),
            Ok(Err(error)) => self.lost.push((FILE.to_owned(), error.to_string())),
            Err(error) => self.lost.push((FILE.to_owned(), error.to_string())),
        }
    }
}

/// Where a drill runs. Nothing here judges: answers are observations, and a failure says that there was no answer.
pub(super) trait Platform {
    /// The repository that drills commit to.
    fn repository(&self) -> &Repository;
    /// Whether the sample application runs here.
    fn has_application(&self) -> bool;
    /// The database that the release was pointed at first.
    fn primary(&self) -> Address;
    /// A process of this machine that `turnback clean` must end should we be killed.
    fn process(&self) -> Option<u32> {
        None
    }
    /// Has exactly this commit applied, and says which revision is.
    fn apply<'a>(&'a mut self, commit: &'a CommitId) -> Answer<'a, Reconciled>;
    /// Asks the application how it is.
    fn observe(&mut self) -> Answer<'_, Observation>;
    /// Lets the application take orders from now on.
    fn start_traffic(&mut self) -> Answer<'_, Traffic>;
    /// Takes a base backup.
    fn take_backup<'a>(&'a mut self, label: &'a str) -> Answer<'a, BaseBackup>;
    /// What a base backup that verifies is, in words for the evidence.
    fn whole(&self) -> &'static str;
    /// Verifies a base backup as well as can be done here.
    fn verify<'a>(&'a self, backup: &'a BaseBackup) -> Answer<'a, Verification>;
    /// Counts what a restore to the point would lose; `None` where that cannot be known. Everything up to `to` is archived.
    fn loss<'a>(&'a self, point: &'a RecoveryPoint, to: Lsn) -> LocalBoxFuture<'a, Option<Lost>>;
    /// What the WAL archive holds.
    fn archive(&self, last_commit: (Timestamp, Lsn)) -> Answer<'_, ArchiveFacts>;
    /// Restores up to the target.
    fn recover<'a>(&'a mut self, order: RecoveryOrder<'a>) -> LocalBoxFuture<'a, Recovery>;
    /// Promotes what was recovered, where that has not happened by itself.
    fn promote(&mut self) -> LocalBoxFuture<'_, Result<Promoted, RecoveryFailure>>;
    /// Applies no more revisions, as someone may have left it.
    fn suspend(&mut self) -> Answer<'_, ()>;
    /// Harms the archived segment of a recovery point; `at` is an offset in it.
    fn harm_segment<'a>(&'a mut self, harm: Harm, segment: &'a str, at: u64) -> Answer<'a, ()>;
    /// Harms a file of a base backup, and names it.
    fn harm_backup<'a>(&'a mut self, harm: Harm, backup: &'a BaseBackup) -> Answer<'a, String>;
    /// Ends everything, or lets go of it where it is to be kept.
    fn end(self: Box<Self>, keep: bool) -> LocalBoxFuture<'static, Ended>;
}

/// A platform with what the drill has done on it.
pub(super) struct Stage {
    pub platform: Box<dyn Platform>,
    pub restored: Option<Restored>,
    pub traffic: Option<Traffic>,
    /// Whether the application has been placing orders since the platform came up.
    pub orders_placed: bool,
    /// Base backups, oldest first.
    pub backups: Vec<BaseBackup>,
}

/// A server that was restored and promoted.
pub(super) struct Restored {
    pub address: Address,
    /// The name of its Cluster in the Git tree.
    pub cluster: String,
    pub proven: bool,
    pub timeline: u32,
    pub system_identifier: String,
}

impl Stage {
    /// The database to look at: the restored one as soon as there is one.
    pub fn current(&self) -> Address {
        self.restored.as_ref().map_or_else(|| self.platform.primary(), |restored| restored.address.clone())
    }
}

/// A platform that has just come up.
pub(super) struct Up {
    pub platform: Box<dyn Platform>,
    pub backups: Vec<BaseBackup>,
    /// Files of the tree that this platform does nothing with.
    pub not_exercised: Vec<String>,
    /// What a person wants to know of it.
    pub seen: String,
}

/// What the platform's database holds at first.
#[derive(Clone, Debug)]
pub enum DatabaseSource {
    /// The sample application's own schema and data, with the application running.
    SampleApplication,
    /// Nothing.
    Empty,
    /// What `turnback.yaml` names.
    Configured,
    /// A file of SQL, run by `psql`.
    File(PathBuf),
    /// SQL from the scenario.
    Sql(String),
}

/// The migrations shipped for drills, by name.
#[must_use]
pub fn shipped_migrations() -> Vec<String> {
    let mut names: Vec<_> = MIGRATIONS.files().filter_map(|file| Some(file.path().file_stem()?.to_string_lossy().into_owned())).collect();
    names.sort();
    names
}

pub(super) fn shipped_migration(name: &str) -> Result<String, Failure> {
    MIGRATIONS.get_file(format!("{name}.sql")).and_then(|file| file.contents_utf8()).map(str::to_owned).ok_or_else(|| {
        Failure::expectation(format!(
            "no migration named “{name}” is shipped (there are {}): write its SQL below the step, or name a file",
            shipped_migrations().join(", ")
        ))
    })
}

/// Whether a platform's database can have this name.
///
/// # Errors
/// Why not, in words that follow the name.
pub fn check_database_name(name: &str) -> Result<(), &'static str> {
    match name {
        "" => Err("is no name: write at least one character"),
        "postgres" | "template0" | "template1" => Err("is a database that every server has already: choose another name"),
        _ if name.contains('\0') => Err("holds a zero byte: leave it out"),
        // PostgreSQL would cut it off in silence.
        _ if name.len() > 63 => Err("is longer than PostgreSQL's 63 bytes: shorten it"),
        _ => Ok(()),
    }
}

impl Drill {
    /// Names the database of the platform that is brought up next.
    pub fn name_database(&mut self, name: &str) -> Outcome {
        self.enter(Phase::Platform);
        if self.stage.is_some() {
            return Err(Failure::order(
                "the platform has its database already: name it in a step before the one that brings the platform up",
            ));
        }
        check_database_name(name).map_err(|why| Failure::expectation(format!("“{name}” {why}")))?;
        self.database_name = Some(name.to_owned());
        Ok(String::new())
    }

    /// Brings up the platform: a PostgreSQL primary with its WAL archive, the Git repository, who applies it and, for the sample application's
    /// database, the application itself.
    pub async fn bring_up(&mut self, source: DatabaseSource) -> Outcome {
        self.enter(Phase::Platform);
        if self.stage.is_some() {
            return Err(Failure::order("this scenario has a platform already"));
        }
        let mut database = self.database_name.clone();
        let source = match source {
            DatabaseSource::Configured => match &self.settings.config {
                Some(config) => {
                    database = database.or_else(|| config.database_name.clone());
                    DatabaseSource::File(config.database.clone())
                }
                None => return Err(Failure::expectation("there is no turnback.yaml here: write one with `database:` and `migration:`")),
            },
            other => other,
        };
        if let (DatabaseSource::SampleApplication, Some(name)) = (&source, &database) {
            return Err(Failure::expectation(format!(
                "the sample application's database is called orders, not “{name}”: leave the name out"
            )));
        }
        let up = match self.settings.on.clone() {
            On::Local(settings) => local::up(self, &settings, &source, database).await?,
            On::Kind(settings) => kind::up(self, &settings, &source, database).await?,
        };
        for backup in &up.backups {
            self.record_backup(backup, None, "not verified yet");
        }
        self.record.not_exercised = up.not_exercised;
        let with_application = up.platform.has_application();
        self.stage = Some(Stage { platform: up.platform, restored: None, traffic: None, orders_placed: false, backups: up.backups });
        self.remember_application();
        if with_application {
            let healthy = self.observe().await?;
            if !healthy.healthy {
                return Err(Failure::because(
                    ReasonCode::PlatformFailed,
                    format!("the application is not healthy on the known-good database: {}", healthy.detail),
                ));
            }
        }
        Ok(up.seen)
    }

    /// Deploys a migration that belongs to the known-good state.
    pub async fn deploy_known_good(&mut self, name: &str, sql: &str) -> Outcome {
        self.enter(Phase::Platform);
        let (commit, _) = self.commit_migration(name, sql, None, &format!("Add the migration {name}")).await?;
        Ok(format!("commit {} reconciled", commit.short()))
    }

    /// Records the application's process, so that `turnback clean` can end it should we be killed.
    pub(super) fn remember_application(&mut self) {
        let pid = self.stage.as_ref().and_then(|stage| stage.platform.process());
        if let (Some(pid), Some(work)) = (pid, &self.workdir)
            && let Err(error) = work.record_process(pid)
        {
            self.journal("process-not-recorded", json!({ "pid": pid, "error": error.to_string() }));
        }
    }

    pub(super) fn record_backup(&mut self, backup: &BaseBackup, verified: Option<bool>, verification: &str) {
        self.record.backups.retain(|known| known.backup.id != backup.id);
        self.record.backups.push(BackupRecord { backup: backup.clone(), verified, verification: verification.to_owned() });
        self.journal("backup", json!(self.record.backups.last()));
    }
}

/// A file of the tree at a revision.
pub(super) fn tree_file(repository: &Repository, revision: &CommitId, path: &str) -> Result<Vec<u8>, Failure> {
    let found = repository.read(revision, path).map_err(|e| Failure::platform(&e))?;
    found.ok_or_else(|| Failure::because(ReasonCode::PlatformFailed, format!("{path} is not in the tree at revision {}", revision.short())))
}
