//! Tests of the package: what ends up in it, what never does, and what a sealed one holds.

use super::*;
use serde_json::Value;
use turnback_core::drill::{Check, CheckId, verdict};
use turnback_core::evidence::{Cleanup, Objectives, Run, Scenario};

fn started() -> Timestamp {
    "2026-11-20T21:04:05.123456Z".parse().unwrap()
}

fn record() -> DrillRecord {
    let checks: Vec<_> = CheckId::CRITICAL.iter().map(|id| Check::observed(*id, true, "yes", "yes")).collect();
    DrillRecord {
        run: Run {
            id: "run".into(),
            nonce: "nonce".into(),
            turnback: "0.1.0".into(),
            command: "turnback run --url postgres://app:hunter2x@db/orders".into(),
            platform: "local".into(),
            platform_note: "a rehearsal".into(),
            actor: "student".into(),
            started: started(),
            ended: started(),
            wall_ms: 1,
        },
        scenario: Scenario { feature: "f".into(), file: "f.feature".into(), name: "n".into(), steps: vec![] },
        toolchain: vec![],
        phases: vec![],
        backups: vec![],
        recovery_points: vec![],
        changes: vec![],
        reverts: vec![],
        restores: vec![],
        comparisons: vec![],
        objectives: Objectives::default(),
        verdict: Some(verdict(&checks, &[])),
        checks,
        incidents: vec![],
        faults: vec![],
        not_exercised: vec![],
        limits: vec!["the token opensesame".into()],
        cleanup: Cleanup::default(),
        redactions: 0,
    }
}

fn package() -> (tempfile::TempDir, Package) {
    let root = tempfile::tempdir().unwrap();
    let package = Package::create(root.path(), started(), "Data rollback").unwrap();
    (root, package)
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

#[test]
fn a_sealed_package_lists_every_file_with_its_digest() {
    let (_root, package) = package();
    package.journal().append("started", &1).unwrap();
    package.add_file("snapshots/known-good.json", b"{}").unwrap();
    fs::write(package.place("logs/server.log").unwrap(), "LOG: ready").unwrap();
    package.adopt("logs/server.log").unwrap();
    fs::write(package.path().join("forgotten.txt"), "password=hunter2x").unwrap();
    let sealed = package.seal(&record()).unwrap();

    let names: Vec<_> = sealed.files.iter().map(|file| file.path.as_str()).collect();
    assert_eq!(
        names,
        ["forgotten.txt", "journal.ndjson", "junit.xml", "logs/server.log", "report.html", "report.md", "snapshots/known-good.json"]
    );
    let manifest = json(&sealed.path.join("manifest.json"));
    let evidence = json(&sealed.path.join("evidence.json"));
    for (place, file) in manifest["files"].as_array().unwrap().iter().enumerate() {
        let bytes = fs::read(sealed.path.join(file["path"].as_str().unwrap())).unwrap();
        assert_eq!(file["sha256"], hex::encode(Sha256::digest(&bytes)));
        assert_eq!(file["bytes"], bytes.len());
        assert!(!file["media_type"].as_str().unwrap().is_empty());
        assert_eq!(evidence["subject"][place + 1]["name"], file["path"]);
        assert_eq!(evidence["subject"][place + 1]["digest"]["sha256"], file["sha256"]);
    }
    let manifest = fs::read(sealed.path.join("manifest.json")).unwrap();
    assert_eq!(evidence["subject"][0]["name"], "manifest.json");
    assert_eq!(evidence["subject"][0]["digest"]["sha256"], hex::encode(Sha256::digest(manifest)));
    assert_eq!(evidence["predicate"]["verdict"]["decision"], "GO");
    assert_eq!(super::super::read(sealed.path.join("journal.ndjson")).unwrap().entries.last().unwrap().kind, "package-sealed");
}

#[test]
fn no_secret_reaches_any_file_whatever_way_it_came() {
    let (_root, package) = package();
    package.add_file("early.txt", b"opensesame was written before anyone knew").unwrap();
    assert!(package.know_secret("opensesame"));
    package.add_file("git.log", b"push to https://bot:hunter2x@git.example/x").unwrap();
    package.add_json("settings.json", &json!({ "password": "hunter2x two" })).unwrap();
    package.journal().append("connect", &"postgres://app:hunter2x@db/orders").unwrap();
    fs::write(package.place("logs/app.log").unwrap(), "DATABASE_URL=postgres://app:hunter2x@db/orders").unwrap();
    fs::write(package.place("rows.bin").unwrap(), b"\0\x01opensesame").unwrap();
    package.adopt("rows.bin").unwrap();
    let sealed = package.seal(&record()).unwrap();

    assert_eq!(fs::read(sealed.path.join("rows.bin")).unwrap(), b"\0\x01opensesame", "binary files stay as they are");
    for name in
        sealed.files.iter().map(|file| file.path.as_str()).chain(["manifest.json", "evidence.json"]).filter(|name| *name != "rows.bin")
    {
        let text = fs::read_to_string(sealed.path.join(name)).unwrap();
        assert!(!text.contains("hunter2x") && !text.contains("opensesame"), "{name}: {text}");
    }
    // early, git, settings, journal, app.log, and two in the record.
    assert_eq!(sealed.redactions, 7);
    assert_eq!(json(&sealed.path.join("evidence.json"))["predicate"]["redactions"], 7);
}

#[test]
fn a_package_is_never_written_over() {
    let root = tempfile::tempdir().unwrap();
    let names: Vec<_> = (0..3)
        .map(|_| Package::create(root.path(), started(), "../Data: rollback!").unwrap().path().file_name().unwrap().to_owned())
        .collect();
    assert_eq!(names, ["20261120T210405Z-data-rollback", "20261120T210405Z-data-rollback-2", "20261120T210405Z-data-rollback-3"]);
}

#[test]
fn a_place_that_cannot_be_written_is_named_before_anything_starts() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("file");
    fs::write(&file, "").unwrap();
    // Below a regular file nothing can be written, not even by root.
    let below = file.join("evidence");
    for error in [preflight(&below).unwrap_err(), Package::create(&below, started(), "x").unwrap_err()] {
        assert!(matches!(&error, EvidenceError::NotWritable { path, .. } if *path == below));
        let text = error.to_string();
        assert!(text.contains(&below.display().to_string()) && text.contains("--evidence DIR"), "{text}");
    }
    preflight(&root.path().join("a/b")).unwrap();
    assert_eq!(fs::read_dir(root.path().join("a/b")).unwrap().count(), 0);
}

