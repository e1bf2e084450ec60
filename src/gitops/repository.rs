//! Reading and writing commits of a bare repository.
//!
//! Each operation opens the repository anew: that costs a fraction of a millisecond, and the handle can be shared between tasks.

use super::{BRANCH, CommitId, FileChange, GitError};
use git2::{Delta, FileMode, Index, IndexEntry, IndexTime, ObjectType, Oid, Signature, Sort, Time, Tree, TreeWalkMode, TreeWalkResult};
use include_dir::{Dir, DirEntry};
use jiff::Timestamp;
use serde::Serialize;
use std::path::{Component, Path, PathBuf};

const AUTHOR: (&str, &str) = ("Turnback Drill", "drill@turnback.invalid");
/// No file of a GitOps tree comes near this; a larger one is refused instead of read into memory.
const LARGEST_FILE: usize = 4 * 1024 * 1024;

/// A Git repository on this machine.
#[derive(Clone, Debug)]
pub struct Repository {
    path: PathBuf,
}

/// A commit, as the evidence lists it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LogEntry {
    /// Its name.
    pub id: CommitId,
    /// The names of its parents.
    pub parents: Vec<CommitId>,
    /// The whole message.
    pub message: String,
    /// `Name <address>`
    pub author: String,
    /// When it was committed.
    pub time: Timestamp,
    /// The files that it changed against its first parent.
    pub files: Vec<ChangedFile>,
}

/// A file that differs between two revisions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ChangedFile {
    /// Where.
    pub path: String,
    /// How.
    pub change: ChangeKind,
}

/// How a file differs between two revisions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ChangeKind {
    /// Only the later one has it.
    Added,
    /// Only the earlier one has it.
    Removed,
    /// Content or mode differ.
    Modified,
}

impl Repository {
    /// Creates a bare repository whose first commit, on `main`, holds the files of `tree`. The directory is created too and must be empty.
    ///
    /// # Errors
    /// When the directory is not empty or cannot be written.
    pub fn create(path: &Path, tree: &Dir<'_>, time: Timestamp) -> Result<Self, GitError> {
        let failed = |source| GitError::Directory { path: path.to_owned(), source };
        std::fs::create_dir_all(path).map_err(failed)?;
        if std::fs::read_dir(path).map_err(failed)?.next().is_some() {
            return Err(GitError::NotEmpty(path.to_owned()));
        }
        let this = Self { path: path.to_owned() };
        let mut options = git2::RepositoryInitOptions::new();
        // No template: it would bring the machine's hooks along.
        options.bare(true).initial_head(BRANCH).external_template(false);
        let repository = git2::Repository::init_opts(path, &options).map_err(|e| this.failed("create", e))?;
        let mut changes = Vec::new();
        collect(tree, &mut changes);
        this.write(&repository, None, &changes, "Add the GitOps tree", time)?;
        Ok(this)
    }

    /// Opens a repository that is there: its own directory, or the `.git` in it; directories above are not searched.
    ///
    /// # Errors
    /// When it is not a repository, belongs to another account, has no commit or a detached head.
    pub fn open(path: &Path) -> Result<Self, GitError> {
        let this = Self { path: path.to_owned() };
        this.head()?;
        Ok(this)
    }

    /// Where it lies.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The commit at the head of the branch.
    ///
    /// # Errors
    /// When there is no commit, or HEAD is detached.
    pub fn head(&self) -> Result<CommitId, GitError> {
        Ok(id(self.head_commit(&self.git()?)?.id()))
    }

    /// The commit that a revision (`main`, a full or short commit name) stands for.
    ///
    /// # Errors
    /// When there is none.
    pub fn resolve(&self, revision: &str) -> Result<CommitId, GitError> {
        let repository = self.git()?;
        let unknown = |_| GitError::UnknownRevision { repository: self.path.clone(), revision: revision.to_owned() };
        let object = repository.revparse_single(revision).map_err(unknown)?;
        Ok(id(object.peel_to_commit().map_err(unknown)?.id()))
    }

