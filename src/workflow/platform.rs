//! The first phase: bring up the local platform around a database.

use super::{Drill, Failure, Outcome};
use crate::clock;
use crate::database::Address;
use crate::gitops::{self, CommitId, Repository};
use crate::platform::local::{Archive, Programs, Reconciler, ReconcilerOptions, Server, ServerOptions, Traffic, backup};
use include_dir::{Dir, include_dir};
use serde_json::json;
use std::path::{Path, PathBuf};
use turnback_core::drill::{Phase, ReasonCode};
use turnback_core::evidence::BackupRecord;
use turnback_core::recovery::BaseBackup;

static MIGRATIONS: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/fixtures/migrations");

/// The database Cluster that the tree's release names at first.
pub(super) const PRIMARY: &str = "orders-production";
/// The port in the names of the servers' sockets; never a network port.
const PORT: u16 = 5432;

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

/// The local platform of one drill.
pub(super) struct Local {
    pub primary: Server,
    pub restored: Option<Restored>,
    pub archive: Archive,
    pub repository: Repository,
    pub reconciler: Reconciler,
    pub database: String,
    pub with_application: bool,
    pub traffic: Option<Traffic>,
    /// Base backups with where they lie, oldest first.
    pub backups: Vec<(BaseBackup, PathBuf)>,
    /// The revision that stood when the platform was up.
    pub first_revision: CommitId,
}

/// A server that was restored and promoted.
pub(super) struct Restored {
    pub server: Server,
    /// The name of its Cluster in the Git tree.
    pub cluster: String,
    pub point: String,
    pub proven: bool,
    pub timeline: u32,
    pub system_identifier: String,
}

impl Local {
    /// The server that the release is pointed at.
    pub fn current(&self, switched: bool) -> &Server {
        match &self.restored {
            Some(restored) if switched => &restored.server,
            _ => &self.primary,
        }
    }

