//! The Git repository that a drill's changes and reverts go through: a bare one, written object by object through libgit2.
//!
//! Nothing here makes a work tree or starts a process, so hooks, filters, fsmonitor and remote helpers of a repository that somebody else
//! made have no occasion to run. It knows nothing about databases and platforms; [`tree`] knows how the files are laid out.

mod error;
mod repository;
pub mod tree;
mod yaml;

pub use error::GitError;
pub use repository::{ChangeKind, ChangedFile, LogEntry, Repository};
pub use yaml::YamlError;

use include_dir::{Dir, include_dir};
use serde::{Deserialize, Serialize};
use std::fmt;

/// The GitOps tree that a drill starts from, as it stands in `flux/`; its paths are the repository's.
pub static TREE: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/flux");

/// The branch that platforms reconcile.
pub const BRANCH: &str = "main";

/// The full name of a commit: 40 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CommitId(String);

impl CommitId {
    /// The first ten digits, for people.
    #[must_use]
    pub fn short(&self) -> &str {
        self.0.get(..10).unwrap_or(&self.0)
    }

    /// A commit's full name, as Flux reports it: 40 hexadecimal digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        (text.len() == 40 && text.bytes().all(|byte| byte.is_ascii_hexdigit())).then(|| Self(text.to_ascii_lowercase()))
    }

    /// All digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CommitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One file that a commit shall write or remove. Paths are relative to the top of the repository, with `/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileChange {
    /// The file has this content after the commit.
    Write {
        /// Where.
        path: String,
        /// What.
        content: Vec<u8>,
    },
    /// The file is not there after the commit.
    Remove {
        /// Where.
        path: String,
    },
}

impl FileChange {
    /// A file written with text.
    pub fn write(path: impl Into<String>, content: impl Into<String>) -> Self {
        Self::Write { path: path.into(), content: content.into().into_bytes() }
    }

    /// The path that is changed.
    #[must_use]
    pub fn path(&self) -> &str {
        match self {
            Self::Write { path, .. } | Self::Remove { path } => path,
        }
    }
}
