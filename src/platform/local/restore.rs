//! Point-in-time recovery onto a new server: copy the base backup, replay archived WAL up to the target, pause there, prove, promote.
//!
//! It writes only into the new server's directory. Which backup and which target is decided before, in `turnback_core::recovery::plan`.

use super::restore_error::{Ending, ending, last_completed, last_position};
use super::server::{MAINTENANCE, SUPERUSER, append, render_settings};
use super::{Account, Archive, Programs, RestoreError, Server, ServerError, ServerOptions};
use crate::recovery::{ObserveError, Watch};
use crate::wait::{Poll, Wait, WaitError};
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use turnback_core::evidence::Reached;
use turnback_core::recovery::{RecoveryPoint, RestorePlan, Target, pg_time};

/// How many files are copied at a time.
const COPIERS: usize = 2;
/// How long a promotion may take.
const PROMOTION_LIMIT: Duration = Duration::from_secs(60);
/// How long looking for the bad segment may take, after a restore has failed.
const DIAGNOSIS_LIMIT: Duration = Duration::from_secs(60);

/// Files of a backup that a restored server must not have: its own WAL (replay reads the archive's, and a second copy would only hide what that
/// lacks), the manifest, and what would make it a standby or look as if it ran.
const LEFT_OUT: [&str; 5] = ["pg_wal", "backup_manifest", "standby.signal", "postmaster.pid", "postmaster.opts"];

/// Which role and database the restored server is asked through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// A superuser in the backup.
    pub user: String,
    /// A database in it.
    pub database: String,
}

impl Default for Login {
    fn default() -> Self {
        Self { user: SUPERUSER.to_owned(), database: MAINTENANCE.to_owned() }
    }
}

/// A restore, with nothing left to decide.
#[derive(Clone, Debug)]
pub struct RestoreRequest<'a> {
    /// PostgreSQL's programs.
    pub programs: &'a Programs,
    /// As whom the server runs.
    pub account: &'a Account,
    /// The backup, the target and the WAL needed.
    pub plan: &'a RestorePlan,
    /// Where the backup's files lie.
    pub backup_dir: &'a Path,
    /// The archive to replay from.
    pub archive: &'a Archive,
    /// The new server's directory; must not exist yet.
    pub dir: &'a Path,
    /// Where the new server listens, and settings that differ from the backup's.
    pub options: ServerOptions,
    /// An archive of its own, where the restored server shall archive; never the source's.
    pub archive_to: Option<&'a Archive>,
    /// How to connect to it.
    pub login: Login,
    /// How long replay may take.
    pub limit: Duration,
}

/// A server that has paused at its target, up for reading only.
pub struct Paused {
    server: Server,
    watch: Watch,
    /// How long copying the backup took.
    pub files: Duration,
    /// How long replay took, from the start of the server to the pause.
    pub replay: Duration,
}

/// A restored server that is a primary.
pub struct Promoted {
    /// It.
    pub server: Server,
    /// Its new timeline.
    pub timeline: u32,
    /// Its system identifier: the source's.
    pub system_identifier: String,
    /// How long the promotion took.
    pub promotion: Duration,
}

/// Restores up to the pause at the target.
///
/// # Errors
/// [`RestoreError`], telling apart an unreachable target, a missing, truncated or damaged segment, a damaged backup, broken settings, a full
/// disk and a deadline. The server has ended by then; its directory is left for a look at its log.
pub async fn restore(request: RestoreRequest<'_>) -> Result<Paused, RestoreError> {
    let begun = Instant::now();
    let mut server = Server::in_dir(request.programs, request.account, request.dir, request.options.clone())?;
    server.connect_as(&request.login.user);
    request.account.make_dir(request.dir, 0o755).map_err(ServerError::from)?;
    request.account.reach(request.dir).map_err(ServerError::from)?;
    copy_backup(request.backup_dir, server.data_dir(), request.account).await?;
    let signal = server.data_dir().join("recovery.signal");
    let (conf, auto) = (server.data_dir().join("postgresql.conf"), server.data_dir().join("postgresql.auto.conf"));
    forget_targets(&auto)?;
    append(&signal, "")?;
    // Where the configuration is kept outside the data directory, a backup has none, and PostgreSQL wants at least an empty one.
    append(&conf, "")?;
    append(&auto, &render_settings(&settings(&request, &server)))?;
    for path in [&signal, &conf, &auto] {
        request.account.own(path).map_err(|source| RestoreError::io("hand over", path.clone(), source))?;
    }
    let files = begun.elapsed();

    let begun = Instant::now();
    server.spawn()?;
    let mut watch = Watch::new(server.connect_options(&request.login.database));
    let wait = Wait::new(format!("replay pauses at the target ({})", request.plan.target), request.limit).every(Duration::from_millis(5));
    let paused = wait
        .until(async || {
            server.alive()?;
            if let Some(line) = server.log_since_start().lines().find(|line| line.contains("insufficient parameter settings")) {
                return Err(ServerError::Ended { dir: server.data_dir().to_owned(), line: line.to_owned(), log: server.log_tail(40) });
            }
            let status = server.postmaster_status();
            if status.as_deref() != Some("ready") {
                return Ok(Poll::NotYet(format!("postmaster.pid says “{}”", status.unwrap_or_default())));
            }
            Ok(match watch.status().await {
                Ok(replay) if replay.pause_state.as_deref() == Some("paused") => Poll::Ready(Ok(())),
                Ok(replay) => {
                    Poll::NotYet(format!("replay at {}", replay.lsn.map_or_else(|| "the start".to_owned(), |lsn| lsn.to_string())))
                }
                Err(error) if error.is_refusal() => Poll::Ready(Err(error)),
                // The server may end between the look at its process and the question; the next look sees that.
                Err(error) => Poll::NotYet(error.to_string()),
            })
        })
        .await;
    match paused {
        Ok(Ok(())) => Ok(Paused { server, watch, files, replay: begun.elapsed() }),
        Ok(Err(refused)) => {
            server.stop(super::Shutdown::Immediate).await?;
            Err(RestoreError::Observe(refused))
        }
        Err(error) => {
            let timed_out = matches!(error, WaitError::TimedOut { .. });
            let error = server.wait_error(error);
            server.stop(super::Shutdown::Immediate).await?;
            if timed_out && let ServerError::TimedOut { wait, line } = error {
                return Err(RestoreError::TimedOut { wait, line });
            }
            Err(explain(&request, &server).await)
        }
    }
}