    /// Commits the changes on top of the branch's head.
    ///
    /// # Errors
    /// When a path leaves the repository, a file to remove is not there, or nothing would change.
    pub fn commit(&self, changes: &[FileChange], message: &str, time: Timestamp) -> Result<CommitId, GitError> {
        let repository = self.git()?;
        let head = self.head_commit(&repository)?;
        self.write(&repository, Some(&head), changes, message, time)
    }

    /// Commits what undoes `commit` on top of the branch's head.
    ///
    /// # Errors
    /// When it is a merge or the first commit, when later commits conflict with the revert, or when it was reverted before.
    pub fn revert(&self, commit: &CommitId, time: Timestamp) -> Result<CommitId, GitError> {
        let repository = self.git()?;
        let head = self.head_commit(&repository)?;
        let bad = self.find(&repository, commit)?;
        match bad.parent_count() {
            0 => return Err(GitError::RevertOfFirst(commit.clone())),
            1 => (),
            parents => return Err(GitError::RevertOfMerge { commit: commit.clone(), parents }),
        }
        let mut index = repository.revert_commit(&bad, &head, 0, None).map_err(|e| self.failed("revert a commit", e))?;
        if index.has_conflicts() {
            return Err(GitError::RevertConflict { commit: commit.clone(), files: self.conflicts(&index)? });
        }
        let tree = index.write_tree_to(&repository).map_err(|e| self.failed("write a tree", e))?;
        if tree == head.tree_id() {
            return Err(GitError::NothingToRevert(commit.clone()));
        }
        let summary = String::from_utf8_lossy(bad.message_bytes()).lines().next().unwrap_or_default().to_owned();
        let message = format!("Revert \"{summary}\"\n\nThis reverts commit {commit}.\n");
        self.record(&repository, Some(&head), tree, &message, time)
    }

    /// The latest commits of the branch, newest first.
    ///
    /// # Errors
    /// When the history cannot be read.
    pub fn log(&self, limit: usize) -> Result<Vec<LogEntry>, GitError> {
        let repository = self.git()?;
        let failed = |e| self.failed("read the history", e);
        let mut walk = repository.revwalk().map_err(failed)?;
        walk.push_head().map_err(failed)?;
        walk.set_sorting(Sort::TOPOLOGICAL).map_err(failed)?;
        walk.take(limit).map(|oid| self.entry(&repository, oid.map_err(failed)?)).collect()
    }

    /// The content of a file, or `None` where the revision has none at this path.
    ///
    /// # Errors
    /// When it is not a file, or larger than 4 MiB.
    pub fn read(&self, revision: &CommitId, path: &str) -> Result<Option<Vec<u8>>, GitError> {
        let repository = self.git()?;
        let tree = self.tree(&repository, revision)?;
        let entry = match tree.get_path(checked(path)?) {
            Ok(entry) => entry,
            Err(e) if e.code() == git2::ErrorCode::NotFound => return Ok(None),
            Err(e) => return Err(self.failed("read a file", e)),
        };
        let what = match (entry.kind(), entry.filemode()) {
            (Some(ObjectType::Blob), mode) if mode != i32::from(FileMode::Link) => None,
            (Some(ObjectType::Blob), _) => Some("symbolic link"),
            (Some(ObjectType::Commit), _) => Some("submodule"),
            _ => Some("directory"),
        };
        if let Some(what) = what {
            return Err(GitError::NotAFile { path: path.to_owned(), revision: revision.clone(), what });
        }
        let objects = repository.odb().map_err(|e| self.failed("read a file", e))?;
        let (bytes, _) = objects.read_header(entry.id()).map_err(|e| self.failed("read a file", e))?;
        if bytes > LARGEST_FILE {
            return Err(GitError::TooLarge { path: path.to_owned(), revision: revision.clone(), bytes, limit: LARGEST_FILE });
        }
        let blob = repository.find_blob(entry.id()).map_err(|e| self.failed("read a file", e))?;
        Ok(Some(blob.content().to_vec()))
    }