#[test]
fn names_stay_inside_and_reserved_ones_are_refused() {
    let (root, package) = package();
    for bad in ["../out.txt", "/out.txt", "", "a/../../b", "evidence.json", "journal.ndjson", "./manifest.json", "report.md/x"] {
        assert!(matches!(package.add_file(bad, b"x"), Err(EvidenceError::Name { .. })), "{bad}");
    }
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
}

#[test]
fn symbolic_links_are_not_followed() {
    let (root, package) = package();
    let outside = root.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret"), "password=hunter2x").unwrap();
    std::os::unix::fs::symlink(&outside, package.path().join("dir")).unwrap();
    std::os::unix::fs::symlink(outside.join("secret"), package.path().join("file")).unwrap();
    assert!(matches!(package.add_file("dir/x", b"x"), Err(EvidenceError::NotAFile { .. })));
    assert!(matches!(package.adopt("file"), Err(EvidenceError::NotAFile { .. })));
    assert!(matches!(package.seal(&record()), Err(EvidenceError::NotAFile { .. })));
    assert_eq!(fs::read_to_string(outside.join("secret")).unwrap(), "password=hunter2x");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
}

#[test]
fn nothing_changes_after_sealing() {
    let (_root, package) = package();
    package.seal(&record()).unwrap();
    assert!(matches!(package.add_file("late.txt", b"x"), Err(EvidenceError::Sealed { .. })));
    assert!(matches!(package.seal(&record()), Err(EvidenceError::Sealed { .. })));
    assert!(matches!(package.journal().append("late", &1), Err(JournalError::Closed { .. })));
}

#[test]
fn the_page_about_the_evidence_names_every_file_that_each_package_has() {
    let page = include_str!("../../docs/evidence.md");
    for name in RESERVED {
        assert!(page.contains(&format!("| `{name}` |")), "docs/evidence.md does not say what {name} is");
    }
}
