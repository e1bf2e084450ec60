//! A base backup and a WAL archive that somebody else made: what their own files say, read and never written.
//!
//! The backup's positions come from its manifest, its identity from `pg_control`, its times from the archive's backup history file. It knows
//! nothing about which target is wanted.

use super::archive::is_segment;
use super::backup::{Manifest, verify_with};
use super::loss::count;
use super::programs::args;
use super::{Account, Archive, FoundError, Programs, ProgramsError, Verification};
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use turnback_core::recovery::{ArchiveFacts, BaseBackup, Lsn, parse_time, segment_name};

/// How long reading `pg_control` or one segment may take.
const LOOK_LIMIT: Duration = Duration::from_secs(120);
/// The settings that a hot standby must have at least as high as the primary, as `pg_controldata` and as `postgresql.conf` call them.
const MINIMA: [(&str, &str); 5] = [
    ("max_connections", "max_connections"),
    ("max_worker_processes", "max_worker_processes"),
    ("max_wal_senders", "max_wal_senders"),
    ("max_prepared_xacts", "max_prepared_transactions"),
    ("max_locks_per_xact", "max_locks_per_transaction"),
];

/// A base backup, described by its own files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundBackup {
    /// Its positions, times, timeline and system.
    pub backup: BaseBackup,
    /// The size of a WAL segment of its server, in bytes.
    pub segment_bytes: u64,
    /// Whether the WAL that it needs lies in it too.
    pub has_wal: bool,
    /// What a server restored from it must be set to at least.
    pub minima: Vec<(String, String)>,
}

/// How far an archive reaches from a backup on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reach {
    /// What the planning of a restore needs to know, up to the first gap.
    pub facts: ArchiveFacts,
    /// The first segment that is missing although later ones are there.
    pub gap: Option<String>,
}

/// Reads what a backup's own files say; `archive` is looked at for the backup's history file only.
///
/// # Errors
/// [`FoundError`] naming the file.
pub async fn find_backup(programs: &Programs, dir: &Path, archive: &Path) -> Result<FoundBackup, FoundError> {
    let absent = |file| move |source| FoundError::NotABackup { dir: dir.to_owned(), file, source };
    let version = std::fs::read_to_string(dir.join("PG_VERSION")).map_err(absent("PG_VERSION"))?;
    if version.trim() != programs.major.to_string() {
        return Err(FoundError::Version {
            dir: dir.to_owned(),
            backup: version.trim().escape_debug().to_string(),
            programs: programs.major,
        });
    }
    let label_path = dir.join("backup_label");
    let label = std::fs::read(&label_path).map_err(absent("backup_label"))?;
    let label = String::from_utf8_lossy(&label);
    let text = std::fs::read(dir.join("backup_manifest")).map_err(absent("backup_manifest"))?;
    if label.contains("INCREMENTAL FROM LSN") {
        return Err(FoundError::Incremental { dir: dir.to_owned() });
    }
    let unusable = |path: PathBuf| move |cause: String| FoundError::Unusable { path, cause };
    let manifest: Manifest = serde_json::from_slice(&text)
        .map_err(|error| unusable(dir.join("backup_manifest"))(format!("it is truncated or altered: {error}")))?;
    let wal = manifest.wal.last().ok_or_else(|| unusable(dir.join("backup_manifest"))("it names no WAL range".to_owned()))?;
    if wal.timeline == 0 || wal.start > wal.end {
        return Err(unusable(dir.join("backup_manifest"))("its WAL range cannot be".to_owned()));
    }
    let begun = field(&label, "START WAL LOCATION: ").and_then(|rest| rest.split_whitespace().next()?.parse::<Lsn>().ok());
    if begun.is_none_or(|begun| begun > wal.start && manifest.wal.len() == 1) {
        return Err(unusable(label_path.clone())("its START WAL LOCATION cannot be read or is not the manifest's".to_owned()));
    }
    only_files(dir)?;

    let control_path = dir.join("global/pg_control");
    let ended = programs.run(&Account::current(), "pg_controldata", &args([&"-D", &dir]), LOOK_LIMIT).await?;
    let control = |name: &str| field(&ended.output, name).map(|rest| rest.trim().to_owned());
    if !ended.ok || ended.output.contains("checksum does not match") {
        let cause = ended.output.lines().find(|line| !line.trim().is_empty()).unwrap_or_default().to_owned();
        return Err(unusable(control_path)(cause));
    }
    let missing = |name: &str| unusable(dir.join("global/pg_control"))(format!("pg_controldata does not say its “{name}”"));
    let needed = |name: &'static str| control(&format!("{name}:")).ok_or_else(|| missing(name));
    let system_identifier = needed("Database system identifier")?;
    let segment_bytes = needed("Bytes per WAL segment")?.parse::<u64>().ok().filter(|bytes| bytes.is_power_of_two() && *bytes >= 1 << 20);
    let segment_bytes = segment_bytes.ok_or_else(|| missing("Bytes per WAL segment"))?;
    let checkpoint = needed("Time of latest checkpoint")?;
    // Printed by us in UTC; the last checkpoint in a backup lies within it, so its end is no earlier.
    let checkpoint =
        jiff::civil::DateTime::strptime("%a %b %e %H:%M:%S %Y", &checkpoint).and_then(|time| time.to_zoned(jiff::tz::TimeZone::UTC));
    let checkpoint = checkpoint.map_err(|_| missing("Time of latest checkpoint"))?.timestamp();
    let history = history(archive, wal.timeline, wal.start, segment_bytes);
    let label_id = field(&label, "LABEL: ").unwrap_or_default().trim().to_owned();
    let first = segment_name(wal.timeline, wal.start, segment_bytes);
    Ok(FoundBackup {
        backup: BaseBackup {
            id: if label_id.is_empty() { dir.display().to_string() } else { label_id },
            begin_lsn: wal.start,
            end_lsn: wal.end,
            begin_time: field(&label, "START TIME: ").and_then(universal).unwrap_or(checkpoint),
            end_time: history.unwrap_or(checkpoint),
            timeline: wal.timeline,
            system_identifier,
            bytes: manifest.files.iter().fold(0, |sum: u64, file| sum.saturating_add(file.size)),
        },
        segment_bytes,
        has_wal: dir.join("pg_wal").join(first).is_file(),
        minima: MINIMA.iter().filter_map(|(said, name)| Some(((*name).to_owned(), control(&format!("{said} setting:"))?))).collect(),
    })
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name))
}

