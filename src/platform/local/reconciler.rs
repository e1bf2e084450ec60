//! A rehearsal of Flux for the local platform: it applies the tree's migrations and release at exactly the revision asked for.
//!
//! It reads the migrations that the tree lists, the application's version and the name of its database; every other file is listed as not
//! exercised here. It removes no data, and it never grows into a Kubernetes.

use super::application::{Application, ApplicationError, Launcher, Settings};
use crate::clock;
use crate::gitops::tree::{self, Migration, TreeError};
use crate::gitops::{CommitId, GitError, Repository};
use crate::wait::{Poll, Wait, WaitError};
use jiff::Timestamp;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

const MIGRATED: Duration = Duration::from_secs(600);

/// What a revision of the tree asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Desired {
    /// The revision.
    pub revision: CommitId,
    /// The migrations, in the order of their numbers.
    pub migrations: Vec<Migration>,
    /// The release that shall run.
    pub version: String,
    /// The name of the database Cluster that it shall run against.
    pub database: String,
    /// Every other file of the tree: nothing here shows that it works.
    pub not_exercised: Vec<String>,
}

/// One thing that a reconciliation did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "what")]
pub enum Applied {
    /// A migration's Job ran to its end.
    Migration {
        /// The migration.
        name: String,
        /// Its Job.
        job: String,
    },
    /// A Job is no longer in the tree and was removed; what it did to the data stays.
    Pruned {
        /// The Job.
        job: String,
    },
    /// The application runs this release against this database.
    Application {
        /// The release.
        version: String,
        /// The database Cluster.
        database: String,
    },
}

/// A reconciliation that reached its revision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reconciled {
    /// The revision that is applied now. While suspended it is an older one than was asked for.
    pub revision: CommitId,
    /// What was done for it.
    pub applied: Vec<Applied>,
    /// When it began.
    pub started: Timestamp,
    /// When it ended.
    pub ended: Timestamp,
    /// What the migrator wrote.
    pub log: String,
}

