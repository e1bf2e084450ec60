//! The local platform: servers of this machine, a directory as WAL archive, and the rehearsal of Flux.

use super::{Answer, Description, Ended, PRIMARY, Platform, Promoted, Recovery, RecoveryFailure, RecoveryOrder, Stopped, Up, tree_file};
use crate::clock;
use crate::database::Address;
use crate::gitops::{self, CommitId, Repository};
use crate::platform::local::application::{Launcher, Observation, Settings, Traffic};
use crate::platform::local::reconciler::{Desired, ReconcileError, Reconciled, Reconciler};
use crate::platform::local::server::{MAINTENANCE, SUPERUSER};
use crate::platform::local::{
    Account, Archive, Paused, Programs, RestoreError, RestoreRequest, SegmentFault, Server, ServerOptions, Shutdown, Verification,
    base_backup, lost_commits, restore, verify,
};
use crate::recovery::Lost;
use crate::workflow::drill::{local_tools, ms};
use crate::workflow::faults::{self, Harm};
use crate::workflow::finish::read_end;
use crate::workflow::outcome::chain;
use crate::workflow::{DatabaseSource, Drill, Failure};
use futures::future::LocalBoxFuture;
use jiff::Timestamp;
use serde_json::json;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use turnback_core::drill::{Check, CheckId, ReasonCode};
use turnback_core::recovery::{ArchiveFacts, BaseBackup, Lsn, RecoveryPoint};

/// Free space that a drill on the shipped fixture needs, in bytes: two servers, two backups, and WAL.
const SPACE: u64 = 512 * 1024 * 1024;
/// The ports in the names of the servers' sockets; never network ports.
const PORT: u16 = 5432;
const RESTORED_PORT: u16 = 5433;
/// How long loading a database of one's own may take.
const LOAD_LIMIT: Duration = Duration::from_secs(1800);
/// How long a base backup may take, and verifying one.
const BACKUP_LIMIT: Duration = Duration::from_secs(600);
const VERIFY_LIMIT: Duration = Duration::from_secs(600);
/// How long counting WAL may take.
const COUNT_LIMIT: Duration = Duration::from_secs(60);
/// How long replay may take.
const REPLAY_LIMIT: Duration = Duration::from_secs(600);

/// What a local platform is made of.
#[derive(Clone, Debug)]
pub struct LocalSettings {
    /// PostgreSQL's server programs.
    pub programs: Programs,
    /// As whom the servers run.
    pub account: Account,
    /// How to start the sample application and its migrator: this executable and its hidden subcommand.
    pub launcher: Vec<OsString>,
    /// A fixed port for the sample application; 0 lets the system choose.
    pub port: u16,
}

impl LocalSettings {
    pub(super) fn describe(&self) -> Description {
        let version = &self.programs.version;
        Description {
            name: "local",
            note: format!(
                "a rehearsal: real PostgreSQL {version}, real Git and the real application, with a small reconciler in place of Flux and no Kubernetes"
            ),
            tools: local_tools(&self.programs),
            limits: vec![
                "Flux, CloudNativePG, Kubernetes and the object store were not exercised: a small reconciler applied the Git tree and the WAL archive is a directory".into(),
                "the servers ran with fsync off, because they are thrown away: durability against a crash of the machine was not tested".into(),
            ],
            space: SPACE,
        }
    }
}

/// The local platform of one drill.
struct Local {
    programs: Programs,
    account: Account,
    /// Where this drill works.
    dir: PathBuf,
    primary: Server,
    paused: Option<Paused>,
    restored: Option<Server>,
    archive: Archive,
    repository: Repository,
    reconciler: Reconciler,
    database: String,
    with_application: bool,
    /// Where each base backup lies.
    backups: BTreeMap<String, PathBuf>,
    /// The name of the Cluster that is being restored.
    recovering: String,
}

/// Where a database of a local server is.
fn address(server: &Server, database: &str) -> Address {
    Address::socket(&server.options().socket_dir, server.options().port, SUPERUSER, database)
}

