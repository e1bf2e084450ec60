//! What is refused before anything starts: exit code, the message, and no evidence begun.

use crate::support::{Place, SHOP, Scenario};
use std::os::unix::fs::PermissionsExt;

fn feature(text: &str) -> crate::support::Ran {
    let place = Place::new();
    let path = place.write("drill.feature", text);
    let ran = place.run(&[path.to_str().unwrap()]);
    assert!(!place.work().exists(), "a work root was made for {text:?}");
    ran
}

#[test]
fn feature_files_that_would_prove_nothing_are_refused() {
    let usual = Scenario::shop();
    let cases = [
        (usual.text().replace("Then replay", "Thne replay"), 2, "misspelt-keyword", "Thne"),
        (usual.text().replace("Scenario:", "Scenari:"), 2, "misspelt-keyword", "Scenari"),
        (usual.clone().instead("replay stopped", "Then replay halted exactly there").text(), 2, "undefined-step", "replay halted"),
        (usual.clone().instead("replay stopped", "When replay stopped exactly there").text(), 2, "wrong-keyword", "is a Then step"),
        (usual.clone().instead("replay stopped", "Tehn replay stopped exactly there").text(), 2, "misspelt-keyword", "“Then”"),
        (
            usual.clone().instead("is restored to", "When the database is restored to \"god\" by time").text(),
            2,
            "unknown-recovery-point",
            "“good”",
        ),
        (usual.clone().last("Then schema and data equal \"other\", exactly").text(), 2, "unknown-recovery-point", ":31:32: "),
        (usual.text().replacen("\"\"\"\n    Given", "\n    Given", 1), 2, "unclosed-text", "drill.feature:5:5"),
        ("Feature: nothing in it\n".to_owned(), 4, "no-scenario", "drill.feature:1:1"),
        ("Feature: a\n\n  Scenario: nothing in it\n".to_owned(), 2, "empty-scenario", "nothing in it"),
        (String::new(), 4, "empty-file", "drill.feature:1:1"),
        ("\u{feff}\r\n".to_owned(), 4, "empty-file", "drill.feature"),
        ("this is no feature\n".to_owned(), 2, "not-gherkin", "drill.feature:1"),
        (
            usual.instead("is restored to", "When the database is restored to the time \"2026-11-20 21:04:05\"").text(),
            2,
            "target-without-offset",
            "offset",
        ),
    ];
    for (text, code, finding, named) in cases {
        feature(&text).refused(code, &[finding, named, "nothing was started"]);
    }
}

#[test]
fn one_bad_feature_file_among_good_ones_stops_all_of_them() {
    let place = Place::new();
    std::fs::create_dir(place.path().join("features")).unwrap();
    place.write("features/a.feature", Scenario::shop().text());
    place.write("features/b.feature", "Feature: b\n  Scenario: c\n    Given a backup is baked\n");
    place.run(&["features"]).refused(2, &["b.feature:3:5", "undefined-step"]);
}

#[test]
fn a_feature_that_is_not_there_is_named_with_what_there_is() {
    let place = Place::new();
    place.run(&["nothere"]).refused(2, &["nothere", "data_rollback"]);
    let path = place.write("bytes.feature", b"Feature: \xff\xfe\n");
    place.run(&[path.to_str().unwrap()]).refused(2, &["bytes.feature", "UTF-8"]);
    std::fs::create_dir(place.path().join("empty")).unwrap();
    place.run(&["empty"]).refused(2, &["empty", ".feature"]);
}

