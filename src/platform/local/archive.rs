//! A WAL archive in a directory: what PostgreSQL is told to do with it, what lies in it, and what is wrong with it.
//!
//! It knows nothing about servers or recovery targets.

use super::programs::args;
use super::{Account, AccountError, Programs, ProgramsError};
use crate::wait::{Poll, Wait, WaitError};
use jiff::Timestamp;
use std::path::{Path, PathBuf};
use std::time::Duration;
use turnback_core::recovery::{ArchiveFacts, Lsn, segment_name};

/// A directory of WAL segments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Archive {
    dir: PathBuf,
    segment_bytes: u64,
}

/// What is wrong with a segment that replay needs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SegmentFault {
    /// It is not there.
    #[error("WAL segment {segment} is missing in the archive")]
    Missing {
        /// Its name.
        segment: String,
    },
    /// It is shorter or longer than a segment.
    #[error("WAL segment {segment} has {found} bytes instead of {expected}")]
    Truncated {
        /// Its name.
        segment: String,
        /// Its size.
        found: u64,
        /// The size of a segment.
        expected: u64,
    },
    /// A record in it does not pass its checksum.
    #[error("WAL segment {segment} is damaged: {detail}")]
    Damaged {
        /// Its name.
        segment: String,
        /// What `pg_waldump` says.
        detail: String,
    },
}

impl SegmentFault {
    /// The name of the segment.
    #[must_use]
    pub fn segment(&self) -> &str {
        match self {
            Self::Missing { segment } | Self::Truncated { segment, .. } | Self::Damaged { segment, .. } => segment,
        }
    }
}

