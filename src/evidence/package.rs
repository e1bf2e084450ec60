//! The package: the directory that one drill leaves, never written over, sealed at its end.
//!
//! Files come in through [`Package::add_file`] (bytes) or [`Package::adopt`] (written in place by others: logs, snapshots). Text loses its secrets on
//! the way in; binary files stay as they are. [`Package::seal`] writes the reports, then manifest.json over every file, then evidence.json over
//! the manifest: whoever finds evidence.json finds everything it speaks of. It never follows a symbolic link.

use super::journal::{Journal, JournalError, SharedRedactor};
use super::manifest::{self, Manifest, ManifestEntry, media_type};
use super::{names, scrub};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::json;
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use turnback_core::evidence::{DrillRecord, Subject, html, junit, markdown, statement};

/// Names that only sealing writes.
const RESERVED: [&str; 6] = ["journal.ndjson", "report.md", "report.html", "junit.xml", "manifest.json", "evidence.json"];

/// What can go wrong with a package.
#[derive(Debug, thiserror::Error)]
pub enum EvidenceError {
    /// The place for evidence cannot be written.
    #[error("the evidence directory {} cannot be written: {source}; choose one that you may write to with --evidence DIR", path.display())]
    NotWritable {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file of the package cannot be read or written.
    #[error("cannot {operation} {} in the evidence package: {source}", path.display())]
    Io {
        /// `read`, `write` or `list`.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A name that does not belong into a package.
    #[error("“{}” cannot be a file of the evidence package: {why}", name.escape_debug())]
    Name {
        /// The name.
        name: String,
        /// Why not.
        why: &'static str,
    },
    /// Something that is neither a file nor a directory, such as a symbolic link.
    #[error("{} in the evidence package is neither a file nor a directory: remove it and run the drill again", path.display())]
    NotAFile {
        /// What it is called.
        path: PathBuf,
    },
    /// It is sealed: nothing may change any more.
    #[error("the evidence package {} is sealed: nothing can be added to it", path.display())]
    Sealed {
        /// The package.
        path: PathBuf,
    },
    /// The drill's record cannot be written as JSON.
    #[error("the drill's record cannot be written as JSON: {source}")]
    Record {
        /// Why.
        #[from]
        source: serde_json::Error,
    },
    /// The journal cannot be written.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

#[derive(Debug, Default)]
struct State {
    /// Files that lost their secrets already.
    clean: BTreeSet<PathBuf>,
    replaced: u64,
    sealed: bool,
}

/// A package being filled.
#[derive(Debug)]
pub struct Package {
    path: PathBuf,
    journal: Journal,
    redactor: SharedRedactor,
    state: Mutex<State>,
}

/// A sealed package.
#[derive(Clone, Debug)]
pub struct SealedPackage {
    /// The directory.
    pub path: PathBuf,
    /// Every file but manifest.json and evidence.json.
    pub files: Vec<ManifestEntry>,
    /// Secrets taken out of it.
    pub redactions: u64,
    /// SHA-256 of evidence.json, in hexadecimal.
    pub evidence_sha256: String,
}

/// Makes sure that evidence can be written under `root`, before anything is started; creates `root` and leaves nothing in it.
///
/// # Errors
/// [`EvidenceError::NotWritable`].
pub fn preflight(root: &Path) -> Result<(), EvidenceError> {
    let not_writable = |source| EvidenceError::NotWritable { path: root.to_owned(), source };
    fs::create_dir_all(root).map_err(not_writable)?;
    let mut probe = tempfile::Builder::new().prefix(".turnback-").tempfile_in(root).map_err(not_writable)?;
    probe.write_all(b"probe").map_err(not_writable)
}

impl Package {
    /// A new package `root/<UTC time>-<slug>`, with its journal begun. A package that is already there is left alone; the new one gets a number.
    ///
    /// # Errors
    /// [`EvidenceError::NotWritable`].
    pub fn create(root: &Path, started: Timestamp, slug: &str) -> Result<Self, EvidenceError> {
        preflight(root)?;
        let stem = format!("{}-{}", started.strftime("%Y%m%dT%H%M%SZ"), names::slug(slug));
        let mut count = 1;
        let path = loop {
            let path = root.join(if count == 1 { stem.clone() } else { format!("{stem}-{count}") });
            match fs::create_dir(&path) {
                Ok(()) => break path,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && count < 1000 => count += 1,
                Err(source) => return Err(EvidenceError::NotWritable { path, source }),
            }
        };
        let redactor = SharedRedactor::default();
        let journal = Journal::redacted(path.join(RESERVED[0]), Arc::clone(&redactor))?;
        Ok(Self { path, journal, redactor, state: Mutex::default() })
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its journal.
    #[must_use]
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Adds a secret that must not stand in any file; returns whether it was taken (see `Redactor::know`). What was written before is looked
    /// through again when the package is sealed.
    pub fn know_secret(&self, secret: &str) -> bool {
        let taken = self.redactor.write().unwrap_or_else(PoisonError::into_inner).know(secret);
        if taken {
            self.state().clean.clear();
        }
        taken
    }

    /// Where a file that someone else writes is to be written; makes its directory. Hand it to [`Package::adopt`] when it is written.
    ///
    /// # Errors
    /// [`EvidenceError::Name`], [`EvidenceError::NotAFile`], [`EvidenceError::Sealed`] or [`EvidenceError::Io`].
    pub fn place(&self, name: impl AsRef<Path>) -> Result<PathBuf, EvidenceError> {
        Ok(self.path.join(self.named(name.as_ref())?))
    }

    /// Writes a file, whole or not at all; text without its secrets.
    ///
    /// # Errors
    /// As [`Package::place`].
    pub fn add_file(&self, name: impl AsRef<Path>, bytes: &[u8]) -> Result<(), EvidenceError> {
        let name = self.named(name.as_ref())?;
        let replaced = self.store_text(&name, bytes)?;
        let mut state = self.state();
        state.replaced += replaced;
        state.clean.insert(name);
        Ok(())
    }

    /// Writes a value as pretty-printed JSON.
    ///
    /// # Errors
    /// [`EvidenceError::Record`], otherwise as [`Package::place`].
    pub fn add_json(&self, name: impl AsRef<Path>, value: &impl Serialize) -> Result<(), EvidenceError> {
        let name = self.named(name.as_ref())?;
        let mut value = serde_json::to_value(value)?;
        let replaced = self.redactor.read().unwrap_or_else(PoisonError::into_inner).value(&mut value);
        self.store(&name, &pretty(&value)?)?;
        let mut state = self.state();
        state.replaced += replaced;
        state.clean.insert(name);
        Ok(())
    }

    /// Takes in a file that someone else wrote into the package and no longer writes to: takes the secrets out of it, unless it is binary.
    ///
    /// # Errors
    /// As [`Package::place`]; [`EvidenceError::Io`] also where it is not there.
    pub fn adopt(&self, name: impl AsRef<Path>) -> Result<(), EvidenceError> {
        let name = self.named(name.as_ref())?;
        let replaced = self.scrub(&name)?;
        let mut state = self.state();
        state.replaced += replaced;
        state.clean.insert(name);
        Ok(())
    }

    /// Writes report.md, report.html and junit.xml, then manifest.json over every file, then evidence.json; closes the journal.
    ///
    /// Each file is there whole or not at all, evidence.json last. The record loses its secrets first, so no rendering can hold one.
    ///
    /// # Errors
    /// [`EvidenceError::Sealed`] where it is sealed already, otherwise as [`Package::place`].
    pub fn seal(&self, record: &DrillRecord) -> Result<SealedPackage, EvidenceError> {
        if self.state().sealed {
            return Err(self.is_sealed());
        }
        match self.journal.append("package-sealed", &json!({ "decision": record.decided().decision })) {
            Ok(()) | Err(JournalError::Closed { .. }) => self.journal.close(),
            Err(error) => return Err(error.into()),
        }
        let mut listed = Vec::new();
        self.walk(Path::new(""), &mut listed)?;
        let unclean: Vec<_> = listed.iter().filter(|name| !self.state().clean.contains(*name) && !self.is_journal(name)).cloned().collect();
        for name in unclean {
            let replaced = self.scrub(&name)?;
            let mut state = self.state();
            state.replaced += replaced;
            state.clean.insert(name);
        }

        let mut value = serde_json::to_value(record)?;
        let replaced = self.redactor.read().unwrap_or_else(PoisonError::into_inner).value(&mut value);
        let mut record: DrillRecord = serde_json::from_value(value)?;
        record.redactions = self.state().replaced + self.journal.replaced() + replaced;

        for (name, text) in [("report.md", markdown(&record)), ("report.html", html(&record)), ("junit.xml", junit(&record))] {
            self.store_text(Path::new(name), text.as_bytes())?;
            listed.push(name.into());
        }
        listed.retain(|name| name != Path::new("manifest.json") && name != Path::new("evidence.json"));
        listed.sort();
        listed.dedup();
        let files = listed.iter().map(|name| self.entry(name)).collect::<Result<Vec<_>, _>>()?;
        let manifest = pretty(&Manifest { version: manifest::VERSION, files: files.clone() })?;
        self.store(Path::new("manifest.json"), &manifest)?;

        let mut subjects = vec![Subject { name: "manifest.json".into(), sha256: hex::encode(Sha256::digest(&manifest)) }];
        subjects.extend(files.iter().map(|file| Subject { name: file.path.clone(), sha256: file.sha256.clone() }));
        let evidence = pretty(&statement(&record, &subjects))?;
        self.store(Path::new("evidence.json"), &evidence)?;
        self.state().sealed = true;
        Ok(SealedPackage {
            path: self.path.clone(),
            files,
            redactions: record.redactions,
            evidence_sha256: hex::encode(Sha256::digest(&evidence)),
        })
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_sealed(&self) -> EvidenceError {
        EvidenceError::Sealed { path: self.path.clone() }
    }

    fn is_journal(&self, name: &Path) -> bool {
        name == Path::new(RESERVED[0])
    }

    /// The checked name of a file to come, its directory made, nothing on the way a symbolic link.
    fn named(&self, name: &Path) -> Result<PathBuf, EvidenceError> {
        let wrong = |why| EvidenceError::Name { name: name.to_string_lossy().into_owned(), why };
        if self.state().sealed {
            return Err(self.is_sealed());
        }
        let clean = names::relative(name).map_err(wrong)?;
        if RESERVED.iter().any(|reserved| clean.starts_with(reserved)) {
            return Err(wrong("the package writes that one itself"));
        }
        let mut at = self.path.clone();
        for part in clean.parent().into_iter().flat_map(Path::components) {
            at.push(part);
            match fs::symlink_metadata(&at) {
                Ok(found) if found.is_dir() => {}
                Ok(_) => return Err(EvidenceError::NotAFile { path: at }),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    fs::create_dir(&at).map_err(|source| EvidenceError::Io { operation: "write", path: at.clone(), source })?;
                }
                Err(source) => return Err(EvidenceError::Io { operation: "read", path: at, source }),
            }
        }
        match fs::symlink_metadata(at.join(clean.file_name().unwrap_or_default())) {
            Ok(found) if !found.is_file() => Err(EvidenceError::NotAFile { path: self.path.join(&clean) }),
            _ => Ok(clean),
        }
    }

    fn store_text(&self, name: &Path, bytes: &[u8]) -> Result<u64, EvidenceError> {
        if turnback_core::evidence::redact::is_binary(bytes) {
            self.store(name, bytes)?;
            return Ok(0);
        }
        let redactor = self.redactor.read().unwrap_or_else(PoisonError::into_inner).clone();
        let (clean, replaced) = redactor.bytes(bytes);
        self.store(name, &clean)?;
        Ok(replaced)
    }

    /// Whole or not at all: under another name first.
    fn store(&self, name: &Path, bytes: &[u8]) -> Result<(), EvidenceError> {
        let path = self.path.join(name);
        let failed = |source| EvidenceError::Io { operation: "write", path: path.clone(), source };
        let mut file = tempfile::Builder::new()
            .prefix(".")
            .suffix(".part")
            .permissions(fs::Permissions::from_mode(0o666))
            .tempfile_in(path.parent().unwrap_or(&self.path))
            .map_err(failed)?;
        file.write_all(bytes).map_err(failed)?;
        file.persist(&path).map_err(|error| failed(error.error))?;
        Ok(())
    }

    fn scrub(&self, name: &Path) -> Result<u64, EvidenceError> {
        let redactor = self.redactor.read().unwrap_or_else(PoisonError::into_inner).clone();
        let path = self.path.join(name);
        scrub::scrub(&path, &redactor).map_err(|source| EvidenceError::Io { operation: "read", path, source })
    }

    fn entry(&self, name: &Path) -> Result<ManifestEntry, EvidenceError> {
        let path = self.path.join(name);
        let (sha256, bytes) = manifest::digest(&path).map_err(|source| EvidenceError::Io { operation: "read", path, source })?;
        Ok(ManifestEntry { path: name.to_string_lossy().into_owned(), sha256, bytes, media_type: media_type(name).to_owned() })
    }

    /// Every file below `dir`, by its name within the package.
    fn walk(&self, dir: &Path, listed: &mut Vec<PathBuf>) -> Result<(), EvidenceError> {
        let at = self.path.join(dir);
        let failed = |source| EvidenceError::Io { operation: "list", path: at.clone(), source };
        for found in fs::read_dir(&at).map_err(failed)? {
            let found = found.map_err(failed)?;
            let name = dir.join(found.file_name());
            // Of the entry itself, not of what a link points to.
            let kind = found.file_type().map_err(failed)?;
            if kind.is_dir() {
                self.walk(&name, listed)?;
            } else if kind.is_file() {
                names::relative(&name).map_err(|why| EvidenceError::Name { name: name.to_string_lossy().into_owned(), why })?;
                listed.push(name);
            } else {
                return Err(EvidenceError::NotAFile { path: self.path.join(name) });
            }
        }
        Ok(())
    }
}

/// JSON as evidence holds it: indented, keys in their order, a newline at the end.
fn pretty(value: &impl Serialize) -> Result<Vec<u8>, EvidenceError> {
    let mut bytes = serde_json::to_vec_pretty(value)?;
    bytes.push(b'\n');
    Ok(bytes)
}

#[cfg(test)]
#[path = "package_tests.rs"]
mod tests;