    /// Every path under a directory (`""` for all), sorted; symbolic links and submodules are listed, not followed.
    ///
    /// # Errors
    /// When the revision is unknown.
    pub fn list(&self, revision: &CommitId, directory: &str) -> Result<Vec<String>, GitError> {
        let repository = self.git()?;
        let mut paths = Vec::new();
        self.tree(&repository, revision)?
            .walk(TreeWalkMode::PreOrder, |parent, entry| {
                if entry.kind() != Some(ObjectType::Tree) {
                    paths.push(format!("{}{}", parent, String::from_utf8_lossy(entry.name_bytes())));
                }
                TreeWalkResult::Ok
            })
            .map_err(|e| self.failed("list the files", e))?;
        let prefix = format!("{}/", directory.trim_end_matches('/'));
        paths.retain(|path| directory.is_empty() || path.starts_with(&prefix));
        paths.sort();
        Ok(paths)
    }

    /// The files that differ between two revisions.
    ///
    /// # Errors
    /// When one of them is unknown.
    pub fn changed_files(&self, before: &CommitId, after: &CommitId) -> Result<Vec<ChangedFile>, GitError> {
        let repository = self.git()?;
        let (before, after) = (self.tree(&repository, before)?, self.tree(&repository, after)?);
        self.differences(&repository, Some(&before), &after)
    }

    fn git(&self) -> Result<git2::Repository, GitError> {
        git2::Repository::open_ext(&self.path, git2::RepositoryOpenFlags::NO_SEARCH, std::iter::empty::<&Path>())
            .map_err(|e| self.failed("open", e))
    }

    fn failed(&self, operation: &'static str, source: git2::Error) -> GitError {
        GitError::Git { operation, repository: self.path.clone(), source }
    }

    fn head_commit<'r>(&self, repository: &'r git2::Repository) -> Result<git2::Commit<'r>, GitError> {
        if repository.head_detached().unwrap_or(false) {
            return Err(GitError::Detached(self.path.clone()));
        }
        match repository.head() {
            Ok(head) => head.peel_to_commit().map_err(|e| self.failed("read the head", e)),
            Err(e) if matches!(e.code(), git2::ErrorCode::UnbornBranch | git2::ErrorCode::NotFound) => {
                Err(GitError::NoCommit(self.path.clone()))
            }
            Err(e) => Err(self.failed("read the head", e)),
        }
    }

    fn find<'r>(&self, repository: &'r git2::Repository, commit: &CommitId) -> Result<git2::Commit<'r>, GitError> {
        Oid::from_str(commit.as_str())
            .and_then(|oid| repository.find_commit(oid))
            .map_err(|_| GitError::UnknownRevision { repository: self.path.clone(), revision: commit.to_string() })
    }

    fn tree<'r>(&self, repository: &'r git2::Repository, commit: &CommitId) -> Result<Tree<'r>, GitError> {
        self.find(repository, commit)?.tree().map_err(|e| self.failed("read a tree", e))
    }

    fn write(
        &self,
        repository: &git2::Repository,
        parent: Option<&git2::Commit<'_>>,
        changes: &[FileChange],
        message: &str,
        time: Timestamp,
    ) -> Result<CommitId, GitError> {
        let failed = |e| self.failed("write a tree", e);
        let mut index = Index::new().map_err(failed)?;
        if let Some(parent) = parent {
            index.read_tree(&parent.tree().map_err(failed)?).map_err(failed)?;
        }
        for change in changes {
            let path = checked(change.path())?;
            match change {
                FileChange::Write { content, .. } => {
                    let blob = repository.blob(content).map_err(failed)?;
                    index.add(&entry_of(change.path(), blob, content.len())).map_err(failed)?;
                }
                FileChange::Remove { path: name } => {
                    if index.get_path(path, 0).is_none() {
                        let revision = parent.map_or_else(|| CommitId(String::new()), |p| id(p.id()));
                        return Err(GitError::Missing { path: name.clone(), revision });
                    }
                    index.remove_path(path).map_err(failed)?;
                }
            }
        }
        let tree = index.write_tree_to(repository).map_err(failed)?;
        if parent.is_some_and(|p| p.tree_id() == tree) {
            return Err(GitError::Unchanged { message: message.to_owned() });
        }
        self.record(repository, parent, tree, message, time)
    }

    fn record(
        &self,
        repository: &git2::Repository,
        parent: Option<&git2::Commit<'_>>,
        tree: Oid,
        message: &str,
        time: Timestamp,
    ) -> Result<CommitId, GitError> {
        let failed = |e| self.failed("commit", e);
        let author = Signature::new(AUTHOR.0, AUTHOR.1, &Time::new(time.as_second(), 0)).map_err(failed)?;
        let tree = repository.find_tree(tree).map_err(failed)?;
        // libgit2 moves HEAD's branch only from exactly this parent: a commit that came in between is an error, not lost.
        let parents = parent.map(|p| vec![p]).unwrap_or_default();
        repository.commit(Some("HEAD"), &author, &author, message, &tree, &parents).map(id).map_err(failed)
    }

    fn conflicts(&self, index: &Index) -> Result<Vec<String>, GitError> {
        let mut files = Vec::new();
        for conflict in index.conflicts().map_err(|e| self.failed("revert a commit", e))? {
            let conflict = conflict.map_err(|e| self.failed("revert a commit", e))?;
            if let Some(entry) = conflict.our.or(conflict.their).or(conflict.ancestor) {
                files.push(String::from_utf8_lossy(&entry.path).into_owned());
            }
        }
        files.sort();
        files.dedup();
        Ok(files)
    }

    fn entry(&self, repository: &git2::Repository, oid: Oid) -> Result<LogEntry, GitError> {
        let failed = |e| self.failed("read the history", e);
        let commit = repository.find_commit(oid).map_err(failed)?;
        let before = commit.parent(0).ok().map(|p| p.tree()).transpose().map_err(failed)?;
        let files = self.differences(repository, before.as_ref(), &commit.tree().map_err(failed)?)?;
        Ok(LogEntry {
            id: id(oid),
            parents: commit.parent_ids().map(id).collect(),
            message: String::from_utf8_lossy(commit.message_bytes()).into_owned(),
            author: commit.author().to_string(),
            time: Timestamp::from_second(commit.time().seconds()).unwrap_or(Timestamp::UNIX_EPOCH),
            files,
        })
    }

    fn differences(
        &self,
        repository: &git2::Repository,
        before: Option<&Tree<'_>>,
        after: &Tree<'_>,
    ) -> Result<Vec<ChangedFile>, GitError> {
        let difference = repository.diff_tree_to_tree(before, Some(after), None).map_err(|e| self.failed("compare revisions", e))?;
        let file = |delta: git2::DiffDelta<'_>| {
            let change = match delta.status() {
                Delta::Added => ChangeKind::Added,
                Delta::Deleted => ChangeKind::Removed,
                _ => ChangeKind::Modified,
            };
            let path = delta.new_file().path_bytes().or(delta.old_file().path_bytes()).unwrap_or_default();
            ChangedFile { path: String::from_utf8_lossy(path).into_owned(), change }
        };
        Ok(difference.deltas().map(file).collect())
    }
}

