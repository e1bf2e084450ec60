//! The first phase: bring up the local platform around a database.

use super::{Drill, Failure, Outcome};
use crate::clock;
use crate::database::Address;
use crate::gitops::{self, CommitId, Repository};
use crate::platform::local::application::{Launcher, Settings, Traffic};
use crate::platform::local::reconciler::{Desired, Reconciler};
use crate::platform::local::server::SUPERUSER;
use crate::platform::local::{Account, Archive, Programs, Server, ServerOptions, base_backup};
use include_dir::{Dir, include_dir};
use serde_json::json;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;
use turnback_core::drill::{Phase, ReasonCode};
use turnback_core::evidence::BackupRecord;
use turnback_core::recovery::BaseBackup;

static MIGRATIONS: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/fixtures/migrations");

/// The database Cluster that the tree's release names at first.
pub(super) const PRIMARY: &str = "orders-production";
/// The port in the names of the servers' sockets; never a network port.
const PORT: u16 = 5432;
/// How long loading a database of one's own may take.
const LOAD_LIMIT: Duration = Duration::from_secs(1800);

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
    /// Whether the application has been placing orders since the platform came up.
    pub orders_placed: bool,
    /// Base backups with where they lie, oldest first.
    pub backups: Vec<(BaseBackup, PathBuf)>,
}

/// A server that was restored and promoted.
pub(super) struct Restored {
    pub server: Server,
    /// The name of its Cluster in the Git tree.
    pub cluster: String,
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
        address(server, &self.database)
    }
}

