//! The journal: what happened, line by line, as it happens.
//!
//! NDJSON, one entry a line, compact, in this order of keys:
//!
//! ```json
//! {"seq":0,"at":"2026-11-20T21:04:05.123456Z","kind":"drill-started","data":{},"prev":"<64 zeros>","hash":"<64 hexadecimal digits>"}
//! ```
//!
//! `hash` is the SHA-256 of the line's own bytes as they stand, with `,"hash":"…"` taken out and without the newline: everything from `{` to the
//! quote that closes `prev`, then `}`. `prev` is the hash of the line before, 64 zeros in the first. So an edited, removed, inserted or moved line
//! breaks the chain; lines cut off at the end do not, and are noticed by the manifest of the sealed package.
//!
//! Every line is one write(2), with nothing held back in the process: a drill that is killed leaves every entry that was appended, and at most
//! one torn last line, which [`read`] tells from an edited one. It knows nothing about what the entries mean.

use crate::clock;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use turnback_core::evidence::redact::Redactor;

/// `prev` of the first entry.
pub const ZERO_HASH: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// What stands between a line's content and its hash.
const HASH_KEY: &str = ",\"hash\":\"";

/// The redactor that a package and its journal share; secrets are added as they become known.
pub type SharedRedactor = Arc<RwLock<Redactor>>;

/// One entry, as read back.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Its place, from 0.
    pub seq: u64,
    /// When, UTC.
    pub at: jiff::Timestamp,
    /// What kind of event.
    pub kind: String,
    /// What is known of it.
    pub data: Value,
    /// The hash of the entry before.
    pub prev: String,
    /// Its own hash.
    pub hash: String,
}

/// A journal as read back.
#[derive(Debug)]
pub struct JournalRead {
    /// The entries, their chain verified.
    pub entries: Vec<Entry>,
    /// Bytes of a last line that was being written when the drill was killed; 0 where the journal ends with a whole line.
    pub torn: usize,
}

/// What can go wrong with a journal.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// It cannot be opened, read or written.
    #[error("cannot {operation} the journal {}: {source}", path.display())]
    Io {
        /// `create`, `write` or `read`.
        operation: &'static str,
        /// The journal.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What was to be appended cannot be written as JSON.
    #[error("the journal entry “{kind}” cannot be written as JSON: {source}")]
    Data {
        /// The entry's kind.
        kind: String,
        /// Why.
        source: serde_json::Error,
    },
    /// The package is sealed.
    #[error("the journal entry “{kind}” comes too late: the journal is closed because its package is sealed")]
    Closed {
        /// The entry's kind.
        kind: String,
    },
    /// A line is not what was written.
    #[error("{}: line {line} is not as it was written: {what}", path.display())]
    Broken {
        /// The journal.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        what: String,
    },
}

#[derive(Debug)]
struct State {
    file: Option<File>,
    seq: u64,
    prev: String,
    replaced: u64,
}

/// A journal being written. Appending takes `&self`: share it freely between tasks.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    redactor: SharedRedactor,
    state: Mutex<State>,
}

#[derive(Serialize)]
struct Line<'a> {
    seq: u64,
    at: String,
    kind: &'a str,
    data: &'a Value,
    prev: &'a str,
}

impl Journal {
    /// A new journal that knows secrets by their shape.
    ///
    /// # Errors
    /// [`JournalError::Io`], also where the file is already there: a journal is never continued by another run.
    pub fn create(path: impl Into<PathBuf>) -> Result<Self, JournalError> {
        Self::redacted(path, SharedRedactor::default())
    }