pub(super) async fn up(
    drill: &mut Drill,
    settings: &LocalSettings,
    source: &DatabaseSource,
    database: Option<String>,
) -> Result<Up, Failure> {
    let with_application = matches!(source, DatabaseSource::SampleApplication);
    let dir = drill.dir()?;
    let sockets = drill.workdir.as_ref().map_or_else(|| dir.join("s"), |work| work.sockets());
    let account = settings.account.clone();
    let programs = settings.programs.clone();
    let platform = |error: &(dyn std::error::Error + 'static)| Failure::platform(error);

    let archive = Archive::create(&dir.join("wal-archive"), &account).map_err(|e| platform(&e))?;
    let options = ServerOptions { socket_dir: sockets, port: PORT, settings: Vec::new() };
    let mut primary = Server::init(&programs, &account, &dir.join("primary"), options, Some(&archive)).await.map_err(|e| platform(&e))?;
    primary.start().await.map_err(|e| platform(&e))?;
    drill.journal("server-started", json!({ "server": "primary", "pid": primary.pid() }));
    let database = database.unwrap_or_else(|| if with_application { "orders" } else { "app" }.to_owned());
    name_database(&address(&primary, MAINTENANCE), &database).await?;

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
    let application = Settings {
        launcher: Launcher { command: settings.launcher.clone(), account: None },
        run_directory,
        port: (settings.port != 0).then_some(settings.port),
        serve: with_application,
    };
    let mut reconciler = Reconciler::new(Repository::open(repository.path()).map_err(|e| platform(&e))?, application);
    reconciler.register(PRIMARY, address(&primary, &database).url());

    // The platform's scheduled backup is taken while the application's schema is being made, as on any living system.
    let label = "scheduled";
    let path = dir.join("backups").join(label);
    let (taken, loaded) = tokio::join!(base_backup(&primary, &account, &programs, &path, label, BACKUP_LIMIT), async {
        match source {
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
    let not_exercised = Desired::read(&repository, &head).map_err(|e| platform(&e))?.not_exercised;
    let seen = format!(
        "PostgreSQL {} with data checksums, WAL archived; revision {} reconciled{}",
        programs.version,
        head.short(),
        if with_application { "; the application answers" } else { "" }
    );
    let backups = BTreeMap::from([(taken.id.clone(), path)]);
    let local = Local {
        programs,
        account,
        dir,
        primary,
        paused: None,
        restored: None,
        archive,
        repository,
        reconciler,
        database,
        with_application,
        backups,
        recovering: String::new(),
    };
    Ok(Up { platform: Box::new(local), backups: vec![taken], not_exercised, seen })
}

impl Local {
    fn backup_dir(&self, backup: &BaseBackup) -> Result<&PathBuf, Failure> {
        self.backups.get(&backup.id).ok_or_else(|| Failure::because(ReasonCode::NoBackup, format!("the backup {} is gone", backup.id)))
    }

    async fn recover(&mut self, order: RecoveryOrder<'_>) -> Recovery {
        let path = match self.backup_dir(&order.plan.backup) {
            Ok(path) => path.clone(),
            Err(failure) => return Recovery::failed(failure),
        };
        order.cluster.clone_into(&mut self.recovering);
        let options = ServerOptions { socket_dir: self.primary.options().socket_dir.clone(), port: RESTORED_PORT, settings: Vec::new() };
        let request = RestoreRequest {
            programs: &self.programs,
            account: &self.account,
            plan: order.plan,
            backup_dir: &path,
            archive: &self.archive,
            dir: &self.dir.join("restored"),
            options,
            archive_to: None,
            login: Default::default(),
            limit: REPLAY_LIMIT,
        };
        // Both only read the backup: it is verified while it is being restored. A server restored from a damaged backup may never get to its
        // target, so a bad word of the verification ends the restore.
        let mut restoring = Box::pin(restore(request));
        let mut verifying = Box::pin(verify(&self.programs, &self.account, &path, VERIFY_LIMIT));
        let (verification, early) = tokio::select! {
            verification = &mut verifying => (verification, None),
            restored = &mut restoring => ((&mut verifying).await, Some(restored)),
        };
        let verification = match verification {
            Ok(verification) => verification,
            Err(error) => return Recovery::failed(Failure::platform(&error)),
        };
        if !verification.ok {
            return Recovery { verification: Some(verification), stopped: None };
        }
        let restored = match early {
            Some(restored) => restored,
            None => (&mut restoring).await,
        };
        drop((restoring, verifying));
        let stopped = match restored {
            Ok(paused) => self.prove(paused, order.point).await,
            Err(error) => Err(failed(&error)),
        };
        Recovery { verification: Some(verification), stopped: Some(stopped) }
    }

    async fn prove(&mut self, mut paused: Paused, point: &RecoveryPoint) -> Result<Stopped, RecoveryFailure> {
        let begun = Instant::now();
        let reached = paused.prove(point).await.map_err(|error| RecoveryFailure::from(Failure::platform(&error)))?;
        let part = |name: &str, length: Duration| (name.to_owned(), ms(length));
        let parts = vec![part("files", paused.files), part("replay", paused.replay), part("proof", begun.elapsed())];
        self.paused = Some(paused);
        let at_target = reached.pause_state == "paused";
        let said = format!("{} at LSN {}", reached.pause_state, reached.lsn);
        Ok(Stopped { reached, at_target, said, parts })
    }

    async fn promote(&mut self) -> Result<Promoted, RecoveryFailure> {
        let Some(paused) = self.paused.take() else {
            return Err(Failure::order("nothing is paused that could be promoted").into());
        };
        let promoted = paused.promote().await.map_err(|error| failed(&error))?;
        let address = address(&promoted.server, &self.database);
        self.reconciler.register(&self.recovering, address.url());
        let note = json!({ "pid": promoted.server.pid() });
        self.restored = Some(promoted.server);
        Ok(Promoted {
            address,
            timeline: promoted.timeline,
            system_identifier: promoted.system_identifier,
            parts: vec![("promotion".to_owned(), ms(promoted.promotion))],
            note,
        })
    }

    async fn end(mut self, keep: bool) -> Ended {
        let mut ended = Ended::default();
        ended.keep_history(&self.repository);
        if keep {
            for server in std::iter::once(&self.primary).chain(&self.restored) {
                ended.kept.push(format!("psql '{}'", server.url(&self.database)));
            }
            if let Some(application) = self.reconciler.application() {
                ended.kept.push(format!("curl http://{}/healthz", application.address()));
            }
            self.reconciler.detach();
            self.primary.detach();
            if let Some(restored) = &mut self.restored {
                restored.detach();
            }
        } else {
            // They are thrown away, and none waits for another.
            let (primary, restored) = (&mut self.primary, &mut self.restored);
            let (application, primary, restored) = tokio::join!(self.reconciler.stop(), primary.stop(Shutdown::Immediate), async {
                match restored {
                    Some(restored) => restored.stop(Shutdown::Immediate).await,
                    None => Ok(()),
                }
            });
            ended.left.extend(application.err().map(|error| format!("the application: {error}")));
            ended.left.extend(primary.err().map(|error| format!("the primary: {error}")));
            ended.left.extend(restored.err().map(|error| format!("the restored server: {error}")));
        }
        ended.keep_log("logs/primary.log", self.primary.log_file());
        if let Some(restored) = &self.restored {
            ended.keep_log("logs/restored.log", restored.log_file());
        }
        for path in self.reconciler.logs() {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            ended.keep_log(&format!("logs/{name}"), &path);
        }
        ended
    }
}

impl Ended {
    fn keep_log(&mut self, name: &str, path: &Path) {
        match read_end(path) {
            Ok(text) => self.files.push((name.to_owned(), text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => self.lost.push((name.to_owned(), error.to_string())),
        }
    }
}

impl Platform for Local {
    fn repository(&self) -> &Repository {
        &self.repository
    }

    fn has_application(&self) -> bool {
        self.with_application
    }

    fn primary(&self) -> Address {
        address(&self.primary, &self.database)
    }

    fn process(&self) -> Option<u32> {
        self.reconciler.application().map(|application| application.pid())
    }

    fn apply<'a>(&'a mut self, commit: &'a CommitId) -> Answer<'a, Reconciled> {
        Box::pin(async move {
            self.reconciler.reconcile(commit).await.map_err(|error| match error {
                ReconcileError::Migration { .. } => Failure::because(ReasonCode::ChangeNotApplied, chain(&error)),
                other => Failure::platform(&other),
            })
        })
    }

    fn observe(&mut self) -> Answer<'_, Observation> {
        Box::pin(async move {
            match self.reconciler.application() {
                Some(application) => Ok(application.observe().await),
                None => Err(Failure::order("no application runs on this platform")),
            }
        })
    }

    fn start_traffic(&mut self) -> Answer<'_, Traffic> {
        Box::pin(async move {
            let application = self.reconciler.application();
            application.map(Traffic::start).ok_or_else(|| Failure::order("no application runs on this platform"))
        })
    }

    fn take_backup<'a>(&'a mut self, label: &'a str) -> Answer<'a, BaseBackup> {
        Box::pin(async move {
            let path = self.dir.join("backups").join(label);
            let taken = base_backup(&self.primary, &self.account, &self.programs, &path, label, BACKUP_LIMIT).await;
            let taken = taken.map_err(|error| {
                if error.timed_out() { Failure::because(ReasonCode::BackupNotCompleted, error) } else { Failure::platform(&error) }
            })?;
            self.backups.insert(taken.id.clone(), path);
            Ok(taken)
        })
    }

    fn whole(&self) -> &'static str {
        "every file as its manifest says"
    }

    fn verify<'a>(&'a self, backup: &'a BaseBackup) -> Answer<'a, Verification> {
        Box::pin(async move {
            let path = self.backup_dir(backup)?;
            verify(&self.programs, &self.account, path, VERIFY_LIMIT).await.map_err(|e| Failure::platform(&e))
        })
    }

    fn loss<'a>(&'a self, point: &'a RecoveryPoint, to: Lsn) -> LocalBoxFuture<'a, Option<Lost>> {
        // WAL that cannot be read here cannot be replayed either; the plan and the restore name the segment.
        Box::pin(async move { lost_commits(&self.programs, &self.account, &self.archive, point, to, COUNT_LIMIT).await.ok() })
    }

    fn archive(&self, last_commit: (Timestamp, Lsn)) -> Answer<'_, ArchiveFacts> {
        Box::pin(async move { self.archive.facts(Some(last_commit)).map_err(|e| Failure::platform(&e)) })
    }

    fn recover<'a>(&'a mut self, order: RecoveryOrder<'a>) -> LocalBoxFuture<'a, Recovery> {
        Box::pin(self.recover(order))
    }

    fn promote(&mut self) -> LocalBoxFuture<'_, Result<Promoted, RecoveryFailure>> {
        Box::pin(self.promote())
    }

    fn suspend(&mut self) -> Answer<'_, ()> {
        self.reconciler.suspend();
        Box::pin(async { Ok(()) })
    }

    fn harm_segment<'a>(&'a mut self, harm: Harm, segment: &'a str, at: u64) -> Answer<'a, ()> {
        Box::pin(async move { faults::apply(harm, &self.archive.dir().join(segment), at).map_err(|e| Failure::platform(&e)) })
    }

    fn harm_backup<'a>(&'a mut self, harm: Harm, backup: &'a BaseBackup) -> Answer<'a, String> {
        Box::pin(async move {
            let path = self.backup_dir(backup)?;
            let file = faults::largest(&path.join("base")).map_err(|e| Failure::platform(&e))?;
            let Some(file) = file else { return Err(Failure::order("the backup holds no file to harm")) };
            faults::apply(harm, &file, 4096 + 100).map_err(|e| Failure::platform(&e))?;
            Ok(file.strip_prefix(path).unwrap_or(&file).display().to_string())
        })
    }

    fn end(self: Box<Self>, keep: bool) -> LocalBoxFuture<'static, Ended> {
        Box::pin((*self).end(keep))
    }
}