/// A time of a backup label, where its zone is one that means the same everywhere.
fn universal(text: &str) -> Option<Timestamp> {
    let (time, zone) = text.trim().rsplit_once(' ')?;
    let zone = if matches!(zone, "UTC" | "GMT") { "+00" } else { zone };
    zone.starts_with(['+', '-']).then(|| parse_time(&format!("{time}{zone}")).ok()).flatten()
}

/// When the backup ended, as its history file in the archive says; to the second, rounded down, so it never refuses a target that is reachable.
fn history(archive: &Path, timeline: u32, start: Lsn, segment_bytes: u64) -> Option<Timestamp> {
    let name = format!("{}.{:08X}.backup", segment_name(timeline, start, segment_bytes), start.0 % segment_bytes);
    let text = std::fs::read_to_string(archive.join(name)).ok()?;
    universal(field(&text, "STOP TIME: ")?)
}

/// Nothing in a backup may lead out of it.
fn only_files(dir: &Path) -> Result<(), FoundError> {
    let mut directories = vec![dir.to_owned()];
    while let Some(directory) = directories.pop() {
        let io = |source| FoundError::Io { operation: "read", path: directory.clone(), source };
        for entry in std::fs::read_dir(&directory).map_err(io)? {
            let entry = entry.map_err(io)?;
            let kind = entry.file_type().map_err(io)?;
            if kind.is_dir() {
                directories.push(entry.path());
            } else if kind.is_symlink() {
                return Err(FoundError::Link { path: entry.path() });
            } else if !kind.is_file() {
                return Err(FoundError::Strange { path: entry.path() });
            }
        }
    }
    Ok(())
}

impl FoundBackup {
    /// Verifies it against its manifest, as whoever runs Turnback: the files may belong to anyone. Its own WAL is looked at where it has any.
    ///
    /// # Errors
    /// [`ProgramsError`]; a damaged backup is an answer.
    pub async fn verify(&self, programs: &Programs, dir: &Path, limit: Duration) -> Result<Verification, ProgramsError> {
        let more: &[&str] = if self.has_wal { &[] } else { &["--no-parse-wal"] };
        verify_with(programs, &Account::current(), dir, more, limit).await
    }

    /// Settings that keep a server restored from it to itself, whatever its configuration says: it reaches no network, no publisher and no
    /// standby, needs no file outside its directory, logs where we look, and lets in only its own account and root. Writes the files that
    /// they name into `dir`.
    ///
    /// # Errors
    /// [`FoundError`].
    pub fn isolation(&self, dir: &Path, account: &Account) -> Result<Vec<(String, String)>, FoundError> {
        account.make_dir(dir, 0o755)?;
        let mut settings = self.minima.clone();
        for (setting, name, text) in [("hba_file", "pg_hba.conf", "local all all trust\n"), ("ident_file", "pg_ident.conf", "")] {
            let path = dir.join(name);
            std::fs::write(&path, text).and_then(|()| account.own(&path)).map_err(|source| FoundError::Io {
                operation: "write",
                path: path.clone(),
                source,
            })?;
            settings.push((setting.to_owned(), path.display().to_string()));
        }
        let fixed = [
            ("unix_socket_permissions", "0700"),
            ("unix_socket_group", ""),
            ("external_pid_file", ""),
            ("ssl", "off"),
            ("logging_collector", "off"),
            ("log_destination", "stderr"),
            ("log_line_prefix", "%m [%p] "),
            ("log_min_messages", "warning"),
            ("lc_messages", "C"),
            ("log_timezone", "UTC"),
            ("synchronous_standby_names", ""),
            ("max_logical_replication_workers", "0"),
            ("recovery_min_apply_delay", "0"),
            ("recovery_end_command", ""),
            ("archive_cleanup_command", ""),
            ("shared_buffers", "64MB"),
            ("huge_pages", "off"),
            ("autovacuum", "off"),
            ("fsync", "off"),
        ];
        settings.extend(fixed.map(|(name, value)| (name.to_owned(), value.to_owned())));
        Ok(settings)
    }
}