    /// A new journal that shares its redactor.
    ///
    /// # Errors
    /// As [`Journal::create`].
    pub fn redacted(path: impl Into<PathBuf>, redactor: SharedRedactor) -> Result<Self, JournalError> {
        let path = path.into();
        let file = OpenOptions::new().append(true).create_new(true).open(&path);
        let file = file.map_err(|source| JournalError::Io { operation: "create", path: path.clone(), source })?;
        Ok(Self { path, redactor, state: Mutex::new(State { file: Some(file), seq: 0, prev: ZERO_HASH.to_owned(), replaced: 0 }) })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Appends an entry, in one write.
    ///
    /// # Errors
    /// [`JournalError::Data`], [`JournalError::Closed`] or [`JournalError::Io`]; after the last, a torn line may stand at the end.
    pub fn append(&self, kind: &str, data: &impl Serialize) -> Result<(), JournalError> {
        let not_json = |source| JournalError::Data { kind: kind.to_owned(), source };
        let mut data = serde_json::to_value(data).map_err(not_json)?;
        let replaced = self.redactor.read().unwrap_or_else(PoisonError::into_inner).value(&mut data);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        // The time is taken under the lock, so that times never run backwards along the chain.
        let at = clock::now().strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string();
        let line = Line { seq: state.seq, at, kind, data: &data, prev: &state.prev };
        let mut bytes = serde_json::to_vec(&line).map_err(not_json)?;
        let hash = hex::encode(Sha256::digest(&bytes));
        bytes.pop();
        bytes.extend_from_slice(HASH_KEY.as_bytes());
        bytes.extend_from_slice(hash.as_bytes());
        bytes.extend_from_slice(b"\"}\n");
        let Some(file) = state.file.as_mut() else { return Err(JournalError::Closed { kind: kind.to_owned() }) };
        file.write_all(&bytes).map_err(|source| JournalError::Io { operation: "write", path: self.path.clone(), source })?;
        state.seq += 1;
        state.prev = hash;
        state.replaced += replaced;
        Ok(())
    }

    /// Secrets taken out so far.
    pub(super) fn replaced(&self) -> u64 {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).replaced
    }

    /// Nothing is appended after this.
    pub(super) fn close(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).file = None;
    }
}

/// Reads a journal back and verifies every hash, the chain, the sequence and that time does not run backwards.
///
/// # Errors
/// [`JournalError::Io`], or [`JournalError::Broken`] naming the first line that is not as it was written.
pub fn read(path: impl AsRef<Path>) -> Result<JournalRead, JournalError> {
    let path = path.as_ref();
    let bytes = std::fs::read(path).map_err(|source| JournalError::Io { operation: "read", path: path.to_owned(), source })?;
    verify(path, &bytes)
}

fn verify(path: &Path, bytes: &[u8]) -> Result<JournalRead, JournalError> {
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    let broken = |line: usize, what: String| JournalError::Broken { path: path.to_owned(), line, what };
    let mut entries: Vec<Entry> = Vec::new();
    for line in bytes[..whole].split_inclusive(|byte| *byte == b'\n') {
        let line = &line[..line.len() - 1];
        let number = entries.len() + 1;
        let entry = entry(line).map_err(|what| broken(number, what))?;
        let prev = entries.last().map_or(ZERO_HASH, |before| before.hash.as_str());
        if entry.prev != prev {
            return Err(broken(number, "it does not follow the line before: a line was removed, inserted or moved".into()));
        }
        if entry.seq != entries.len() as u64 {
            return Err(broken(number, format!("its number is {}, expected {}", entry.seq, entries.len())));
        }
        if entries.last().is_some_and(|before| before.at > entry.at) {
            return Err(broken(number, "its time lies before the line above".into()));
        }
        entries.push(entry);
    }
    let torn = &bytes[whole..];
    // A line cut short never holds a whole entry and something after it.
    if !torn.is_empty() && entry(&torn[..torn.len() - 1]).is_ok() {
        return Err(broken(entries.len() + 1, "its end was edited".into()));
    }
    Ok(JournalRead { entries, torn: torn.len() })
}

