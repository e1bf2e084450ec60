//! The third phase: the change goes into Git, the reconciler applies it, the migration history records it.

use super::platform::{PRIMARY, shipped_migration, tree_file};
use super::{Drill, Failure, Outcome};
use crate::clock;
use crate::database::{self, history};
use crate::gitops::{self, CommitId};
use crate::platform::local::reconciler::Reconciled;
use serde_json::json;
use sha2::{Digest, Sha256};
use std::path::PathBuf;
use turnback_core::drill::{Check, CheckId, Phase, ReasonCode};
use turnback_core::evidence::ChangeRecord;

/// Where a migration's SQL comes from.
#[derive(Clone, Debug)]
pub enum Migration {
    /// One of the shipped ones, by name.
    Shipped(String),
    /// What `turnback.yaml` names.
    Configured,
    /// A file.
    File(PathBuf),
    /// SQL from the scenario.
    Sql {
        /// Its name.
        name: String,
        /// Its statements.
        sql: String,
    },
}

/// The change that was deployed last.
#[derive(Clone, Debug)]
pub(super) struct Deployed {
    pub name: String,
    pub sql: String,
    pub commit: CommitId,
}

/// The version of the application that a bad release brings along.
const BAD_VERSION: &str = "1.1.0";
/// The largest migration that is read, in bytes.
const LARGEST: u64 = 16 * 1024 * 1024;

impl Drill {
    /// Lets the sample application write until the revert, so that what is lost is measured.
    pub async fn start_traffic(&mut self) -> Outcome {
        self.enter(Phase::Change);
        let stage = self.stage()?;
        stage.traffic = Some(stage.platform.start_traffic().await?);
        stage.orders_placed = true;
        Ok("orders are being placed".into())
    }

    /// Commits a migration together with the release that needs it and waits until the reconciler has applied exactly that commit.
    pub async fn deploy(&mut self, migration: Migration) -> Outcome {
        self.enter(Phase::Change);
        let (name, sql) = match migration {
            Migration::Shipped(name) => {
                let sql = shipped_migration(&name)?;
                (name, sql)
            }
            Migration::Configured => match &self.settings.config {
                Some(config) => read(&config.migration)?,
                None => return Err(Failure::expectation("there is no turnback.yaml here: write one with `database:` and `migration:`")),
            },
            Migration::File(path) => read(&path)?,
            Migration::Sql { name, sql } => (name, sql),
        };
        self.outdate();
        if self.known_good.is_empty() {
            return Err(Failure::order("record the known-good state before the change: without it nothing can be compared afterwards"));
        }
        let version = self.stage()?.platform.has_application().then_some(BAD_VERSION);
        let (commit, reconciled) =
            self.commit_migration(&name, &sql, version, &format!("Release {BAD_VERSION} with the migration {name}")).await?;
        let change = ChangeRecord {
            migration: name.clone(),
            sql_sha256: hex::encode(Sha256::digest(sql.as_bytes())),
            commit: commit.to_string(),
            applied_revision: reconciled.revision.to_string(),
            applied: reconciled.ended,
        };
        self.journal("change", json!(change));
        self.record.changes.push(change);
        self.package
            .add_file(format!("change/{}.sql", super::verification::slug(&name)), sql.as_bytes())
            .map_err(|e| Failure::platform(&e))?;
        self.change = Some(Deployed { name: name.clone(), sql, commit: commit.clone() });
        self.check_history(&name, true, CheckId::ChangeApplied).await?;
        Ok(format!("commit {} reconciled, {name} applied", commit.short()))
    }

    /// Commits a migration and reconciles it.
    pub(super) async fn commit_migration(
        &mut self,
        name: &str,
        sql: &str,
        version: Option<&str>,
        message: &str,
    ) -> Result<(CommitId, Reconciled), Failure> {
        let last = self.last_number().await?;
        let repository = self.stage()?.platform.repository();
        let head = repository.head().map_err(|e| Failure::platform(&e))?;
        let listing = tree_file(repository, &head, &gitops::tree::migrations_kustomization())?;
        let mut changes =
            gitops::tree::add_migration(&listing, name, sql, last).map_err(|e| Failure::expectation(super::outcome::chain(&e)))?.changes;
        if let Some(version) = version {
            let release = tree_file(repository, &head, gitops::tree::RELEASE)?;
            changes.push(gitops::tree::set_version(&release, version).map_err(|e| Failure::platform(&e))?);
        }
        let commit = repository.commit(&changes, message, clock::now()).map_err(|e| Failure::platform(&e))?;
        self.journal("commit", json!({ "commit": commit.to_string(), "message": message }));
        let reconciled = self.reconcile(&commit).await?;
        if reconciled.revision != commit {
            return Err(Failure::because(
                ReasonCode::ChangeNotApplied,
                format!("the reconciler stands at {} and has not applied {}", reconciled.revision.short(), commit.short()),
            ));
        }
        Ok((commit, reconciled))
    }

