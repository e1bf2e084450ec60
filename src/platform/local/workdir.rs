//! The directory that holds everything a local drill creates, locked so that one drill at a time uses it.
//!
//! It knows nothing about what is put into it.

use super::{Account, AccountError};
use crate::wait::{Poll, Wait, WaitError};
use serde::{Deserialize, Serialize};
use std::fs::{File, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The file that says which drill a directory belongs to; a directory without it is not ours.
pub(super) const OWNER_FILE: &str = "turnback-owner.json";
/// The file that lists the processes that a drill started, one JSON object a line.
pub(super) const PROCESSES_FILE: &str = "turnback-processes.jsonl";
/// The file whose lock says that a drill runs.
pub(super) const LOCK_FILE: &str = "turnback.lock";

/// How long an interrupted copy may take to end.
const REMOVE_LIMIT: Duration = Duration::from_secs(15);

/// Who holds a work directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The id of the run.
    pub run: String,
    /// Its process.
    pub pid: u32,
    /// When that process started, in clock ticks since boot: with the id it names one process only.
    pub start_ticks: Option<u64>,
    /// When the directory was made, UTC.
    pub created: jiff::Timestamp,
}

/// A process that a drill started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Process {
    pub pid: u32,
    pub start_ticks: u64,
    pub executable: PathBuf,
}

/// The directory of one drill, locked while this value lives.
#[derive(Debug)]
pub struct WorkDir {
    root: PathBuf,
    run: PathBuf,
    _lock: Lock,
}

/// Why a work directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum WorkDirError {
    /// Another drill uses it.
    #[error(
        "another drill uses {root}: run {run} (process {pid}, since {since}); wait until it has ended, end it, or name another directory with --work"
    )]
    Busy {
        /// The root.
        root: PathBuf,
        /// The other run.
        run: String,
        /// Its process.
        pid: u32,
        /// Since when, UTC.
        since: String,
    },
    /// The root belongs to someone else.
    #[error("{root} is not a directory of the current user: {found}; remove it or name another directory with --work")]
    NotOurs {
        /// The root.
        root: PathBuf,
        /// What it is instead.
        found: String,
    },
    /// There is too little space.
    #[error("{root} has {free_mb} MB free, and the drill needs {needed_mb} MB: make room or name another directory with --work")]
    NoSpace {
        /// The root.
        root: PathBuf,
        /// What is free, in MB.
        free_mb: u64,
        /// What is needed, in MB.
        needed_mb: u64,
    },
    /// The servers' account cannot get there.
    #[error(transparent)]
    Account(#[from] AccountError),
    /// A file or directory could not be used.
    #[error("{operation} {path}: {source}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// With what.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
}

pub(super) fn io(operation: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> WorkDirError + use<> {
    let path = path.to_owned();
    move |source| WorkDirError::Io { operation, path, source }
}

/// The usual root: `turnback-<uid>` in the directory for temporary files.
#[must_use]
pub fn default_root() -> PathBuf {
    std::env::temp_dir().join(format!("turnback-{}", rustix::process::geteuid().as_raw()))
}

impl WorkDir {
    /// Locks the root (made where it is missing) and makes a directory for this run in it.
    ///
    /// # Errors
    /// [`WorkDirError::Busy`] naming the drill that holds it; the others say what to choose instead.
    pub fn open(root: &Path, run: &str, account: &Account, needed_bytes: u64) -> Result<Self, WorkDirError> {
        make_root(root)?;
        account.reach(root)?;
        let free = free_bytes(root)?;
        if free < needed_bytes {
            return Err(WorkDirError::NoSpace { root: root.to_owned(), free_mb: free >> 20, needed_mb: needed_bytes.div_ceil(1 << 20) });
        }
        let owner = Owner {
            run: run.to_owned(),
            pid: std::process::id(),
            start_ticks: start_ticks(std::process::id()),
            created: crate::clock::now(),
        };
        let lock = Lock::take(root, &owner)?;
        // A UUID v7 ends in its random part; the short name keeps the paths of sockets short.
        let short: String = run.chars().rev().filter(char::is_ascii_alphanumeric).take(8).collect();
        let dir = root.join(format!("r{short}"));
        std::fs::create_dir(&dir).map_err(io("create", &dir))?;
        std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o755)).map_err(io("open up", &dir))?;
        let marker = dir.join(OWNER_FILE);
        let text = serde_json::to_vec_pretty(&owner).map_err(|error| io("write", &marker)(error.into()))?;
        std::fs::write(&marker, text).map_err(io("write", &marker))?;
        Ok(Self { root: root.to_owned(), run: dir, _lock: lock })
    }

    /// The directory of this run.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.run
    }

    /// The root that holds the directories of all runs.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where servers put their sockets: a short path.
    #[must_use]
    pub fn sockets(&self) -> PathBuf {
        self.run.join("s")
    }

    /// Records a process of this run, so that `turnback clean` can end it should we be killed. PostgreSQL's servers need no record: their data
    /// directories name them.
    ///
    /// # Errors
    /// [`WorkDirError::Io`] where it has ended already or cannot be recorded.
    pub fn record_process(&self, pid: u32) -> Result<(), WorkDirError> {
        let path = self.run.join(PROCESSES_FILE);
        let exe = PathBuf::from(format!("/proc/{pid}/exe"));
        let executable = std::fs::read_link(&exe).map_err(io("look at", &exe))?;
        let start_ticks = start_ticks(pid).ok_or_else(|| io("look at", &exe)(std::io::ErrorKind::NotFound.into()))?;
        let line = serde_json::to_string(&Process { pid, start_ticks, executable }).map_err(|error| io("write", &path)(error.into()))?;
        let mut file = File::options().append(true).create(true).open(&path).map_err(io("open", &path))?;
        file.write_all(format!("{line}\n").as_bytes()).map_err(io("write", &path))
    }

    /// Ends what still runs of this run, such as a server whose start was interrupted.
    ///
    /// # Errors
    /// What could not be ended, in words.
    pub async fn end_processes(&self) -> Result<(), Vec<String>> {
        let (_, left) = super::workdir_clean::end_all(&self.run).await;
        if left.is_empty() { Ok(()) } else { Err(left) }
    }

    /// Removes the directory of this run, once its processes have been told to end.
    ///
    /// # Errors
    /// [`WorkDirError::Io`] naming what cannot be removed.
    pub async fn remove(self) -> Result<(), WorkDirError> {
        remove_tree(&self.run).await.map_err(io("remove", &self.run))
    }
}