/// Says why the server ended, from its log and the archive.
async fn explain(request: &RestoreRequest<'_>, server: &Server) -> RestoreError {
    let (log, shown) = (server.log_since_start(), server.log_tail(40));
    match ending(&log) {
        Ending::Settings(line) => RestoreError::SettingsBroken { line, log: shown },
        Ending::DiskFull(detail) => RestoreError::DiskFull { detail },
        Ending::Backup(detail) => RestoreError::BackupDamaged { file: quoted(&detail), detail },
        Ending::Other(line) => RestoreError::Ended { line, log: shown },
        Ending::WalRanOut => {
            let backup = &request.plan.backup;
            // Replay got at least this far, so whatever is wrong lies from here on.
            let from = last_position(&log).unwrap_or(backup.begin_lsn).max(backup.begin_lsn);
            let target = request.plan.target.to_string();
            let check = request.archive.check(request.programs, request.account, backup.timeline, from, None, DIAGNOSIS_LIMIT);
            match check.await {
                Ok(Some(fault)) => RestoreError::Segment { target, fault, log: shown },
                Ok(None) => RestoreError::TargetNotReached { target, last_completed: last_completed(&log), log: shown },
                Err(error) => RestoreError::Archive(error),
            }
        }
    }
}

fn quoted(line: &str) -> Option<String> {
    line.split('"').nth(1).map(str::to_owned)
}

fn settings(request: &RestoreRequest<'_>, server: &Server) -> Vec<(String, String)> {
    let own = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let mut settings = server.place();
    settings.extend([
        own("restore_command", &request.archive.restore_command()),
        own("recovery_target_timeline", "latest"),
        own("recovery_target_action", "pause"),
        own("recovery_target_inclusive", if request.plan.target.inclusive { "on" } else { "off" }),
        own("hot_standby", "on"),
        own("primary_conninfo", ""),
    ]);
    settings.push(match &request.plan.target.target {
        Target::Time(time) => own("recovery_target_time", &pg_time(*time)),
        Target::Lsn(lsn) => own("recovery_target_lsn", &lsn.to_string()),
        Target::Xid(xid) => own("recovery_target_xid", &xid.to_string()),
        Target::Name(name) => own("recovery_target_name", name),
        Target::Immediate => own("recovery_target", "immediate"),
    });
    match request.archive_to {
        Some(archive) => settings.extend([own("archive_mode", "on"), own("archive_command", &archive.archive_command())]),
        None => settings.extend([own("archive_mode", "off"), own("archive_command", "")]),
    }
    settings.extend(request.options.settings.clone());
    settings
}

/// A backup of a server that was itself restored brings that restore's target along, and PostgreSQL takes only one.
fn forget_targets(auto: &Path) -> Result<(), RestoreError> {
    let text = match std::fs::read_to_string(auto) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(RestoreError::io("read", auto.to_owned(), error)),
    };
    let kept: String = text.split_inclusive('\n').filter(|line| !line.trim_start().starts_with("recovery_target")).collect();
    if kept == text { Ok(()) } else { std::fs::write(auto, kept).map_err(|error| RestoreError::io("write", auto.to_owned(), error)) }
}

/// Tells the copiers to stop when nobody waits for them any longer.
struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

async fn copy_backup(from: &Path, to: &Path, account: &Account) -> Result<(), RestoreError> {
    let (from, to, account) = (from.to_owned(), to.to_owned(), account.clone());
    let guard = StopOnDrop(Arc::default());
    let stop = Arc::clone(&guard.0);
    let copied = tokio::task::spawn_blocking(move || copy_tree(&from, &to, &account, &stop)).await;
    copied.unwrap_or_else(|join| Err(RestoreError::io("copy", PathBuf::from("the base backup"), std::io::Error::other(join))))
}