#[test]
fn a_turnback_yaml_that_is_wrong_is_refused_with_its_place() {
    let good = "database: shop.sql\nmigration: harm.sql\n";
    let mut bomb = String::from("a: &a [x,x,x,x,x,x,x,x,x,x]\n");
    for (this, last) in ('b'..='i').zip('a'..='h') {
        bomb.push_str(&format!("{this}: &{this} [{}]\n", vec![format!("*{last}"); 10].join(",")));
    }
    for (text, needles) in [
        (String::new(), &["empty", "database:"][..]),
        ("\u{feff}".to_owned(), &["empty"]),
        (bomb, &["line"]),
        (format!("database: {}\nmigration: harm.sql\n", "[".repeat(5_000)), &["line 1", "column"]),
        (format!("{good}database: other.sql\n"), &["line 3", "column", "database"]),
        (format!("{good}tabel: shop\n"), &["line 3", "column", "tabel"]),
        (format!("{good}tabel: shop\n").replace('\n', "\r\n"), &["line 3", "column", "tabel"]),
        ("database: [shop.sql]\nmigration: harm.sql\n".to_owned(), &["line 1", "column"]),
        (format!("{good}target: tomorrow\n"), &["line 3", "column", "tomorrow"]),
        (format!("{good}rto: soon\n"), &["rto", "soon", "5 minutes"]),
        ("database: shop.sql\n".to_owned(), &["migration"]),
        ("database: nothere.sql\nmigration: harm.sql\n".to_owned(), &["nothere.sql", "database"]),
        ("just words\n".to_owned(), &["line 1", "column"]),
    ] {
        let place = Place::new();
        place.write("shop.sql", SHOP);
        place.write("harm.sql", "SELECT 1;");
        place.write("turnback.yaml", &text);
        let ran = place.run(&[]);
        eprintln!("{}", ran.err.trim().lines().next().unwrap_or_default());
        ran.refused(2, needles).refused(2, &["turnback.yaml"]);
    }
    let place = Place::new();
    place.run(&["--config", "nothere.yaml"]).refused(2, &["nothere.yaml"]);
}

#[test]
fn windows_line_ends_and_a_byte_order_mark_do_no_harm() {
    let place = Place::new();
    place.write("shop.sql", SHOP);
    place.write("harm.sql", "DELETE FROM shop WHERE id = 1;");
    place.write("turnback.yaml", "\u{feff}database: shop.sql\r\nmigration: harm.sql\r\n");
    place.run(&[]).goes();
    let place = Place::new();
    let path = place.write("drill.feature", format!("\u{feff}{}", Scenario::shop().text().replace('\n', "\r\n")));
    place.run(&[path.to_str().unwrap()]).goes();
}

#[test]
fn postgresql_that_is_missing_or_of_the_wrong_version_is_named_with_the_remedy() {
    let fake = |place: &Place, version: &str, programs: &[&str]| {
        let bin = place.path().join("bin");
        std::fs::create_dir(&bin).unwrap();
        for program in programs {
            let path = bin.join(program);
            std::fs::write(&path, format!("#!/bin/sh\necho 'postgres (PostgreSQL) {version}'\n")).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        bin.to_str().unwrap().to_owned()
    };
    let all = turnback::platform::local::programs::NEEDED;
    let place = Place::new();
    let bin = fake(&place, "15.1", &[]);
    place.run(&["--pg-bin", &bin]).refused(2, &["apt-get install postgresql", &bin]);
    for version in ["12.22", "13.1", "19beta1"] {
        let place = Place::new();
        let bin = fake(&place, version, &all);
        place.run(&["--pg-bin", &bin]).refused(2, &[version, "14 to 18", &bin]);
    }
    for missing in all.iter().skip(1) {
        let place = Place::new();
        let others: Vec<_> = all.iter().copied().filter(|program| program != missing).collect();
        let bin = fake(&place, "15.1", &others);
        place.run(&["--pg-bin", &bin]).refused(2, &[missing, &bin]);
    }
}

#[test]
fn a_port_in_use_is_named_before_anything_starts() {
    let place = Place::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    place.run(&["--port", &port]).refused(2, &[&port, "--port"]);
    assert!(!place.work().exists());
}

#[test]
fn an_evidence_directory_that_cannot_be_written_is_named() {
    let place = Place::new();
    let file = place.write("file", "x");
    let below = file.join("evidence");
    let ran = place.run_with(&below, &["deleted_rows"]);
    ran.refused(2, &[below.to_str().unwrap()]);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "x");
    place.assert_nothing_left();
}