/// What can go wrong with an archive.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// It cannot be read or made.
    #[error("the WAL archive {dir}: {source}")]
    Io {
        /// Where it is.
        dir: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The account may not read what lies in it.
    #[error("the WAL archive {dir} cannot be read by the account {account}: {output}; give it read access")]
    Unreadable {
        /// Where it is.
        dir: PathBuf,
        /// The account that the servers run as.
        account: String,
        /// What `pg_waldump` said.
        output: String,
    },
    /// A restored server may not archive into what another server has filled.
    #[error(
        "the WAL archive {dir} is not empty ({first} is there): a restored server needs an archive of its own; name an empty directory"
    )]
    NotEmpty {
        /// Where it is.
        dir: PathBuf,
        /// What lies in it.
        first: String,
    },
    /// The account is of no use here.
    #[error(transparent)]
    Account(#[from] AccountError),
    /// `pg_waldump` could not be run.
    #[error(transparent)]
    Programs(#[from] ProgramsError),
    /// A segment did not arrive in time.
    #[error("{0}: see archive_command and the server's log")]
    TimedOut(String),
}

impl Archive {
    /// Makes an archive in an empty or new directory that the servers' account owns.
    ///
    /// # Errors
    /// [`ArchiveError::NotEmpty`] where another server's WAL lies there.
    pub fn create(dir: &Path, account: &Account) -> Result<Self, ArchiveError> {
        account.make_dir(dir, 0o755)?;
        let archive = Self::open(dir);
        match archive.entries()?.into_iter().next() {
            Some((first, _)) => Err(ArchiveError::NotEmpty { dir: dir.to_owned(), first }),
            None => Ok(archive),
        }
    }

    /// An archive that exists, to restore from.
    #[must_use]
    pub fn open(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), segment_bytes: turnback_core::recovery::SEGMENT_BYTES_DEFAULT }
    }

    /// The same archive with segments of another size than the usual one.
    #[must_use]
    pub fn with_segments_of(mut self, bytes: u64) -> Self {
        self.segment_bytes = bytes;
        self
    }

    /// The size of a segment, in bytes.
    #[must_use]
    pub fn segment_bytes(&self) -> u64 {
        self.segment_bytes
    }

    /// Where it is.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The command that copies a segment in: never over another one (the same content twice is fine, as after a crash), and never half.
    pub(super) fn archive_command(&self) -> String {
        let dir = shell_quote(&self.dir);
        format!("if test -e {dir}/%f; then cmp -s %p {dir}/%f; else cp %p {dir}/%f.part && mv {dir}/%f.part {dir}/%f; fi")
    }

    /// The command that copies a segment out.
    pub(super) fn restore_command(&self) -> String {
        format!("test -f {dir}/%f && cp {dir}/%f %p", dir = shell_quote(&self.dir))
    }

    /// The names and sizes of what lies in it, sorted.
    fn entries(&self) -> Result<Vec<(String, u64)>, ArchiveError> {
        let io = |source| ArchiveError::Io { dir: self.dir.clone(), source };
        let mut entries = Vec::new();
        for entry in std::fs::read_dir(&self.dir).map_err(io)? {
            let entry = entry.map_err(io)?;
            let bytes = match entry.metadata() {
                Ok(meta) => meta.len(),
                // The archiver renames its part files while we look.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(io(error)),
            };
            entries.push((entry.file_name().to_string_lossy().into_owned(), bytes));
        }
        entries.sort();
        Ok(entries)
    }

    /// The names of the complete segments, in order.
    ///
    /// # Errors
    /// [`ArchiveError::Io`].
    pub fn segments(&self) -> Result<Vec<String>, ArchiveError> {
        Ok(self.entries()?.into_iter().map(|(name, _)| name).filter(|name| is_segment(name)).collect())
    }

    /// What the planning of a restore needs to know.
    ///
    /// # Errors
    /// [`ArchiveError::Io`].
    pub fn facts(&self, last_commit: Option<(Timestamp, Lsn)>) -> Result<ArchiveFacts, ArchiveError> {
        Ok(ArchiveFacts { segments: self.segments()?, segment_bytes: self.segment_bytes, last_commit })
    }

    /// Waits until a segment is there.
    ///
    /// # Errors
    /// [`ArchiveError::TimedOut`] with what is there instead.
    pub async fn wait_for(&self, segment: &str, limit: Duration) -> Result<(), ArchiveError> {
        let wait = Wait::new(format!("WAL segment {segment} is archived"), limit).every(Duration::from_millis(20));
        let looked = wait
            .until(async || {
                let segments = self.segments()?;
                Ok(match segments.binary_search_by(|name| name.as_str().cmp(segment)) {
                    Ok(_) => Poll::Ready(()),
                    Err(_) => Poll::NotYet(format!("the last one there is {}", segments.last().map_or("none", String::as_str))),
                })
            })
            .await;
        looked.map_err(|error| match error {
            WaitError::Failed { source, .. } => source,
            timed_out @ WaitError::TimedOut { .. } => ArchiveError::TimedOut(timed_out.to_string()),
        })
    }

    /// The segment that holds the byte at `lsn`.
    #[must_use]
    pub fn segment_of(&self, timeline: u32, lsn: Lsn) -> String {
        segment_name(timeline, lsn, self.segment_bytes)
    }

    /// The first gap or segment of wrong size from `first` on: quick, it reads no content. Without `last`, up to the newest segment there.
    ///
    /// # Errors
    /// [`ArchiveError::Io`].
    pub fn gap(&self, timeline: u32, first: Lsn, last: Option<Lsn>) -> Result<Option<SegmentFault>, ArchiveError> {
        let entries: Vec<_> = self.entries()?.into_iter().filter(|(name, _)| is_segment(name)).collect();
        let of_timeline = format!("{timeline:08X}");
        let newest = entries.iter().rfind(|(name, _)| name.starts_with(&of_timeline)).map(|(name, _)| name.clone());
        let last = last.map(|lsn| self.segment_of(timeline, lsn)).or(newest).unwrap_or_default();
        let mut at = first.0 / self.segment_bytes;
        loop {
            let segment = self.segment_of(timeline, Lsn(at * self.segment_bytes));
            if segment > last {
                return Ok(None);
            }
            match entries.binary_search_by(|(name, _)| name.as_str().cmp(&segment)) {
                Err(_) => return Ok(Some(SegmentFault::Missing { segment })),
                Ok(found) if entries[found].1 != self.segment_bytes => {
                    return Ok(Some(SegmentFault::Truncated { segment, found: entries[found].1, expected: self.segment_bytes }));
                }
                Ok(_) => at += 1,
            }
        }
    }

    /// The first fault from `first` on, gaps and sizes first, then every record's checksum with `pg_waldump`. Without `last`, up to the newest
    /// segment there; the end of the WAL inside that one is not a fault.
    ///
    /// # Errors
    /// [`ArchiveError`] where the archive or the program cannot be used.
    pub async fn check(
        &self,
        programs: &Programs,
        account: &Account,
        timeline: u32,
        first: Lsn,
        last: Option<Lsn>,
        limit: Duration,
    ) -> Result<Option<SegmentFault>, ArchiveError> {
        if let Some(fault) = self.gap(timeline, first, last)? {
            return Ok(Some(fault));
        }
        let mut waldump = args([&"--quiet", &"--path", &self.dir, &"--timeline", &timeline.to_string(), &"--start", &first.to_string()]);
        if let Some(last) = last {
            waldump.extend(args([&"--end", &last.to_string()]));
        }
        let ended = programs.run(account, "pg_waldump", &waldump, limit).await?;
        if ended.ok {
            return Ok(None);
        }
        let newest = self.segments()?.into_iter().rfind(|name| name.starts_with(&format!("{timeline:08X}")));
        // Neither a gap nor a damaged record: the file is there, and we may not read it.
        if ended.output.contains("could not open") && !ended.output.contains("No such file") {
            return Err(ArchiveError::Unreadable { dir: self.dir.clone(), account: account.name.clone(), output: ended.output });
        }
        Ok(damage(&ended.output, timeline, self.segment_bytes, newest.as_deref(), last.is_none()))
    }
}

