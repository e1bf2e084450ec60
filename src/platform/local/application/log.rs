//! The application's log file: where it listens, and which error lines are new. It reads; the application writes.

use super::{ApplicationError, next_number};
use serde_json::Value;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// No more than this is read of a log in one look: an application gone wild must not fill our memory.
const LONGEST_LOOK: u64 = 4 * 1024 * 1024;

pub(super) struct LogFile {
    path: PathBuf,
    read: Mutex<u64>,
}

impl LogFile {
    pub(super) fn create(directory: &Path) -> Result<Self, ApplicationError> {
        let path = directory.join(format!("application-{}.log", next_number()));
        File::create(&path).map_err(|source| ApplicationError::Log { log: path.clone(), source })?;
        Ok(Self { path, read: Mutex::new(0) })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The address in the first line that names one.
    pub(super) fn listening(&self) -> Option<String> {
        let text = self.from(0);
        text.lines().filter_map(line).find_map(|line| Some(line.get("listening")?.as_str()?.to_owned()))
    }

    pub(super) fn last_line(&self) -> String {
        self.from(0).lines().last().map_or_else(|| "nothing".to_owned(), str::to_owned)
    }

    /// The error lines that were completed since the last call.
    pub(super) fn new_errors(&self) -> Vec<String> {
        let mut read = self.read.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let text = self.from(*read);
        let complete = text.rfind('\n').map_or(0, |end| end + 1);
        *read += complete as u64;
        text[..complete].lines().filter(|l| line(l).is_some_and(|l| l["level"] == "ERROR")).map(str::to_owned).collect()
    }

    fn from(&self, offset: u64) -> String {
        let mut bytes = Vec::new();
        let read = File::open(&self.path).and_then(|mut file| {
            file.seek(SeekFrom::Start(offset))?;
            file.take(LONGEST_LOOK).read_to_end(&mut bytes)
        });
        if read.is_err() {
            bytes.clear();
        }
        // The log is JSON written by tracing, hence UTF-8; a character cut off at the end stands in an incomplete line.
        match String::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => {
                let valid = error.utf8_error().valid_up_to();
                let mut bytes = error.into_bytes();
                bytes.truncate(valid);
                String::from_utf8(bytes).unwrap_or_default()
            }
        }
    }
}

fn line(text: &str) -> Option<Value> {
    serde_json::from_str(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn each_error_line_is_returned_once_and_only_when_it_is_complete() {
        let directory = tempfile::tempdir().unwrap();
        let log = LogFile::create(directory.path()).unwrap();
        let mut file = File::options().append(true).open(log.path()).unwrap();
        file.write_all(b"{\"level\":\"INFO\",\"listening\":\"127.0.0.1:9\"}\n{\"level\":\"ERROR\",\"error\":\"a\"}\n{\"level\":\"ERR")
            .unwrap();
        assert_eq!(log.listening().as_deref(), Some("127.0.0.1:9"));
        assert_eq!(log.new_errors(), ["{\"level\":\"ERROR\",\"error\":\"a\"}"]);
        file.write_all(b"OR\",\"error\":\"b\"}\n").unwrap();
        assert_eq!(log.new_errors(), ["{\"level\":\"ERROR\",\"error\":\"b\"}"]);
        assert!(log.new_errors().is_empty());
    }
}