fn id(oid: Oid) -> CommitId {
    CommitId(oid.to_string())
}

/// A path that stays inside the repository and that Git itself would take.
fn checked(path: &str) -> Result<&Path, GitError> {
    let inside = Path::new(path).components().all(|c| matches!(c, Component::Normal(name) if !name.eq_ignore_ascii_case(".git")));
    if path.is_empty() || !inside || path.ends_with('/') || path.contains(['\0', '\\']) {
        return Err(GitError::Path(path.to_owned()));
    }
    Ok(Path::new(path))
}

fn entry_of(path: &str, blob: Oid, bytes: usize) -> IndexEntry {
    IndexEntry {
        ctime: IndexTime::new(0, 0),
        mtime: IndexTime::new(0, 0),
        dev: 0,
        ino: 0,
        mode: FileMode::Blob.into(),
        uid: 0,
        gid: 0,
        file_size: u32::try_from(bytes).unwrap_or(u32::MAX),
        id: blob,
        flags: 0,
        flags_extended: 0,
        path: path.as_bytes().to_vec(),
    }
}

fn collect(directory: &Dir<'_>, changes: &mut Vec<FileChange>) {
    for entry in directory.entries() {
        match entry {
            DirEntry::Dir(directory) => collect(directory, changes),
            DirEntry::File(file) => {
                changes.push(FileChange::Write { path: file.path().to_string_lossy().into_owned(), content: file.contents().to_vec() });
            }
        }
    }
}