/// Why a restore ended before its target.
fn failed(error: &RestoreError) -> RecoveryFailure {
    let text = chain(error);
    let check = match error {
        RestoreError::BackupDamaged { .. } => Some((CheckId::BackupIntact, "every file as its manifest says")),
        RestoreError::Segment { fault: SegmentFault::Missing { .. }, .. } => None,
        RestoreError::Segment { .. } => Some((CheckId::WalIntact, "every record passes its checksum")),
        _ => None,
    };
    let code = match error {
        RestoreError::BackupDamaged { .. } => Some(ReasonCode::BackupDamaged),
        RestoreError::Segment { fault: SegmentFault::Missing { .. }, .. } => Some(ReasonCode::WalMissing),
        RestoreError::Segment { .. } => Some(ReasonCode::WalDamaged),
        RestoreError::TargetNotReached { .. } => Some(ReasonCode::TargetNotReached),
        RestoreError::SettingsBroken { .. } => Some(ReasonCode::SettingsBroken),
        RestoreError::DiskFull { .. } => Some(ReasonCode::DiskFull),
        RestoreError::TimedOut { .. } => Some(ReasonCode::DeadlineExceeded),
        _ => None,
    };
    RecoveryFailure {
        check: check.map(|(id, expected)| Check::observed(id, false, expected, text.clone())),
        failure: code.map_or_else(|| Failure::platform(error), |code| Failure::because(code, text)),
        log: crate::workflow::restore::log_of(error).map(str::to_owned),
    }
}

/// Gives the empty database that initdb made its name. A new one would be 300 more files, and every backup and every copy would carry them.
async fn name_database(at: &Address, name: &str) -> Result<(), Failure> {
    let mut connection = crate::database::connect(at).await.map_err(|e| Failure::platform(&e))?;
    let statement = format!("ALTER DATABASE postgres RENAME TO \"{}\"", name.replace('"', "\"\""));
    sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(&mut connection).await.map_err(|e| Failure::platform(&e))?;
    Ok(())
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
