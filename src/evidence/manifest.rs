//! manifest.json: path, SHA-256, size and media type of every file of a package.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// The manifest's format; a reader refuses others.
pub(super) const VERSION: u32 = 1;

/// The whole manifest.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest {
    /// Its format.
    pub version: u32,
    /// Every file but the manifest itself and evidence.json, in order of their paths.
    pub files: Vec<ManifestEntry>,
}

/// One file of a package.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManifestEntry {
    /// Its path within the package, parts joined by `/`.
    pub path: String,
    /// Its SHA-256, in hexadecimal.
    pub sha256: String,
    /// Its size.
    pub bytes: u64,
    /// What it is.
    pub media_type: String,
}

/// The media type of a file, by its name.
#[must_use]
pub fn media_type(path: &Path) -> &'static str {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("json") => "application/json",
        Some("ndjson") => "application/x-ndjson",
        Some("md") => "text/markdown",
        Some("html") => "text/html",
        Some("xml") => "application/xml",
        Some("yaml" | "yml") => "application/yaml",
        Some("sql") => "application/sql",
        Some("diff" | "patch") => "text/x-diff",
        Some("log" | "txt" | "feature" | "conf") | None => "text/plain",
        Some(_) => "application/octet-stream",
    }
}

/// A file's SHA-256 and size, read in pieces: rows may be larger than memory.
pub(super) fn digest(path: &Path) -> io::Result<(String, u64)> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut piece = vec![0; 128 * 1024];
    let mut bytes = 0;
    loop {
        match file.read(&mut piece) {
            Ok(0) => return Ok((hex::encode(hasher.finalize()), bytes)),
            Ok(count) => {
                hasher.update(&piece[..count]);
                bytes += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