fn copy_tree(from: &Path, to: &Path, account: &Account, stop: &AtomicBool) -> Result<(), RestoreError> {
    if to.exists() {
        return Err(RestoreError::io("create", to.to_owned(), std::io::ErrorKind::AlreadyExists.into()));
    }
    let mut files = VecDeque::new();
    let mut directories = vec![PathBuf::new()];
    while !stop.load(Ordering::Relaxed)
        && let Some(directory) = directories.pop()
    {
        let target = to.join(&directory);
        account.make_dir(&target, 0o700).map_err(ServerError::from)?;
        let source = from.join(&directory);
        let entries = std::fs::read_dir(&source).map_err(|error| RestoreError::io("read", source.clone(), error))?;
        for entry in entries {
            let entry = entry.map_err(|error| RestoreError::io("read", source.clone(), error))?;
            let kind = entry.file_type().map_err(|error| RestoreError::io("look at", entry.path(), error))?;
            let path = directory.join(entry.file_name());
            if kind.is_dir() {
                directories.push(path);
            } else if kind.is_file() {
                if !LEFT_OUT.iter().any(|name| path.starts_with(name)) {
                    files.push_back(path);
                }
            } else {
                let cause = "it is neither file nor directory; tablespaces outside the data directory are not supported here";
                return Err(RestoreError::io("copy", entry.path(), std::io::Error::other(cause)));
            }
        }
    }
    let files = Mutex::new(files);
    let copy = || loop {
        if stop.load(Ordering::Relaxed) {
            return Err(RestoreError::io("copy", from.to_owned(), std::io::ErrorKind::Interrupted.into()));
        }
        // A poisoned queue means that the other copier panicked; what is left is still right.
        let Some(path) = files.lock().unwrap_or_else(std::sync::PoisonError::into_inner).pop_front() else { return Ok(()) };
        let target = to.join(&path);
        std::fs::copy(from.join(&path), &target)
            .and_then(|_| writable(&target))
            .and_then(|()| account.own(&target))
            .map_err(|error| RestoreError::io("copy to", target, error))?;
    };
    std::thread::scope(|scope| {
        let copiers: Vec<_> = (0..COPIERS).map(|_| scope.spawn(copy)).collect();
        copiers.into_iter().try_for_each(|copier| {
            copier
                .join()
                .unwrap_or_else(|_| Err(RestoreError::io("copy", from.to_owned(), std::io::Error::other("the copying thread panicked"))))
        })
    })
}

/// A backup may be kept read-only; a server needs to write.
fn writable(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(path)?.permissions().mode();
    if mode & 0o600 == 0o600 { Ok(()) } else { std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)) }
}

impl Paused {
    /// The server, up for reading.
    #[must_use]
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// Holds where replay stopped against a recovery point.
    ///
    /// # Errors
    /// [`ObserveError`] where the server cannot be asked.
    pub async fn prove(&mut self, point: &RecoveryPoint) -> Result<Reached, ObserveError> {
        self.watch.prove(point).await
    }

    /// Where replay stopped, where there is no recovery point to hold it against.
    ///
    /// # Errors
    /// [`ObserveError`] where the server cannot be asked.
    pub async fn reached(&mut self) -> Result<Reached, ObserveError> {
        self.watch.reached().await
    }

    /// PostgreSQL's own line about why replay stopped: “recovery stopping before commit of transaction 743, …”.
    #[must_use]
    pub fn stopping_line(&self) -> Option<String> {
        let log = self.server.log_since_start();
        let line = log.lines().rfind(|line| line.contains("recovery stopping"))?;
        Some(line.split_once("LOG:").map_or(line, |(_, text)| text).trim().to_owned())
    }

    /// Ends recovery here. Resuming from a pause at the target is what promotes, at once; `pg_promote` would let the paused process sleep out its
    /// second first.
    ///
    /// # Errors
    /// [`RestoreError`].
    pub async fn promote(self) -> Result<Promoted, RestoreError> {
        let begun = Instant::now();
        let (server, mut watch) = (self.server, self.watch);
        watch.end_recovery().await?;
        let wait = Wait::new(format!("the server in {} is promoted", server.data_dir().display()), PROMOTION_LIMIT)
            .every(Duration::from_millis(5));
        let promoted = wait
            .until(async || {
                server.alive()?;
                Ok(match watch.status().await {
                    Ok(status) if !status.in_recovery => Poll::Ready(()),
                    Ok(status) => Poll::NotYet(format!("still in recovery, {}", status.pause_state.unwrap_or_default())),
                    Err(error) => Poll::NotYet(error.to_string()),
                })
            })
            .await;
        promoted.map_err(|error| server.wait_error(error))?;
        let position = watch.position().await?;
        let timeline = position.timeline.unwrap_or_default();
        Ok(Promoted { server, timeline, system_identifier: position.system_identifier, promotion: begun.elapsed() })
    }

    /// Stops the server without promoting it.
    ///
    /// # Errors
    /// [`ServerError`] where it goes on running.
    pub async fn stop(&mut self) -> Result<(), ServerError> {
        self.server.stop(super::Shutdown::Immediate).await
    }
}
