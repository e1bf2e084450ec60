//! The Git adapter and the desired state, on real repositories in a scratch directory.

use git2::{FileMode, Signature, Time};
use jiff::Timestamp;
use turnback::gitops::tree::{self, TreeError};
use turnback::gitops::{ChangeKind, ChangedFile, CommitId, FileChange, GitError, Repository, TREE};
use turnback::platform::local::reconciler::{Desired, ReconcileError};

struct Scratch {
    directory: tempfile::TempDir,
    repository: Repository,
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_790_000_000 + second).unwrap()
}

fn scratch() -> Scratch {
    let directory = tempfile::tempdir().unwrap();
    let repository = Repository::create(&directory.path().join("tree.git"), &TREE, at(0)).unwrap();
    Scratch { directory, repository }
}

impl Scratch {
    fn write(&self, path: &str, content: &str, second: i64) -> CommitId {
        self.repository.commit(&[FileChange::write(path, content)], &format!("Write {path}"), at(second)).unwrap()
    }

    fn add_migration(&self, name: &str, sql: &str) -> CommitId {
        let head = self.repository.head().unwrap();
        let kustomization = self.repository.read(&head, &tree::migrations_kustomization()).unwrap().unwrap();
        let added = tree::add_migration(&kustomization, name, sql, 0).unwrap();
        self.repository.commit(&added.changes, &format!("Add {name}"), at(5)).unwrap()
    }

    fn git(&self) -> git2::Repository {
        git2::Repository::open_bare(self.repository.path()).unwrap()
    }

    fn tree_of(&self, commit: &CommitId) -> git2::Oid {
        self.git().find_commit(git2::Oid::from_str(commit.as_str()).unwrap()).unwrap().tree_id()
    }

    /// A commit on top of the head with one entry of any mode.
    fn entry(&self, name: &str, content: &[u8], mode: FileMode) -> CommitId {
        let git = self.git();
        let head = git.head().unwrap().peel_to_commit().unwrap();
        let id = if mode == FileMode::Commit { head.id() } else { git.blob(content).unwrap() };
        let mut builder = git.treebuilder(Some(&head.tree().unwrap())).unwrap();
        builder.insert(name, id, mode.into()).unwrap();
        let tree = git.find_tree(builder.write().unwrap()).unwrap();
        let author = Signature::new("A", "a@b.invalid", &Time::new(1, 0)).unwrap();
        git.commit(Some("HEAD"), &author, &author, "entry", &tree, &[&head]).unwrap();
        self.repository.head().unwrap()
    }
}