    pub fn address(&self, server: &Server) -> Address {
        server.address(&self.database)
    }
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

impl Drill {
    /// Brings up a PostgreSQL primary with its WAL archive, the Git repository, the reconciler and, for the sample application's database,
    /// the application itself.
    pub async fn bring_up(&mut self, source: DatabaseSource) -> Outcome {
        self.enter(Phase::Platform);
        if self.local.is_some() {
            return Err(Failure::order("this scenario has a platform already"));
        }
        let source = match source {
            DatabaseSource::Configured => match &self.settings.config {
                Some(config) => DatabaseSource::File(config.database.clone()),
                None => return Err(Failure::expectation("there is no turnback.yaml here: write one with `database:` and `migration:`")),
            },
            other => other,
        };
        let with_application = matches!(source, DatabaseSource::SampleApplication);
        let dir = self.workdir.dir().to_path_buf();
        let account = self.settings.account.clone();
        let programs = self.settings.programs.clone();
        let platform = |error: &(dyn std::error::Error + 'static)| Failure::platform(error);

        let archive = Archive::create(&dir.join("wal-archive"), &account).map_err(|e| platform(&e))?;
        let options = ServerOptions { socket_dir: dir.join("s"), port: PORT, settings: Vec::new() };
        let mut primary = Server::init(&programs, &account, &dir.join("primary"), options, Some(&archive)).await.map_err(|e| platform(&e))?;
        primary.start().await.map_err(|e| platform(&e))?;
        self.journal("server-started", json!({ "server": "primary", "pid": primary.pid() }));
        let database = if with_application { "orders" } else { "app" }.to_owned();
        create_database(&primary, &database).await?;

        let mut repository = Repository::create(&dir.join("repository.git"), &gitops::TREE, clock::now()).map_err(|e| platform(&e))?;
        if !with_application {
            let changes = gitops::tree::without_application(&repository, &repository.head().map_err(|e| platform(&e))?).map_err(|e| platform(&e))?;
            repository.commit(&changes, "Use a database of one's own", clock::now()).map_err(|e| platform(&e))?;
        }
        let head = repository.head().map_err(|e| platform(&e))?;
        let mut reconciler = Reconciler::new(ReconcilerOptions {
            launcher: self.settings.launcher.clone(),
            directory: dir.join("reconciler"),
            account: account.clone(),
            with_application,
            port: self.settings.port,
        });
        reconciler.register(PRIMARY, primary.address(&database));

        // The platform's scheduled backup is taken while the application's schema is being made, as on any living system.
        let label = "scheduled";
        let path = dir.join("backups").join(label);
        let (taken, loaded) = tokio::join!(backup::base_backup(&primary, &path, label), async {
            match &source {
                DatabaseSource::File(file) => load(&programs, &primary, &database, file).await,
                DatabaseSource::Sql(sql) => load_text(&programs, &primary, &database, sql, &dir).await,
                _ => reconciler.reconcile(&repository, &head).await.map(|_| ()).map_err(|e| Failure::platform(&e)),
            }
        });
        let taken = taken.map_err(|e| platform(&e))?;
        loaded?;
        if !with_application && matches!(source, DatabaseSource::File(_) | DatabaseSource::Sql(_)) {
            reconciler.reconcile(&repository, &head).await.map_err(|e| platform(&e))?;
        }
        self.record_backup(&taken, None, "not verified yet");
        self.record.not_exercised = reconciler.not_exercised().to_vec();
        let seen = format!(
            "PostgreSQL {} with data checksums, WAL archived; revision {} reconciled{}",
            programs.version,
            head.short(),
            if with_application { "; the application answers" } else { "" }
        );
        self.local = Some(Local {
            primary,
            restored: None,
            archive,
            repository,
            reconciler,
            database,
            with_application,
            traffic: None,
            backups: vec![(taken, path)],
            first_revision: head,
        });
        if with_application {
            let healthy = self.observe().await?;
            if !healthy.healthy {
                return Err(Failure::because(ReasonCode::PlatformFailed, format!("the application is not healthy on the known-good database: {}", healthy.detail)));
            }
        }
        Ok(seen)
    }

    /// Deploys a migration that belongs to the known-good state.
    pub async fn deploy_known_good(&mut self, name: &str, sql: &str) -> Outcome {
        self.enter(Phase::Platform);
        let (commit, _) = self.commit_migration(name, sql, None, &format!("Add the migration {name}")).await?;
        Ok(format!("commit {} reconciled", commit.short()))
    }

    pub(super) fn record_backup(&mut self, backup: &BaseBackup, verified: Option<bool>, verification: &str) {
        self.record.backups.retain(|known| known.backup.id != backup.id);
        self.record.backups.push(BackupRecord { backup: backup.clone(), verified, verification: verification.to_owned() });
        self.journal("backup", json!(self.record.backups.last()));
    }
}

async fn create_database(server: &Server, name: &str) -> Result<(), Failure> {
    let mut connection = crate::database::connect(&server.address("postgres")).await.map_err(|e| Failure::platform(&e))?;
    let statement = format!("CREATE DATABASE {}", crate::database::quote_identifier(name));
    sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(&mut connection).await.map_err(|e| Failure::platform(&e))?;
    Ok(())
}

async fn load(programs: &Programs, server: &Server, database: &str, file: &Path) -> Result<(), Failure> {
    let ended = programs.psql(&server.address(database), file).await.map_err(|e| Failure::platform(&e))?;
    match ended {
        None => Ok(()),
        Some(output) => Err(Failure::because(ReasonCode::PlatformFailed, format!("{} could not be loaded: {output}", file.display()))),
    }
}

async fn load_text(programs: &Programs, server: &Server, database: &str, sql: &str, dir: &Path) -> Result<(), Failure> {
    let file = dir.join("database.sql");
    std::fs::write(&file, sql).map_err(|e| Failure::platform(&e))?;
    load(programs, server, database, &file).await
}