fn entry(line: &[u8]) -> Result<Entry, String> {
    const DIGITS: usize = 64;
    let tail = HASH_KEY.len() + DIGITS + "\"}".len();
    let start = line.len().checked_sub(tail).ok_or("it is too short")?;
    if !line[start..].starts_with(HASH_KEY.as_bytes()) {
        return Err("it does not end with its hash".into());
    }
    let mut content = line[..start].to_vec();
    content.push(b'}');
    let found = hex::encode(Sha256::digest(&content));
    let entry: Entry = serde_json::from_slice(line).map_err(|error| format!("it is not an entry: {error}"))?;
    if entry.hash != found {
        return Err("its content does not match its hash".into());
    }
    Ok(entry)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn written() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.ndjson");
        let journal = Journal::create(&path).unwrap();
        journal.append("started", &json!({ "feature": "data_rollback", "text": "a\nb ü" })).unwrap();
        journal.append("phase", &"restore").unwrap();
        journal.append("ended", &json!(null)).unwrap();
        (dir, path)
    }

    #[test]
    fn what_is_appended_reads_back() {
        let (_dir, path) = written();
        let read = read(&path).unwrap();
        assert_eq!(
            read.entries.iter().map(|entry| (entry.seq, entry.kind.as_str())).collect::<Vec<_>>(),
            [(0, "started"), (1, "phase"), (2, "ended")]
        );
        assert_eq!(read.entries[0].prev, ZERO_HASH);
        assert_eq!(read.entries[0].data["text"], "a\nb ü");
        assert_eq!(read.torn, 0);
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 3);
        assert!(text.lines().all(|line| line.split_once("\"at\":\"").unwrap().1.split_once('"').unwrap().0.len() == 27), "{text}");
    }

    #[test]
    fn every_line_is_there_before_append_returns() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::create(dir.path().join("j")).unwrap();
        for count in 1..=5 {
            journal.append("tick", &count).unwrap();
            assert_eq!(read(journal.path()).unwrap().entries.len(), count);
        }
    }

    #[test]
    fn any_edited_byte_is_found() {
        let (_dir, path) = written();
        let good = std::fs::read(&path).unwrap();
        for place in 0..good.len() - 1 {
            for flip in [0x01, 0x20, 0x80] {
                let mut bad = good.clone();
                bad[place] ^= flip;
                assert!(matches!(verify(&path, &bad), Err(JournalError::Broken { .. })), "byte {place} ^ {flip:02x}");
            }
        }
        let mut bad = good;
        *bad.last_mut().unwrap() = b' ';
        std::fs::write(&path, &bad).unwrap();
        assert!(matches!(read(&path), Err(JournalError::Broken { line: 3, .. })));
    }

    #[test]
    fn removed_moved_and_repeated_lines_are_found() {
        let (_dir, path) = written();
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<_> = text.split_inclusive('\n').collect();
        for bad in
            [vec![lines[1], lines[2]], vec![lines[0], lines[2]], vec![lines[0], lines[2], lines[1]], vec![lines[0], lines[0], lines[1]]]
        {
            std::fs::write(&path, bad.concat()).unwrap();
            assert!(matches!(read(&path), Err(JournalError::Broken { .. })));
        }
    }

    #[test]
    fn a_torn_last_line_is_told_from_an_edited_one() {
        let (_dir, path) = written();
        let good = std::fs::read(&path).unwrap();
        let last = good[..good.len() - 1].iter().rposition(|byte| *byte == b'\n').unwrap() + 1;
        for cut in last + 1..good.len() {
            std::fs::write(&path, &good[..cut]).unwrap();
            let read = read(&path).unwrap();
            assert_eq!((read.entries.len(), read.torn), (2, cut - last));
        }
    }

    #[test]
    fn secrets_do_not_reach_it() {
        let dir = tempfile::tempdir().unwrap();
        let redactor = SharedRedactor::default();
        let journal = Journal::redacted(dir.path().join("j"), Arc::clone(&redactor)).unwrap();
        redactor.write().unwrap().know("opensesame");
        journal
            .append("connect", &json!({ "url": "postgres://app:hunter2x@db/o", "password": "two words", "note": "opensesame" }))
            .unwrap();
        let text = std::fs::read_to_string(journal.path()).unwrap();
        assert!(!["hunter2x", "two words", "opensesame"].iter().any(|secret| text.contains(secret)), "{text}");
        assert_eq!(journal.replaced(), 3);
        assert_eq!(read(journal.path()).unwrap().entries.len(), 1);
    }

    #[test]
    fn a_journal_is_never_written_over_or_continued() {
        let (_dir, path) = written();
        assert!(matches!(Journal::create(&path), Err(JournalError::Io { operation: "create", .. })));
        let other = Journal::create(path.with_extension("2")).unwrap();
        other.close();
        assert!(other.append("late", &1).unwrap_err().to_string().contains("“late”"));
    }

    #[test]
    fn tasks_may_append_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::create(dir.path().join("j")).unwrap();
        std::thread::scope(|scope| {
            for task in 0..4 {
                let journal = &journal;
                scope.spawn(move || (0..50).for_each(|tick| journal.append("tick", &(task, tick)).unwrap()));
            }
        });
        assert_eq!(read(journal.path()).unwrap().entries.len(), 200);
    }
}