#[test]
fn the_first_commit_is_the_shipped_tree_and_is_the_same_everywhere() {
    let (one, other) = (scratch(), scratch());
    let head = one.repository.head().unwrap();
    assert_eq!(head, other.repository.head().unwrap());
    assert_eq!(one.repository.read(&head, tree::RELEASE).unwrap().unwrap(), TREE.get_file(tree::RELEASE).unwrap().contents());
    assert!(one.repository.list(&head, "infrastructure/data/cnpg-clusters").unwrap().iter().any(|p| p.ends_with("staging/cluster.yaml")));
    assert_eq!(one.repository.resolve("main").unwrap(), head);
    // libgit2 itself leaves a text there; a hook could only come from the machine's template.
    let hooks: Vec<_> = std::fs::read_dir(one.repository.path().join("hooks")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(hooks, ["README.sample"]);
}

#[test]
fn a_revert_gives_exactly_the_tree_from_before() {
    let s = scratch();
    let before = s.repository.head().unwrap();
    let bad = s.add_migration("corrupt_dummy", "UPDATE dummy SET label = 'x';\n");
    let revert = s.repository.revert(&bad, at(9)).unwrap();
    assert_eq!(s.tree_of(&revert), s.tree_of(&before));
    assert_eq!(s.repository.changed_files(&before, &revert).unwrap(), []);
    let log = s.repository.log(2).unwrap();
    assert_eq!(log[0].message, format!("Revert \"Add corrupt_dummy\"\n\nThis reverts commit {bad}.\n"));
    assert_eq!((log[0].time, log[0].parents.as_slice()), (at(9), [bad.clone()].as_slice()));
    assert_eq!(log[0].author, "Turnback Drill <drill@turnback.invalid>");
    assert!(log[0].files.contains(&ChangedFile { path: tree::migrations_kustomization(), change: ChangeKind::Modified }));
    assert_eq!(log[1].files.iter().filter(|f| f.change == ChangeKind::Added).count(), 2);
}

#[test]
fn a_revert_keeps_what_was_committed_since() {
    let s = scratch();
    let bad = s.write("apps/a.txt", "bad\n", 1);
    let later = s.write("apps/b.txt", "good\n", 2);
    let revert = s.repository.revert(&bad, at(3)).unwrap();
    assert_eq!(s.repository.read(&revert, "apps/a.txt").unwrap(), None);
    assert_eq!(s.repository.read(&revert, "apps/b.txt").unwrap().unwrap(), b"good\n");
    let expected = [ChangedFile { path: "apps/a.txt".into(), change: ChangeKind::Removed }];
    assert_eq!(s.repository.changed_files(&later, &revert).unwrap(), expected);
}

#[test]
fn a_conflict_names_the_files_and_moves_nothing() {
    let s = scratch();
    s.write("apps/a.txt", "one\n", 1);
    let bad = s.write("apps/a.txt", "two\n", 2);
    let head = s.write("apps/a.txt", "three\n", 3);
    match s.repository.revert(&bad, at(4)) {
        Err(GitError::RevertConflict { commit, files }) => assert_eq!((commit, files), (bad, vec!["apps/a.txt".to_owned()])),
        other => panic!("{other:?}"),
    }
    assert_eq!(s.repository.head().unwrap(), head);
}

#[test]
fn what_cannot_be_reverted_is_named() {
    let s = scratch();
    let first = s.repository.head().unwrap();
    assert!(matches!(s.repository.revert(&first, at(1)), Err(GitError::RevertOfFirst(_))));
    let bad = s.write("a", "a", 1);
    s.repository.revert(&bad, at(2)).unwrap();
    assert!(matches!(s.repository.revert(&bad, at(3)), Err(GitError::NothingToRevert(_) | GitError::RevertConflict { .. })));
    let git = s.git();
    let head = git.head().unwrap().peel_to_commit().unwrap();
    let side = git.find_commit(git2::Oid::from_str(first.as_str()).unwrap()).unwrap();
    let author = Signature::new("A", "a@b.invalid", &Time::new(1, 0)).unwrap();
    git.commit(Some("HEAD"), &author, &author, "merge", &head.tree().unwrap(), &[&head, &side]).unwrap();
    let merge = s.repository.head().unwrap();
    assert!(matches!(s.repository.revert(&merge, at(4)), Err(GitError::RevertOfMerge { parents: 2, .. })));
}

#[test]
fn a_commit_is_checked_before_it_is_made() {
    let s = scratch();
    let head = s.repository.head().unwrap();
    for path in ["../out", "/etc/passwd", "a/../../b", ".git/hooks/pre-commit", "a/.GIT/config", "", "a/", "a\0b", "a\\b"] {
        let refused = s.repository.commit(&[FileChange::write(path, "x")], "m", at(1));
        assert!(matches!(refused, Err(GitError::Path(_))), "{path:?}: {refused:?}");
    }
    let missing = s.repository.commit(&[FileChange::Remove { path: "nowhere".into() }], "m", at(1));
    assert!(matches!(missing, Err(GitError::Missing { .. })));
    let same = String::from_utf8(s.repository.read(&head, tree::RELEASE).unwrap().unwrap()).unwrap();
    assert!(matches!(s.repository.commit(&[FileChange::write(tree::RELEASE, same)], "m", at(1)), Err(GitError::Unchanged { .. })));
    assert_eq!(s.repository.head().unwrap(), head);
}

#[test]
fn links_submodules_and_huge_files_are_not_read() {
    let s = scratch();
    let link = s.entry("link", b"/etc/passwd", FileMode::Link);
    assert!(matches!(s.repository.read(&link, "link"), Err(GitError::NotAFile { what: "symbolic link", .. })));
    let module = s.entry("module", b"", FileMode::Commit);
    assert!(matches!(s.repository.read(&module, "module"), Err(GitError::NotAFile { what: "submodule", .. })));
    let huge = s.entry("huge", &vec![b'x'; 5 * 1024 * 1024], FileMode::Blob);
    assert!(matches!(s.repository.read(&huge, "huge"), Err(GitError::TooLarge { .. })));
    assert!(matches!(s.repository.read(&huge, "apps"), Err(GitError::NotAFile { what: "directory", .. })));
}

#[test]
fn hooks_and_filters_of_a_foreign_repository_do_not_run() {
    use std::os::unix::fs::PermissionsExt;
    let s = scratch();
    let (hooks, trace) = (s.repository.path().join("hooks"), s.directory.path().join("ran"));
    std::fs::create_dir_all(&hooks).unwrap();
    let script = format!("#!/bin/sh\ntouch {}\n", trace.display());
    for hook in ["pre-commit", "post-commit", "reference-transaction", "post-rewrite", "fsmonitor"] {
        std::fs::write(hooks.join(hook), &script).unwrap();
        std::fs::set_permissions(hooks.join(hook), std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let mut config = s.git().config().unwrap();
    config.set_str("core.fsmonitor", &hooks.join("fsmonitor").to_string_lossy()).unwrap();
    config.set_str("filter.evil.clean", &hooks.join("fsmonitor").to_string_lossy()).unwrap();
    s.write(".gitattributes", "* filter=evil merge=evil\n", 1);
    let repository = Repository::open(s.repository.path()).unwrap();
    let bad = repository.commit(&[FileChange::write("a.txt", "a\n")], "m", at(2)).unwrap();
    repository.revert(&bad, at(3)).unwrap();
    assert!(!trace.exists());
}

#[test]
fn a_place_that_is_no_usable_repository_is_named() {
    let s = scratch();
    assert!(matches!(Repository::create(s.repository.path(), &TREE, at(1)), Err(GitError::NotEmpty(_))));
    assert!(matches!(Repository::open(s.directory.path()), Err(GitError::Git { operation: "open", .. })));
    git2::Repository::init_bare(s.directory.path().join("empty.git")).unwrap();
    assert!(matches!(Repository::open(&s.directory.path().join("empty.git")), Err(GitError::NoCommit(_))));
    let git = s.git();
    git.set_head_detached(git.head().unwrap().target().unwrap()).unwrap();
    assert!(matches!(Repository::open(s.repository.path()), Err(GitError::Detached(_))));
    assert!(matches!(s.repository.resolve("no-such-branch"), Err(GitError::UnknownRevision { .. })));
}

#[test]
fn the_desired_state_is_that_of_the_revision_asked_for() {
    let s = scratch();
    let first = s.repository.head().unwrap();
    let bad = s.add_migration("corrupt_dummy", "UPDATE dummy SET label = 'x';\n");
    let release = s.repository.read(&bad, tree::RELEASE).unwrap().unwrap();
    let switched = s.repository.commit(&[tree::set_database(&release, "orders-restored").unwrap()], "Switch", at(6)).unwrap();

    let names = |revision: &CommitId| {
        let desired = Desired::read(&s.repository, revision).unwrap();
        (desired.migrations.iter().map(|m| m.name.clone()).collect::<Vec<_>>(), desired.database, desired.version)
    };
    let base = ["0001_create_orders".to_owned(), "0002_seed_catalogue".to_owned()];
    assert_eq!(names(&first), (base.to_vec(), "orders-production".into(), "1.0.0".into()));
    assert_eq!(names(&bad).0, [base.as_slice(), &["0003_corrupt_dummy".to_owned()]].concat());
    assert_eq!(names(&switched).1, "orders-restored");

    let desired = Desired::read(&s.repository, &bad).unwrap();
    assert!(desired.not_exercised.contains(&"apps/orders/service/deployment.yaml".to_owned()));
    assert!(desired.not_exercised.iter().all(|p| !p.starts_with(tree::MIGRATIONS) && p != tree::RELEASE), "{:?}", desired.not_exercised);
}

#[test]
fn a_tree_that_lost_a_file_is_refused_with_its_revision() {
    let s = scratch();
    let path = format!("{}/0002_seed_catalogue.sql", tree::MIGRATIONS);
    let broken = s.repository.commit(&[FileChange::Remove { path: path.clone() }], "Lose it", at(1)).unwrap();
    match Desired::read(&s.repository, &broken) {
        Err(ReconcileError::Tree { revision, source: TreeError::Missing(missing) }) => assert_eq!((revision, missing), (broken, path)),
        other => panic!("{other:?}"),
    }
}
