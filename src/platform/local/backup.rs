//! Base backups: taken with `pg_basebackup`, described from its own manifest, verified with `pg_verifybackup`.
//!
//! It knows nothing about recovery targets.

use super::programs::args;
use super::server::{MAINTENANCE, SUPERUSER};
use super::{Account, AccountError, Programs, ProgramsError, Server};
use crate::recovery::{ObserveError, Observer, Position};
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::time::Duration;
use turnback_core::recovery::{BaseBackup, Lsn};

/// What `pg_verifybackup` says of a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verification {
    /// Whether every file is there and has the checksum it had.
    pub ok: bool,
    /// What the program printed.
    pub output: String,
    /// The first file that it complains about.
    pub damaged_file: Option<String>,
}

/// Why there is no backup.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// It did not complete in time, or its program could not be run.
    #[error("base backup {label}: {source}")]
    Programs {
        /// Its label.
        label: String,
        /// Why; a `TimedOut` is a backup that never completed.
        source: ProgramsError,
    },
    /// `pg_basebackup` ended with an error.
    #[error("base backup {label} failed: {output}")]
    Failed {
        /// Its label.
        label: String,
        /// What it printed.
        output: String,
    },
    /// The directory cannot be made.
    #[error(transparent)]
    Account(#[from] AccountError),
    /// The server did not say where it stands.
    #[error(transparent)]
    Observe(#[from] ObserveError),
    /// The manifest does not say what it must.
    #[error("the manifest of base backup {label} ({path}) cannot be used: {cause}; take a new backup")]
    Manifest {
        /// Its label.
        label: String,
        /// The manifest.
        path: PathBuf,
        /// Why.
        cause: String,
    },
}

impl BackupError {
    /// Whether the backup simply never completed.
    #[must_use]
    pub fn timed_out(&self) -> bool {
        matches!(self, Self::Programs { source: ProgramsError::TimedOut { .. }, .. })
    }
}

#[derive(Deserialize)]
pub(super) struct Manifest {
    #[serde(rename = "Files")]
    pub(super) files: Vec<File>,
    #[serde(rename = "WAL-Ranges")]
    pub(super) wal: Vec<WalRange>,
}

#[derive(Deserialize)]
pub(super) struct File {
    #[serde(rename = "Size")]
    pub(super) size: u64,
}

#[derive(Deserialize)]
pub(super) struct WalRange {
    #[serde(rename = "Timeline")]
    pub(super) timeline: u32,
    #[serde(rename = "Start-LSN")]
    pub(super) start: Lsn,
    #[serde(rename = "End-LSN")]
    pub(super) end: Lsn,
}

/// Takes a base backup into `dir`, which must not exist yet.
///
/// The WAL of the backup itself is fetched with it (`-X fetch`): without any, the server looks only once a second whether the archiver is done.
/// Its times are read from the primary's clock just before and just after, so they err towards a longer backup and never call a target
/// reachable that is not.
///
/// # Errors
/// [`BackupError`]; its [`timed_out`](BackupError::timed_out) says that the backup never completed.
pub async fn base_backup(
    server: &Server,
    account: &Account,
    programs: &Programs,
    dir: &Path,
    label: &str,
    limit: Duration,
) -> Result<BaseBackup, BackupError> {
    if let Some(parent) = dir.parent() {
        account.make_dir(parent, 0o755)?;
    }
    let options = server.connect_options(MAINTENANCE);
    let mut observer = Observer::connect(&options).await?;
    let before = observer.position().await?;
    let call = args([
        &"--host",
        &server.options().socket_dir,
        &"--port",
        &server.options().port.to_string(),
        &"--username",
        &SUPERUSER,
        &"--no-password",
        &"--pgdata",
        &dir,
        &"--format=plain",
        &"--wal-method=fetch",
        &"--checkpoint=fast",
        &"--no-sync",
        &"--label",
        &label,
    ]);
    let ended = programs
        .run(account, "pg_basebackup", &call, limit)
        .await
        .map_err(|source| BackupError::Programs { label: label.to_owned(), source })?;
    if !ended.ok {
        return Err(BackupError::Failed { label: label.to_owned(), output: ended.output });
    }
    let after = observer.position().await?;
    describe(dir, label, &before, &after)
}

fn describe(dir: &Path, label: &str, before: &Position, after: &Position) -> Result<BaseBackup, BackupError> {
    let path = dir.join("backup_manifest");
    let unusable = |cause: String| BackupError::Manifest { label: label.to_owned(), path: path.clone(), cause };
    let text = std::fs::read(&path).map_err(|error| unusable(error.to_string()))?;
    let manifest: Manifest = serde_json::from_slice(&text).map_err(|error| unusable(error.to_string()))?;
    let wal = manifest.wal.last().ok_or_else(|| unusable("it names no WAL range".to_owned()))?;
    Ok(BaseBackup {
        id: label.to_owned(),
        begin_lsn: wal.start,
        end_lsn: wal.end,
        begin_time: before.time,
        end_time: after.time,
        timeline: wal.timeline,
        system_identifier: after.system_identifier.clone(),
        bytes: manifest.files.iter().map(|file| file.size).sum(),
    })
}

/// Verifies a backup against its manifest: every file's presence, size and checksum, and that its WAL can be read.
///
/// # Errors
/// [`ProgramsError`] where the program cannot be run or does not end; a damaged backup is an answer, not an error.
pub async fn verify(programs: &Programs, account: &Account, dir: &Path, limit: Duration) -> Result<Verification, ProgramsError> {
    verify_with(programs, account, dir, &[], limit).await
}

pub(super) async fn verify_with(
    programs: &Programs,
    account: &Account,
    dir: &Path,
    more: &[&str],
    limit: Duration,
) -> Result<Verification, ProgramsError> {
    let mut call: Vec<_> = more.iter().map(std::ffi::OsString::from).collect();
    call.push(dir.into());
    let ended = programs.run(account, "pg_verifybackup", &call, limit).await?;
    let damaged_file = if ended.ok { None } else { complained_about(&ended.output, dir) };
    Ok(Verification { ok: ended.ok, damaged_file, output: ended.output })
}

/// The file in the first complaint: quoted in most of them, with the path that was given or relative to the backup.
fn complained_about(output: &str, dir: &Path) -> Option<String> {
    let line = output.lines().find(|line| line.contains("error:"))?;
    let name = line.split('"').nth(1)?;
    let prefix = format!("{}/", dir.display());
    Some(name.strip_prefix(&prefix).unwrap_or(name).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_damaged_file_is_named() {
        let named = |line: &str| complained_about(line, Path::new("/b"));
        assert_eq!(named("pg_verifybackup: error: checksum mismatch for file \"base/5/1259\"").unwrap(), "base/5/1259");
        assert_eq!(named("pg_verifybackup: error: \"base/5/16384\" is present in the manifest but not on disk").unwrap(), "base/5/16384");
        assert_eq!(named("pg_verifybackup: error: could not open file \"/b/PG_VERSION\": No such file").unwrap(), "PG_VERSION");
        assert_eq!(named("backup successfully verified"), None);
    }
}
