//! Removing what interrupted drills left: their processes, where each can be proven to be theirs, and their directories.
//!
//! Only directories that carry our marker are touched, nothing is followed out of them, and a second call finds nothing to do.

use super::programs::NEEDED;
use super::workdir::{LOCK_FILE, Lock, OWNER_FILE, Owner, PROCESSES_FILE, Process, WorkDirError, check_root, io, remove_tree, start_ticks};
use crate::wait::{Poll, Wait, WaitError};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a process may take to end after it was told to.
const END_LIMIT: Duration = Duration::from_secs(15);
/// How long a lock may outlive the process that took it.
const LOCK_LIMIT: Duration = Duration::from_secs(5);
/// How deep data directories lie below the directory of a run.
const DEPTH: usize = 4;

/// What cleaning did.
#[derive(serde::Serialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct CleanReport {
    /// What was ended or removed.
    pub removed: Vec<String>,
    /// What is ours and could not be removed, with the cause.
    pub left: Vec<String>,
    /// What is not ours and was not touched.
    pub untouched: Vec<PathBuf>,
}

/// The directories below a root that carry our marker, with whose they are.
///
/// # Errors
/// [`WorkDirError`] where the root cannot be read; a root that does not exist holds none.
pub fn leftovers(root: &Path) -> Result<Vec<(PathBuf, Owner)>, WorkDirError> {
    Ok(sort(root)?.0)
}

type Sorted = (Vec<(PathBuf, Owner)>, Vec<PathBuf>);

fn sort(root: &Path) -> Result<Sorted, WorkDirError> {
    let (mut ours, mut foreign) = (Vec::new(), Vec::new());
    let entries = match std::fs::read_dir(root) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok((ours, foreign)),
        Err(error) => return Err(io("read", root)(error)),
    };
    for entry in entries {
        let path = entry.map_err(io("read", root))?.path();
        if path == root.join(LOCK_FILE) {
            continue;
        }
        match owner(&path) {
            Some(owner) => ours.push((path, owner)),
            None => foreign.push(path),
        }
    }
    ours.sort_by(|a, b| a.0.cmp(&b.0));
    foreign.sort();
    Ok((ours, foreign))
}

/// Whose directory this is: a real directory with a real marker file that reads as one.
fn owner(dir: &Path) -> Option<Owner> {
    let real = |path: &Path, is: fn(&std::fs::FileType) -> bool| std::fs::symlink_metadata(path).is_ok_and(|meta| is(&meta.file_type()));
    let marker = dir.join(OWNER_FILE);
    if !real(dir, std::fs::FileType::is_dir) || !real(&marker, std::fs::FileType::is_file) {
        return None;
    }
    serde_json::from_slice(&std::fs::read(&marker).ok()?).ok()
}

/// Ends what interrupted drills left running and removes their directories. What a run made outside its directory is left to `elsewhere`, which
/// is told the directory and the run and says what it removed, or why it could not; then the directory stays, because it names what is left.
///
/// # Errors
/// [`WorkDirError::Busy`] where a drill still runs there, [`WorkDirError`] where the root cannot be used at all.
pub async fn clean(
    root: &Path,
    elsewhere: impl AsyncFn(&Path, &str) -> Result<Option<String>, String>,
) -> Result<CleanReport, WorkDirError> {
    let mut report = CleanReport::default();
    match std::fs::symlink_metadata(root) {
        Ok(meta) => check_root(root, &meta)?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(report),
        Err(error) => return Err(io("look at", root)(error)),
    }
    let us = Owner {
        run: "turnback clean".to_owned(),
        pid: std::process::id(),
        start_ticks: start_ticks(std::process::id()),
        created: crate::clock::now(),
    };
    let lock = take_lock(root, &us).await?;
    let (ours, foreign) = sort(root)?;
    report.untouched = foreign;
    for (dir, owner) in ours {
        let (ended, left) = end_all(&dir).await;
        let running = !left.is_empty();
        report.removed.extend(ended);
        report.left.extend(left);
        if running {
            report.left.push(format!("{} (run {}): its processes still run", dir.display(), owner.run));
            continue;
        }
        match elsewhere(&dir, &owner.run).await {
            Ok(removed) => report.removed.extend(removed),
            Err(problem) => {
                report.left.push(format!("{} (run {}): {problem}", dir.display(), owner.run));
                continue;
            }
        }
        match remove_tree(&dir).await {
            Ok(()) => report.removed.push(format!("{} (run {})", dir.display(), owner.run)),
            Err(error) => report.left.push(format!("{} (run {}): {error}", dir.display(), owner.run)),
        }
    }
    // The lock goes last and while it is held; the root goes only when it is empty, so a failure to remove it is right.
    if report.left.is_empty() && report.untouched.is_empty() {
        let path = root.join(LOCK_FILE);
        std::fs::remove_file(&path).map_err(io("remove", &path))?;
        let _not_empty = std::fs::remove_dir(root);
    }
    drop(lock);
    Ok(report)
}

