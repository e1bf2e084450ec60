//! What can go wrong with a repository, said so that the reader knows the file or commit and the next step.

use super::CommitId;
use std::path::PathBuf;

/// Why an operation on a Git repository failed.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// libgit2 refused an operation.
    #[error("cannot {operation} in the repository {}: {}", repository.display(), source.message())]
    Git {
        /// What was tried.
        operation: &'static str,
        /// The repository.
        repository: PathBuf,
        /// What libgit2 said.
        source: git2::Error,
    },
    /// There is something at the place where a repository shall be created.
    #[error("cannot create a repository at {}: the directory is not empty; choose another or remove it", .0.display())]
    NotEmpty(PathBuf),
    /// The directory for the repository cannot be made or read.
    #[error("cannot create a repository at {}: {source}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The repository has no commit.
    #[error("the repository {} has no commit yet; commit the tree first", .0.display())]
    NoCommit(PathBuf),
    /// HEAD does not stand on a branch.
    #[error("HEAD of the repository {} is detached; check out the branch that the platform reconciles", .0.display())]
    Detached(PathBuf),
    /// A revision that the repository does not have.
    #[error("the repository {} has no revision {revision:?}", repository.display())]
    UnknownRevision {
        /// The repository.
        repository: PathBuf,
        /// What was asked for.
        revision: String,
    },
    /// A path that leaves the repository or that Git refuses.
    #[error("{0:?} is not a path inside the repository; use one relative to its top, without `..` and `.git`")]
    Path(String),
    /// A file to be removed that is not there.
    #[error("{path} is not in revision {}; nothing to remove", revision.short())]
    Missing {
        /// The file.
        path: String,
        /// Where it was looked for.
        revision: CommitId,
    },
    /// A symlink, a submodule or a directory where a file is read.
    #[error("{path} in revision {} is a {what}, not a file; it is not followed", revision.short())]
    NotAFile {
        /// The path.
        path: String,
        /// The revision.
        revision: CommitId,
        /// What it is.
        what: &'static str,
    },
    /// A file larger than what is read into memory.
    #[error("{path} in revision {} has {bytes} bytes; at most {limit} are read", revision.short())]
    TooLarge {
        /// The path.
        path: String,
        /// The revision.
        revision: CommitId,
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// A commit that would change nothing.
    #[error("the commit {message:?} would change nothing; the files already have this content")]
    Unchanged {
        /// Its message.
        message: String,
    },
    /// A merge cannot be reverted without naming the side to keep.
    #[error("commit {} is a merge of {parents} parents; revert the commits that it merged instead", commit.short())]
    RevertOfMerge {
        /// The commit.
        commit: CommitId,
        /// How many parents.
        parents: usize,
    },
    /// The first commit has nothing before it.
    #[error("commit {} is the first one; there is nothing to go back to", .0.short())]
    RevertOfFirst(CommitId),
    /// Later commits changed the same lines.
    #[error("reverting {} conflicts in {}; later commits changed the same lines: revert those first", commit.short(), files.join(", "))]
    RevertConflict {
        /// The commit.
        commit: CommitId,
        /// The files in conflict.
        files: Vec<String>,
    },
    /// The commit's changes are not there any more.
    #[error("reverting {} changes nothing; it was reverted before", .0.short())]
    NothingToRevert(CommitId),
}