/// Removes a directory with all it holds, while something that was told to end may still be finishing a file in it.
pub(super) async fn remove_tree(dir: &Path) -> std::io::Result<()> {
    use std::io::ErrorKind::{DirectoryNotEmpty, NotFound};
    let wait = Wait::new(format!("{} is removed", dir.display()), REMOVE_LIMIT);
    let removed = wait
        .until(async || match std::fs::remove_dir_all(dir) {
            Ok(()) => Ok(Poll::Ready(())),
            Err(_) if !dir.exists() => Ok(Poll::Ready(())),
            Err(error) if matches!(error.kind(), DirectoryNotEmpty | NotFound) => Ok(Poll::NotYet(error.to_string())),
            Err(error) => Err(error),
        })
        .await;
    removed.map_err(|error| match error {
        WaitError::Failed { source, .. } => source,
        timed_out @ WaitError::TimedOut { .. } => std::io::Error::other(timed_out.to_string()),
    })
}

fn make_root(root: &Path) -> Result<(), WorkDirError> {
    match std::fs::symlink_metadata(root) {
        Ok(meta) => check_root(root, &meta),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            std::fs::create_dir_all(root).map_err(io("create", root))?;
            std::fs::set_permissions(root, std::fs::Permissions::from_mode(0o755)).map_err(io("open up", root))
        }
        Err(error) => Err(io("look at", root)(error)),
    }
}

/// In a directory that anyone may write to, someone else could have been there first.
pub(super) fn check_root(root: &Path, meta: &std::fs::Metadata) -> Result<(), WorkDirError> {
    let found = if meta.is_symlink() {
        "it is a symbolic link".to_owned()
    } else if !meta.is_dir() {
        "it is a file".to_owned()
    } else if meta.uid() != rustix::process::geteuid().as_raw() {
        format!("it belongs to uid {}", meta.uid())
    } else {
        return Ok(());
    };
    Err(WorkDirError::NotOurs { root: root.to_owned(), found })
}

/// Free space for ordinary users, in bytes.
///
/// # Errors
/// [`WorkDirError::Io`].
pub fn free_bytes(path: &Path) -> Result<u64, WorkDirError> {
    let stat = rustix::fs::statvfs(path).map_err(|error| io("measure", path)(error.into()))?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// When a process started, in clock ticks since boot.
pub(super) fn start_ticks(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything; what follows its last parenthesis are fields 3 and on, and the start is field 22.
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

/// The held lock of a root.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock and writes into it who has it.
    pub(super) fn take(root: &Path, owner: &Owner) -> Result<Self, WorkDirError> {
        let path = root.join(LOCK_FILE);
        loop {
            let mut file = File::options().read(true).write(true).create(true).truncate(false).open(&path).map_err(io("open", &path))?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    let mut text = String::new();
                    file.read_to_string(&mut text).map_err(io("read", &path))?;
                    let holder: Option<Owner> = serde_json::from_str(&text).ok();
                    return Err(WorkDirError::Busy {
                        root: root.to_owned(),
                        run: holder.as_ref().map_or_else(|| "unknown".to_owned(), |owner| owner.run.clone()),
                        pid: holder.as_ref().map_or(0, |owner| owner.pid),
                        since: holder.map_or_else(|| "unknown".to_owned(), |owner| owner.created.to_string()),
                    });
                }
                Err(TryLockError::Error(error)) => return Err(io("lock", &path)(error)),
            }
            // `clean` removes the file while it holds the lock; a lock on a file that has lost its name guards nothing.
            let ours = file.metadata().map_err(io("look at", &path))?.ino();
            if std::fs::metadata(&path).is_ok_and(|named| named.ino() == ours) {
                let text = serde_json::to_vec(owner).map_err(|error| io("write", &path)(error.into()))?;
                file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(&text)).map_err(io("write", &path))?;
                return Ok(Self { _file: file });
            }
        }
    }
}