    pub(super) async fn reconcile(&mut self, commit: &CommitId) -> Result<Reconciled, Failure> {
        let reconciled = self.stage()?.platform.apply(commit).await?;
        self.remember_application();
        self.journal(
            "reconciled",
            json!({ "asked": commit.to_string(), "revision": reconciled.revision.to_string(), "applied": reconciled.applied }),
        );
        Ok(reconciled)
    }

    /// Asserts that a migration is, or is not, in the history of the database that the release is pointed at.
    pub async fn expect_in_history(&mut self, name: &str, wanted: bool) -> Outcome {
        let changed = self.change.as_ref().is_some_and(|change| change.name == name);
        match (changed, wanted) {
            (true, true) => self.check_history(name, true, CheckId::ChangeApplied).await,
            (true, false) => {
                self.enter(Phase::Verification);
                self.check_history(name, false, CheckId::ChangeNotInHistory).await
            }
            _ => {
                let history = self.history().await?;
                let there = history.iter().any(|entry| entry.is(name));
                if there == wanted { Ok(said(name, there)) } else { Err(Failure::expectation(said(name, there))) }
            }
        }
    }

    /// The same for the change that was deployed last.
    pub async fn expect_change_in_history(&mut self, wanted: bool) -> Outcome {
        let Some(change) = self.change.clone() else {
            return Err(Failure::order("no change has been deployed"));
        };
        self.expect_in_history(&change.name, wanted).await
    }

    async fn check_history(&mut self, name: &str, wanted: bool, id: CheckId) -> Outcome {
        let history = self.history().await?;
        let there = history.iter().any(|entry| entry.is(name) && entry.success);
        let expected = format!("{name} {}in the history", if wanted { "" } else { "not " });
        self.require(Check::observed(id, there == wanted, expected, said(name, there)))?;
        Ok(said(name, there))
    }

    /// The highest number in the migration history of any of the platform's servers.
    async fn last_number(&mut self) -> Result<i64, Failure> {
        let stage = self.stage()?;
        let restored = stage.restored.as_ref().map(|restored| restored.address.clone());
        let mut last = 0;
        for address in std::iter::once(stage.platform.primary()).chain(restored) {
            let mut connection = database::connect(&address).await.map_err(|e| Failure::platform(&e))?;
            let history = history::read(&mut connection).await.map_err(|e| Failure::platform(&e))?;
            last = history.iter().map(|entry| entry.version).fold(last, i64::max);
        }
        Ok(last)
    }

    async fn history(&mut self) -> Result<Vec<history::Entry>, Failure> {
        let mut connection = database::connect(&self.stage()?.current()).await.map_err(|e| Failure::platform(&e))?;
        history::read(&mut connection).await.map_err(|e| Failure::platform(&e))
    }

    /// The name of the primary's Cluster in the Git tree.
    pub(super) fn source_cluster() -> &'static str {
        PRIMARY
    }
}

fn said(name: &str, there: bool) -> String {
    format!("{name} is {}in the migration history", if there { "" } else { "not " })
}

/// A migration's name and SQL from its file: `0042_drop_email.sql` is `drop_email`.
fn read(path: &std::path::Path) -> Result<(String, String), Failure> {
    let failed = |message: String| Failure::expectation(message);
    let length = std::fs::metadata(path).map_err(|e| failed(format!("cannot read {}: {e}", path.display())))?.len();
    if length > LARGEST {
        return Err(failed(format!("{} is larger than 16 MiB", path.display())));
    }
    let bytes = std::fs::read(path).map_err(|e| failed(format!("cannot read {}: {e}", path.display())))?;
    let sql = String::from_utf8(bytes).map_err(|_| failed(format!("{} is not UTF-8 text", path.display())))?;
    let sql = sql.strip_prefix('\u{feff}').unwrap_or(&sql).to_owned();
    if sql.trim().is_empty() {
        return Err(failed(format!("{} is empty", path.display())));
    }
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let name = stem.trim_start_matches(|c: char| c.is_ascii_digit()).trim_start_matches(['_', '-', '.']);
    Ok((if name.is_empty() { stem.clone() } else { name.to_owned() }, sql))
}