/// What `pg_waldump`'s complaint says about which segment. At an open end, running out of WAL is where it ends, not damage.
fn damage(output: &str, timeline: u32, segment_bytes: u64, newest: Option<&str>, open_end: bool) -> Option<SegmentFault> {
    let line = output.lines().rfind(|line| line.contains("error")).unwrap_or(output);
    let detail = line.trim_start_matches("pg_waldump: ").to_owned();
    let positions: Vec<Lsn> = line
        .split(|c: char| !(c.is_ascii_hexdigit() || c == '/'))
        .filter(|word| word.contains('/'))
        .filter_map(|word| word.parse().ok())
        .collect();
    // "error in WAL record at 0/30001C8: incorrect resource manager data checksum in record at 0/3000200": the last one is the bad one.
    let at = positions.last().map(|lsn| segment_name(timeline, *lsn, segment_bytes));
    let ran_out =
        ["could not find file", "could not find a valid record", "invalid record length", "invalid magic number 0000", "out of order"];
    let is_end = open_end && at.as_deref().is_none_or(|segment| newest.is_some_and(|newest| segment >= newest));
    if is_end && ran_out.iter().any(|end| line.contains(end)) {
        return None;
    }
    Some(SegmentFault::Damaged { segment: at.or_else(|| newest.map(str::to_owned)).unwrap_or_default(), detail })
}

pub(super) fn is_segment(name: &str) -> bool {
    name.len() == 24 && name.bytes().all(|byte| byte.is_ascii_digit() || (b'A'..=b'F').contains(&byte))
}

/// A path for the shell inside `archive_command`, where `%` is special too.
fn shell_quote(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', r"'\''").replace('%', "%%"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(files: &[(&str, u64)]) -> (tempfile::TempDir, Archive) {
        let dir = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            std::fs::File::create(dir.path().join(name)).unwrap().set_len(*bytes).unwrap();
        }
        let archive = Archive { dir: dir.path().to_owned(), segment_bytes: 1024 * 1024 };
        (dir, archive)
    }

    const MIB: u64 = 1024 * 1024;

    #[test]
    fn only_complete_segments_count() {
        let (_dir, archive) = archive(&[
            ("000000010000000000000002", MIB),
            ("000000010000000000000002.00000028.backup", 300),
            ("000000010000000000000003.part", 5),
            ("00000002.history", 40),
        ]);
        assert_eq!(archive.segments().unwrap(), ["000000010000000000000002"]);
    }

    #[test]
    fn a_gap_and_a_short_segment_are_named() {
        let (_dir, archive) =
            archive(&[("000000010000000000000002", MIB), ("000000010000000000000003", MIB - 1), ("000000010000000000000005", MIB)]);
        let fault = |first: u64, last| archive.gap(1, Lsn(first * MIB), last).unwrap();
        assert_eq!(fault(2, Some(Lsn(2 * MIB + 9))), None);
        assert!(matches!(fault(2, None), Some(SegmentFault::Truncated { segment, .. }) if segment == "000000010000000000000003"));
        assert!(matches!(fault(4, None), Some(SegmentFault::Missing { segment }) if segment == "000000010000000000000004"));
        assert!(matches!(fault(6, Some(Lsn(6 * MIB))), Some(SegmentFault::Missing { segment }) if segment == "000000010000000000000006"));
    }

    #[test]
    fn the_complaint_of_pg_waldump_names_the_segment() {
        let said = "pg_waldump: error: error in WAL record at 0/2FFFF00: incorrect resource manager data checksum in record at 0/3000200";
        let fault = damage(said, 1, 16 * MIB, Some("000000010000000000000005"), true).unwrap();
        assert_eq!(fault.segment(), "000000010000000000000003");
        assert!(fault.to_string().contains("checksum"));
    }

    #[test]
    fn where_the_wal_ends_is_not_damage_unless_more_was_promised() {
        let said = "pg_waldump: error: error in WAL record at 0/5000110: invalid record length at 0/5000148: wanted 24, got 0";
        assert_eq!(damage(said, 1, 16 * MIB, Some("000000010000000000000005"), true), None);
        assert!(damage(said, 1, 16 * MIB, Some("000000010000000000000005"), false).is_some());
        assert!(damage(said, 1, 16 * MIB, Some("000000010000000000000006"), true).is_some());
    }

    #[test]
    fn paths_reach_the_shell_unharmed() {
        assert_eq!(shell_quote(Path::new("/a b/it's 5%")), r"'/a b/it'\''s 5%%'");
    }
}