/// Where a database of a local server is.
pub(super) fn address(server: &Server, database: &str) -> Address {
    Address::socket(&server.options().socket_dir, server.options().port, SUPERUSER, database)
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
        if self.local.is_some() {
            return Err(Failure::order(
                "the platform has its database already: name it in a step before the one that brings the platform up",
            ));
        }
        check_database_name(name).map_err(|why| Failure::expectation(format!("“{name}” {why}")))?;
        self.database_name = Some(name.to_owned());
        Ok(String::new())
    }

    /// Brings up a PostgreSQL primary with its WAL archive, the Git repository, the reconciler and, for the sample application's database,
    /// the application itself.
    pub async fn bring_up(&mut self, source: DatabaseSource) -> Outcome {
        self.enter(Phase::Platform);
        if self.local.is_some() {
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
        let with_application = matches!(source, DatabaseSource::SampleApplication);
        if let (true, Some(name)) = (with_application, &database) {
            return Err(Failure::expectation(format!(
                "the sample application's database is called orders, not “{name}”: leave the name out"
            )));
        }
        let dir = self.dir()?;
        let sockets = self.workdir.as_ref().map_or_else(|| dir.join("s"), |work| work.sockets());
        let account = self.settings.account.clone();
        let programs = self.settings.programs.clone();
        let platform = |error: &(dyn std::error::Error + 'static)| Failure::platform(error);

        let archive = Archive::create(&dir.join("wal-archive"), &account).map_err(|e| platform(&e))?;
        let options = ServerOptions { socket_dir: sockets, port: PORT, settings: Vec::new() };
        let mut primary =
            Server::init(&programs, &account, &dir.join("primary"), options, Some(&archive)).await.map_err(|e| platform(&e))?;
        primary.start().await.map_err(|e| platform(&e))?;
        self.journal("server-started", json!({ "server": "primary", "pid": primary.pid() }));
        let database = database.unwrap_or_else(|| if with_application { "orders" } else { "app" }.to_owned());
        create_database(&address(&primary, "postgres"), &database).await?;

        let repository = Repository::create(&dir.join("repository.git"), &gitops::TREE, clock::now()).map_err(|e| platform(&e))?;
        if !with_application {
            let head = repository.head().map_err(|e| platform(&e))?;
            let listing = gitops::tree::migrations_kustomization();
            let kustomization = tree_file(&repository, &head, &listing)?;
            let changes = gitops::tree::without_migrations(&kustomization).map_err(|e| platform(&e))?;
            repository.commit(&changes, "Use a database of one's own", clock::now()).map_err(|e| platform(&e))?;
        }
        let head = repository.head().map_err(|e| platform(&e))?;
        let run_directory = dir.join("application");
        account.make_dir(&run_directory, 0o755).map_err(|e| platform(&e))?;
        let settings = Settings {
            launcher: Launcher { command: self.settings.launcher.clone(), account: None },
            run_directory,
            port: (self.settings.port != 0).then_some(self.settings.port),
            serve: with_application,
        };
        let mut reconciler = Reconciler::new(Repository::open(repository.path()).map_err(|e| platform(&e))?, settings);
        reconciler.register(PRIMARY, address(&primary, &database).url());

        // The platform's scheduled backup is taken while the application's schema is being made, as on any living system.
        let label = "scheduled";
        let path = dir.join("backups").join(label);
        let (taken, loaded) =
            tokio::join!(base_backup(&primary, &account, &programs, &path, label, super::known_good::BACKUP_LIMIT), async {
                match &source {
                    DatabaseSource::File(file) => load(&programs, &account, &address(&primary, &database), file).await,
                    DatabaseSource::Sql(sql) => load_text(&programs, &account, &address(&primary, &database), sql, &dir).await,
                    _ => reconciler.reconcile(&head).await.map(|_| ()).map_err(|e| Failure::platform(&e)),
                }
            });
        let taken = taken.map_err(|e| platform(&e))?;
        loaded?;
        if !with_application && matches!(source, DatabaseSource::File(_) | DatabaseSource::Sql(_)) {
            reconciler.reconcile(&head).await.map_err(|e| platform(&e))?;
        }
        self.record_backup(&taken, None, "not verified yet");
        self.record.not_exercised = Desired::read(&repository, &head).map_err(|e| platform(&e))?.not_exercised;
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
            orders_placed: false,
            backups: vec![(taken, path)],
        });
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
        Ok(seen)
    }

    /// Deploys a migration that belongs to the known-good state.
    pub async fn deploy_known_good(&mut self, name: &str, sql: &str) -> Outcome {
        self.enter(Phase::Platform);
        let (commit, _) = self.commit_migration(name, sql, None, &format!("Add the migration {name}")).await?;
        Ok(format!("commit {} reconciled", commit.short()))
    }

    /// Records the application's process, so that `turnback clean` can end it should we be killed.
    pub(super) fn remember_application(&mut self) {
        let pid = self.local.as_ref().and_then(|local| local.reconciler.application()).map(|application| application.pid());
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

async fn create_database(at: &Address, name: &str) -> Result<(), Failure> {
    let mut connection = crate::database::connect(at).await.map_err(|e| Failure::platform(&e))?;
    let statement = format!("CREATE DATABASE \"{}\"", name.replace('"', "\"\""));
    sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(&mut connection).await.map_err(|e| Failure::platform(&e))?;
    Ok(())
}

/// A file of the tree at a revision.
pub(super) fn tree_file(repository: &Repository, revision: &CommitId, path: &str) -> Result<Vec<u8>, Failure> {
    let found = repository.read(revision, path).map_err(|e| Failure::platform(&e))?;
    found.ok_or_else(|| Failure::because(ReasonCode::PlatformFailed, format!("{path} is not in the tree at revision {}", revision.short())))
}

/// Runs a file of SQL as `psql` does, because a plain dump holds COPY data and meta commands that only it understands.
async fn load(programs: &Programs, account: &Account, at: &Address, file: &Path) -> Result<(), Failure> {
    // psql reads standard input here, so that the account it runs as needs no right to the file.
    let text = std::fs::read(file).map_err(|e| Failure::expectation(format!("cannot read {}: {e}", file.display())))?;
    let args: Vec<OsString> =
        ["--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "--single-transaction", "--output=/dev/null", "--dbname", at.url(), "--file=-"]
            .map(OsString::from)
            .to_vec();
    let ended = programs.run_with_input(account, "psql", &args, text, LOAD_LIMIT).await.map_err(|e| Failure::platform(&e))?;
    if ended.ok {
        return Ok(());
    }
    Err(Failure::because(ReasonCode::DatabaseNotLoaded, format!("{} could not be loaded: {}", file.display(), ended.output.trim())))
}

async fn load_text(programs: &Programs, account: &Account, at: &Address, sql: &str, dir: &Path) -> Result<(), Failure> {
    let file = dir.join("database.sql");
    std::fs::write(&file, sql).map_err(|e| Failure::platform(&e))?;
    load(programs, account, at, &file).await
}