/// Why a revision was not reached.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// The repository cannot be read.
    #[error(transparent)]
    Git(#[from] GitError),
    /// The tree cannot be read.
    #[error("revision {}: {source}", revision.short())]
    Tree {
        /// The revision.
        revision: CommitId,
        /// What is wrong with it.
        source: TreeError,
    },
    /// The tree names a database that no server stands for.
    #[error("revision {} runs against database {database:?}, and no server is known by this name; known are: {known}", revision.short())]
    UnknownDatabase {
        /// The revision.
        revision: CommitId,
        /// The name in the tree.
        database: String,
        /// The names that are registered.
        known: String,
    },
    /// Nothing was applied yet, and the reconciler is suspended.
    #[error("the reconciler is suspended and has applied no revision yet; resume it")]
    Suspended,
    /// The migrator's files cannot be written, or the migrator cannot be started.
    #[error("cannot {operation} {}: {source}", path.display())]
    Migrator {
        /// What was tried.
        operation: &'static str,
        /// The file or program.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The migrator ended badly.
    #[error("revision {}: the migrator failed: {error}", revision.short())]
    Migration {
        /// The revision.
        revision: CommitId,
        /// The migrator's error line.
        error: String,
        /// All that it wrote.
        log: String,
    },
    /// The migrator did not end in time; it was killed.
    #[error(transparent)]
    TimedOut(#[from] WaitError<std::io::Error>),
    /// The application does not run.
    #[error("revision {}: {source}", revision.short())]
    Application {
        /// The revision.
        revision: CommitId,
        /// Why.
        source: ApplicationError,
    },
}

impl Desired {
    /// Reads what a revision asks for.
    ///
    /// # Errors
    /// When the revision or a file that the layout needs is not there, or a file cannot be read.
    pub fn read(repository: &Repository, revision: &CommitId) -> Result<Self, ReconcileError> {
        let wrong = |source| ReconcileError::Tree { revision: revision.clone(), source };
        let file = |path: &str| -> Result<Vec<u8>, ReconcileError> {
            repository.read(revision, path)?.ok_or_else(|| wrong(TreeError::Missing(path.to_owned())))
        };
        let listing = tree::migrations_kustomization();
        let kustomization = file(&listing)?;
        let mut read = BTreeSet::from([listing, tree::RELEASE.to_owned()]);
        let mut migrations = Vec::new();
        for path in tree::listed_migrations(&kustomization).map_err(wrong)? {
            let migration = tree::migration(&kustomization, &path, &file(&path)?).map_err(wrong)?;
            let job = tree::job_path(&migration);
            file(&job)?;
            read.extend([path, job]);
            migrations.push(migration);
        }
        let release = tree::release(&file(tree::RELEASE)?).map_err(wrong)?;
        let not_exercised = repository.list(revision, "")?.into_iter().filter(|path| !read.contains(path)).collect();
        Ok(Self { revision: revision.clone(), migrations, version: release.version, database: release.database, not_exercised })
    }
}

/// Applies revisions of a repository to this machine.
pub struct Reconciler {
    repository: Repository,
    settings: Settings,
    databases: BTreeMap<String, String>,
    completed: BTreeSet<String>,
    applied: Option<CommitId>,
    application: Option<Application>,
    suspended: bool,
}

impl Reconciler {
    /// A reconciler that has applied nothing yet.
    #[must_use]
    pub fn new(repository: Repository, settings: Settings) -> Self {
        let (databases, completed) = (BTreeMap::new(), BTreeSet::new());
        Self { repository, settings, databases, completed, applied: None, application: None, suspended: false }
    }

    /// Says where a database Cluster of the tree is. The URL may hold a password and is never repeated.
    pub fn register(&mut self, cluster: impl Into<String>, url: impl Into<String>) {
        self.databases.insert(cluster.into(), url.into());
    }

    /// The revision that is applied now.
    #[must_use]
    pub const fn revision(&self) -> Option<&CommitId> {
        self.applied.as_ref()
    }

    /// The application as it runs now.
    #[must_use]
    pub const fn application(&self) -> Option<&Application> {
        self.application.as_ref()
    }

    /// Applies no more revisions until resumed.
    pub const fn suspend(&mut self) {
        self.suspended = true;
    }

    /// Applies revisions again.
    pub const fn resume(&mut self) {
        self.suspended = false;
    }

    /// Forgets which Jobs have run, as a cluster does that removes finished Jobs after a time: they run again at the next reconciliation.
    pub fn forget_jobs(&mut self) {
        self.completed.clear();
    }

    /// Applies exactly this revision: runs the migrations whose Jobs have not run, and makes the application run the release that the tree
    /// names against the database that it names. While suspended nothing is done, and the answer names the older revision.
    ///
    /// # Errors
    /// See [`ReconcileError`]. A revision that was not reached is not reported as applied, and the application goes on as it was.
    pub async fn reconcile(&mut self, revision: &CommitId) -> Result<Reconciled, ReconcileError> {
        let started = clock::now();
        if self.suspended {
            let revision = self.applied.clone().ok_or(ReconcileError::Suspended)?;
            return Ok(Reconciled { revision, applied: Vec::new(), started, ended: clock::now(), log: String::new() });
        }
        let desired = Desired::read(&self.repository, revision)?;
        let url = self.databases.get(&desired.database).cloned().ok_or_else(|| ReconcileError::UnknownDatabase {
            revision: revision.clone(),
            database: desired.database.clone(),
            known: self.databases.keys().cloned().collect::<Vec<_>>().join(", "),
        })?;
        let mut applied = Vec::new();
        let wanted: BTreeSet<&str> = desired.migrations.iter().map(|m| m.job.as_str()).collect();
        self.completed.retain(|job| {
            let stays = wanted.contains(job.as_str());
            if !stays {
                applied.push(Applied::Pruned { job: job.clone() });
            }
            stays
        });

        let pending: Vec<&Migration> = desired.migrations.iter().filter(|m| !self.completed.contains(&m.job)).collect();
        let log = if pending.is_empty() { String::new() } else { self.migrate(&desired, &url).await? };
        for migration in pending {
            self.completed.insert(migration.job.clone());
            applied.push(Applied::Migration { name: migration.name.clone(), job: migration.job.clone() });
        }
        if self.release(&desired, &url).await? {
            applied.push(Applied::Application { version: desired.version.clone(), database: desired.database.clone() });
        }
        self.applied = Some(revision.clone());
        Ok(Reconciled { revision: revision.clone(), applied, started, ended: clock::now(), log })
    }

    /// Ends the application.
    ///
    /// # Errors
    /// When its process does not end.
    pub async fn stop(&mut self) -> Result<(), ApplicationError> {
        match self.application.take() {
            Some(application) => application.stop().await,
            None => Ok(()),
        }
    }

    /// Lets the application outlive the reconciler.
    pub const fn detach(&mut self) {
        if let Some(application) = &mut self.application {
            application.detach();
        }
    }

    /// The logs that the migrator and the application have written.
    #[must_use]
    pub fn logs(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(&self.settings.run_directory).into_iter().flatten().flatten();
        let mut logs: Vec<_> =
            entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|e| e == "log" || e == "jsonl")).collect();
        logs.sort();
        logs
    }

    /// Makes the application run what is desired; returns whether it had to be started.
    async fn release(&mut self, desired: &Desired, url: &str) -> Result<bool, ReconcileError> {
        if !self.settings.serve {
            return Ok(false);
        }
        if self.application.as_ref().is_some_and(|a| a.version() == desired.version && a.database() == desired.database) {
            return Ok(false);
        }
        let failed = |source| ReconcileError::Application { revision: desired.revision.clone(), source };
        self.stop().await.map_err(failed)?;
        self.application = Some(Application::start(&self.settings, &desired.version, &desired.database, url).await.map_err(failed)?);
        Ok(true)
    }

    /// Runs the migrator over the tree's migrations, as a Job would that mounts the SQL of all migrations up to its own. Those that the
    /// database's history knows are not run again.
    async fn migrate(&self, desired: &Desired, url: &str) -> Result<String, ReconcileError> {
        let short = desired.revision.short();
        let directory = self.settings.run_directory.join(format!("migrations-{short}"));
        for migration in &desired.migrations {
            write(&directory.join(format!("{}.sql", migration.name)), migration.sql.as_bytes())?;
        }
        let log = self.settings.run_directory.join(format!("migrations-{short}.log"));
        let Some(dir) = directory.to_str() else {
            let source = std::io::Error::other("its path is not UTF-8");
            return Err(ReconcileError::Migrator { operation: "use", path: directory, source });
        };
        let launcher: &Launcher = &self.settings.launcher;
        let expression = launcher.expression(&["migrate", "--dir", dir], url).stdin_null().stderr_to_stdout().stdout_path(&log).unchecked();
        let program = launcher.program();
        let running = expression.start().map(Running).map_err(|source| ReconcileError::Migrator {
            operation: "start the migrator",
            path: program,
            source,
        })?;
        let ended = Wait::new(format!("the migrations of revision {short} are applied"), MIGRATED)
            .until(async || {
                Ok(match running.0.try_wait()? {
                    Some(output) => Poll::Ready(output.status.success()),
                    None => Poll::NotYet("the migrator runs".to_owned()),
                })
            })
            .await?;
        let text = std::fs::read_to_string(&log).map_err(|source| ReconcileError::Migrator { operation: "read", path: log, source })?;
        if ended {
            return Ok(text);
        }
        Err(ReconcileError::Migration { revision: desired.revision.clone(), error: error_of(&text), log: text })
    }
}

/// A migrator that does not outlive the wait for it.
struct Running(duct::Handle);

impl Drop for Running {
    fn drop(&mut self) {
        // One that has ended cannot be killed, which is what is wanted.
        let _ = self.0.kill();
    }
}

fn write(path: &Path, content: &[u8]) -> Result<(), ReconcileError> {
    let failed = |source| ReconcileError::Migrator { operation: "write", path: path.to_owned(), source };
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory).map_err(failed)?;
    }
    std::fs::write(path, content).map_err(failed)
}

/// The error in the migrator's log, or its last line.
fn error_of(log: &str) -> String {
    let lines = log.lines().rev().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let text = lines.filter(|line| line["level"] == "ERROR").find_map(|line| Some(line.get("error")?.as_str()?.to_owned()));
    text.unwrap_or_else(|| log.lines().last().unwrap_or("it wrote nothing").to_owned())
}