/// Takes the lock. A killed drill's lock lives on for a moment in a child that was just being started; a drill that runs keeps it.
async fn take_lock(root: &Path, us: &Owner) -> Result<Lock, WorkDirError> {
    let wait = Wait::new(format!("the lock of {} is free", root.display()), LOCK_LIMIT);
    let taken = wait
        .until(async || match Lock::take(root, us) {
            Ok(lock) => Ok(Poll::Ready(lock)),
            Err(WorkDirError::Busy { pid, .. }) if pid != 0 && start_ticks(pid).is_none() => {
                Ok(Poll::NotYet(format!("process {pid} has ended, one that it was starting has not")))
            }
            Err(error) => Err(error),
        })
        .await;
    match taken {
        Ok(lock) => Ok(lock),
        Err(WaitError::Failed { source, .. }) => Err(source),
        Err(WaitError::TimedOut { .. }) => Lock::take(root, us),
    }
}

/// Ends everything that belongs to a run's directory; returns what was ended and what could not be.
pub(super) async fn end_all(dir: &Path) -> (Vec<String>, Vec<String>) {
    let (mut ended, mut left) = (Vec::new(), Vec::new());
    // Ending a server ends its children as well: the second look finds only what belongs to none.
    for look in [processes, working_in] {
        for (pid, signal) in look(dir) {
            match end(pid, signal, dir).await {
                Ok(what) => ended.push(what),
                Err(error) => left.push(error),
            }
        }
    }
    (ended, left)
}

/// The processes that provably belong to a run's directory: recorded ones that are still the same process, and PostgreSQL servers whose
/// working directory is a data directory in it. Each with the signal that ends it: PostgreSQL's immediate shutdown ends its children too.
fn processes(dir: &Path) -> Vec<(u32, Signal)> {
    let recorded = std::fs::read_to_string(dir.join(PROCESSES_FILE)).unwrap_or_default();
    let recorded = recorded.lines().filter_map(|line| serde_json::from_str::<Process>(line).ok());
    let mut pids: Vec<_> = recorded.filter(same_process).map(|process| (process.pid, Signal::TERM)).collect();
    pids.extend(data_dirs(dir, DEPTH).iter().filter_map(|data| postmaster(data)).map(|pid| (pid, Signal::QUIT)));
    pids
}

/// Programs of a drill that were not recorded, because the drill was killed between starting and recording them, or never are, because they
/// end by themselves (`initdb`, `pg_basebackup`, the migrator). Someone's shell in the directory is none of them.
fn working_in(dir: &Path) -> Vec<(u32, Signal)> {
    let ours = std::env::current_exe().ok();
    let real = std::fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned());
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()).filter(|pid| *pid != std::process::id());
    pids.filter(|pid| {
        let Ok(executable) = std::fs::read_link(format!("/proc/{pid}/exe")) else { return false };
        let name = executable.file_name().and_then(std::ffi::OsStr::to_str).unwrap_or_default().trim_end_matches(" (deleted)").to_owned();
        let started_by_drills = NEEDED.contains(&name.as_str()) || name == "orders" || Some(&executable) == ours.as_ref();
        started_by_drills && (works_in(*pid, &real) || told_of(*pid, dir))
    })
    .map(|pid| (pid, Signal::TERM))
    .collect()
}

fn works_in(pid: u32, dir: &Path) -> bool {
    std::fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(dir))
}

fn told_of(pid: u32, dir: &Path) -> bool {
    let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    arguments.split(|byte| *byte == 0).any(|argument| Path::new(std::ffi::OsStr::from_bytes(argument)).starts_with(dir))
}

fn same_process(process: &Process) -> bool {
    let executable = std::fs::read_link(format!("/proc/{}/exe", process.pid)).ok();
    start_ticks(process.pid) == Some(process.start_ticks) && executable.as_ref() == Some(&process.executable)
}

fn postmaster(data: &Path) -> Option<u32> {
    let text = std::fs::read_to_string(data.join("postmaster.pid")).ok()?;
    let pid: u32 = text.lines().next()?.trim().parse().ok()?;
    let executable = std::fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    let directory = std::fs::read_link(format!("/proc/{pid}/cwd")).ok()?;
    let is_postgres = executable.file_name().is_some_and(|name| name == "postgres" || name == "postgres (deleted)");
    (is_postgres && directory == std::fs::canonicalize(data).ok()?).then_some(pid)
}

/// Directories with a `postmaster.pid`, not following symbolic links.
fn data_dirs(dir: &Path, depth: usize) -> Vec<PathBuf> {
    let mut found = Vec::new();
    if dir.join("postmaster.pid").is_file() {
        found.push(dir.to_owned());
    } else if depth > 0 {
        let below =
            std::fs::read_dir(dir).into_iter().flatten().flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        for entry in below {
            found.extend(data_dirs(&entry.path(), depth - 1));
        }
    }
    found
}