/// How far the archive reaches from the backup's first segment on without a gap, and, where `with_commits`, when its last commit there was. A
/// segment of a later timeline counts as well: replay follows the latest.
///
/// # Errors
/// [`FoundError`] where the archive cannot be read.
pub async fn reach(programs: &Programs, archive: &Archive, backup: &BaseBackup, with_commits: bool) -> Result<Reach, FoundError> {
    let (bytes, per_id) = (archive.segment_bytes(), 0x1_0000_0000 / archive.segment_bytes());
    let mut present: BTreeMap<u64, String> = BTreeMap::new();
    for name in archive.segments()? {
        let part = |range: std::ops::Range<usize>| name.get(range).and_then(|part| u64::from_str_radix(part, 16).ok());
        if let (Some(timeline), Some(id), Some(low)) = (part(0..8), part(8..16), part(16..24))
            && timeline >= u64::from(backup.timeline)
        {
            // In order of name, so the latest timeline's stays.
            present.insert(id.saturating_mul(per_id).saturating_add(low), name);
        }
    }
    let first = backup.begin_lsn.0 / bytes;
    let mut end = first;
    while present.contains_key(&end) {
        end += 1;
    }
    let name = |number: u64| segment_name(backup.timeline, Lsn(number.saturating_mul(bytes)), bytes);
    let gap = present.range(end..).next().map(|_| name(end));
    let mut last_commit = None;
    for number in (first..end).rev().take_while(|_| with_commits) {
        let Some(file) = present.get(&number) else { break };
        let call = args([&"--rmgr=Transaction", &archive.dir().join(file)]);
        let ended = programs.run(&Account::current(), "pg_waldump", &call, LOOK_LIMIT).await?;
        if let Some(time) = count(&ended.output, &[]).last_commit {
            last_commit = Some((time, Lsn(end.saturating_mul(bytes))));
            break;
        }
    }
    let segments: BTreeSet<String> = (first..end).map(name).collect();
    Ok(Reach { facts: ArchiveFacts { segments: segments.into_iter().collect(), segment_bytes: bytes, last_commit }, gap })
}

/// An archive that `cp` can restore from as the servers' account: the one given, or, where that account may not read it or its segments are
/// read-only (their copies would be too, and replay opens them for writing), a copy of it in `dir`.
///
/// # Errors
/// [`FoundError`] naming the file.
pub fn stage_archive(archive: &Archive, account: &Account, from_segment: &str, dir: &Path) -> Result<Archive, FoundError> {
    let io = |operation, path: &Path| {
        let path = path.to_owned();
        move |source| FoundError::Io { operation, path, source }
    };
    let source = archive.dir();
    let mut wanted = Vec::new();
    let mut readable = account.reach(source).is_ok() && account.may_read(&std::fs::metadata(source).map_err(io("look at", source))?);
    for entry in std::fs::read_dir(source).map_err(io("read", source))? {
        let entry = entry.map_err(io("read", source))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let needed = name.ends_with(".history") || (is_segment(&name) && name.get(8..) >= from_segment.get(8..));
        if needed
            && let Ok(meta) = std::fs::metadata(entry.path())
            && meta.is_file()
        {
            readable &= account.may_read(&meta) && meta.permissions().mode() & 0o600 == 0o600;
            wanted.push(entry.path());
        }
    }
    if readable {
        return Ok(archive.clone());
    }
    account.make_dir(dir, 0o700)?;
    for path in wanted {
        let to = dir.join(path.file_name().unwrap_or_default());
        std::fs::copy(&path, &to)
            .and_then(|_| std::fs::set_permissions(&to, std::fs::Permissions::from_mode(0o600)))
            .and_then(|()| account.own(&to))
            .map_err(io("copy", &path))?;
    }
    Ok(Archive::open(dir).with_segments_of(archive.segment_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_a_label_are_read_only_where_their_zone_is_certain() {
        assert_eq!(universal("2026-11-21 01:05:01 UTC").unwrap().to_string(), "2026-11-21T01:05:01Z");
        assert_eq!(universal("2026-11-21 01:05:01 -03").unwrap().to_string(), "2026-11-21T04:05:01Z");
        for doubtful in ["2026-11-21 01:05:01 IST", "2026-11-21 01:05:01", "", "UTC"] {
            assert_eq!(universal(doubtful), None, "{doubtful}");
        }
    }

    #[test]
    fn a_link_in_a_backup_is_named() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("pg_tblspc")).unwrap();
        assert!(only_files(dir.path()).is_ok());
        std::os::unix::fs::symlink("/", dir.path().join("pg_tblspc/16384")).unwrap();
        assert!(only_files(dir.path()).unwrap_err().to_string().contains("pg_tblspc/16384"));
    }
}