#[test]
fn a_work_directory_that_is_not_ours_is_named_and_not_touched() {
    let place = Place::new();
    place.write("w", "precious");
    place.run(&["deleted_rows"]).refused(2, &["it is a file", "--work"]);
    assert_eq!(std::fs::read_to_string(place.work()).unwrap(), "precious");
}

/// What a machine reads when nothing was started: one document on standard output, nothing else there, and the exit status in it.
#[test]
fn a_machine_gets_one_document_also_when_nothing_was_started() {
    let place = Place::new();
    place.write("w", "a file where the work directory should be");
    let own = Place::new();
    own.write("turnback.yaml", "database: nothere.sql\nmigration: harm.sql\n");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let good = Place::new();
    let written = |text: &str| good.write("drill.feature", text).to_str().unwrap().to_owned();
    let (empty, wrong) = (written(""), good.write("wrong.feature", "Feature: a\n  Scenario: b\n    Given rain\n"));
    for (place, args, exit, code, named) in [
        (&place, vec!["run", "deleted_rows"], 2, "work-directory", "--work"),
        (&own, vec!["run"], 2, "configuration", "nothere.sql"),
        (&good, vec!["run", "own_database"], 2, "configuration", "--config"),
        (&good, vec!["run", "nothere"], 2, "feature", "nothere"),
        (&good, vec!["plan", "nothere"], 2, "feature", "nothere"),
        (&good, vec!["lint", "nothere"], 2, "feature", "nothere"),
        (&good, vec!["run", &empty], 4, "no-scenario", "empty"),
        (&good, vec!["run", wrong.to_str().unwrap()], 2, "lint", "undefined-step"),
        (&good, vec!["plan", wrong.to_str().unwrap()], 2, "lint", "wrong.feature:3:5"),
        (&good, vec!["run", "--port", &port], 2, "preflight", "--port"),
        (&good, vec!["run", "--pg-bin", "nowhere"], 2, "preflight", "nowhere"),
        (&good, vec!["run", "--evidence", "/proc/nowhere"], 2, "evidence-directory", "/proc/nowhere"),
        (&good, vec!["restore", "--backup", "nowhere", "--wal-archive", "."], 2, "no-such-directory", "pg_basebackup"),
        (&good, vec!["restore", "--backup", ".", "--wal-archive", ".", "--baseline", "none"], 2, "baseline-unusable", "turnback snapshot"),
        (&good, vec!["snapshot", "mysql://x", "--out", "o"], 2, "database", "postgresql://"),
        (&good, vec!["compare", "nothere", "nothere"], 2, "database", "nothere"),
        (&place, vec!["clean"], 2, "work-directory", "it is a file"),
    ] {
        let output = place.command().args(&args).arg("--json").output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let document: serde_json::Value = serde_json::from_str(&said).unwrap_or_else(|error| panic!("{args:?}: {error}: {said:?}"));
        let refused = &document["refused"];
        assert_eq!(
            (output.status.code(), &document["exit"], &refused["code"]),
            (Some(exit), &exit.into(), &code.into()),
            "{args:?}: {said}"
        );
        assert!(refused["message"].as_str().unwrap().contains(named), "{args:?}: {said}");
        assert!(refused["remedy"].as_str().is_some_and(|remedy| remedy.len() > 10), "{args:?}: {said}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{args:?}");
        // Without --json the same is for people, and standard output stays empty.
        let output = place.command().args(&args).output().unwrap();
        assert!(output.status.code() == Some(exit) && output.stderr.len() > 10, "{args:?}");
        assert!(args[0] == "lint" || output.stdout.is_empty(), "{args:?}: {}", String::from_utf8_lossy(&output.stdout));
    }
    // What the argument parser refuses has no document.
    let output = good.command().args(["run", "--json", "--no-such-option"]).output().unwrap();
    assert!(output.status.code() == Some(2) && output.stdout.is_empty() && !output.stderr.is_empty());
    good.assert_nothing_left();
}