/// Ends one process with its signal, or with SIGKILL where that does not help, and then what it had started in a process group of its own: a
/// child of `initdb` names neither the directory nor the drill.
async fn end(pid: u32, first: Signal, dir: &Path) -> Result<String, String> {
    let name = format!("process {pid} of {}", dir.display());
    let program = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
    let postgresql = program.file_name().and_then(std::ffi::OsStr::to_str).is_some_and(|name| NEEDED.contains(&name));
    let leads = stat(pid).filter(|stat| postgresql && stat.group == pid);
    let ended = end_one(pid, first, &name).await?;
    if let (Some(leader), Some(group)) = (leads, Pid::from_raw(pid.cast_signed())) {
        let gone = Wait::new(format!("what {name} had started ends"), END_LIMIT)
            .every(Duration::from_millis(2))
            .until(async || {
                let left = members(&leader);
                if left > 0 {
                    let _ended_meanwhile = kill_process_group(group, Signal::KILL);
                    return Ok::<_, std::convert::Infallible>(Poll::NotYet(format!("{left} of them run")));
                }
                Ok(Poll::Ready(()))
            })
            .await;
        gone.map_err(|error| error.to_string())?;
    }
    Ok(ended)
}

/// What the kernel says of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stat {
    zombie: bool,
    group: u32,
    session: u32,
}

fn stat(pid: u32) -> Option<Stat> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything; behind its last parenthesis come state, parent, group and session.
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    Some(Stat { zombie: state.starts_with('Z'), group: fields.nth(1)?.parse().ok()?, session: fields.next()?.parse().ok()? })
}

/// How many processes of a group run whose leader was this. While one of them does, no other process can get the group's number.
fn members(leader: &Stat) -> usize {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let stats = entries.filter_map(|entry| stat(entry.file_name().to_str()?.parse().ok()?));
    stats.filter(|stat| !stat.zombie && stat.group == leader.group && stat.session == leader.session).count()
}

async fn end_one(pid: u32, first: Signal, name: &str) -> Result<String, String> {
    let name = name.to_owned();
    let raw = Pid::from_raw(pid.cast_signed()).ok_or_else(|| format!("{name}: not a process id"))?;
    let Some(started) = start_ticks(pid) else { return Ok(name) };
    for signal in [first, Signal::KILL] {
        if let Err(error) = kill_process(raw, signal)
            && error != rustix::io::Errno::SRCH
        {
            return Err(format!("{name}: {error}"));
        }
        let gone = Wait::new(format!("{name} ends"), END_LIMIT)
            .until(async || {
                // A zombie has ended; whoever started it has only not looked yet.
                let ended = start_ticks(pid) != Some(started) || stat(pid).is_none_or(|stat| stat.zombie);
                Ok::<_, std::convert::Infallible>(if ended { Poll::Ready(()) } else { Poll::NotYet("it runs".to_owned()) })
            })
            .await;
        match gone {
            Ok(()) => return Ok(name),
            Err(WaitError::TimedOut { .. }) => {}
            Err(WaitError::Failed { source, .. }) => match source {},
        }
    }
    Err(format!("{name}: it does not end, not even by SIGKILL"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::CommandExt as _;

    /// `initdb` starts programs that name neither the drill nor its directory; they must not outlive it.
    #[tokio::test]
    async fn what_a_program_had_started_ends_with_it() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("r1");
        std::fs::create_dir(&dir).unwrap();
        let owner = Owner { run: "killed".into(), pid: 1, start_ticks: None, created: jiff::Timestamp::UNIX_EPOCH };
        std::fs::write(dir.join(OWNER_FILE), serde_json::to_vec(&owner).unwrap()).unwrap();
        // A program called initdb that was told of the directory, and a child of it that was not.
        let initdb = root.path().join("initdb");
        std::fs::copy("/bin/sh", &initdb).unwrap();
        let script = "sleep 1000 & echo $!; wait";
        let expression = duct::cmd(&initdb, ["-c", script, dir.to_str().unwrap()]).dir("/").before_spawn(|command| {
            command.process_group(0);
            Ok(())
        });
        let reader = expression.unchecked().reader().unwrap();
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(&reader), &mut line).unwrap();
        let child: u32 = line.trim().parse().unwrap();
        assert!(stat(child).is_some_and(|stat| !stat.zombie), "the child does not run");

        let report = clean(root.path(), async |_, _| Ok(None)).await.unwrap();
        assert!(stat(child).is_none_or(|stat| stat.zombie), "the child outlived clean: {report:?}");
        assert!(report.left.is_empty() && !dir.exists(), "{report:?}");
    }
}
