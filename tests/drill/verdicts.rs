//! Faults that a drill must notice while it runs: damaged backups and WAL, drills without damage, a revert that never arrives.

use crate::support::{HARM, Place, SHOP, Scenario, tampered, until};

fn drill(scenario: &Scenario) -> (Place, crate::support::Ran) {
    let place = Place::new();
    let ran = place.drill(scenario);
    place.assert_nothing_left();
    (place, ran)
}

#[test]
fn a_segment_that_is_missing_truncated_or_altered_is_named() {
    for (harm, code) in
        [("missing", "wal-segment-missing"), ("truncated", "wal-segment-damaged"), ("altered by one byte", "wal-segment-damaged")]
    {
        let fault = format!("When the fault: the WAL segment that holds the recovery point is {harm}");
        let (place, ran) = drill(&Scenario::shop().before("is restored to", &fault));
        let journal = place.journal();
        let segment = journal.split("\"fault\":\"WAL segment ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap().to_owned();
        ran.no_go(code, &[&segment]);
        assert!(!journal.contains("\"kind\":\"promoted\""), "a server was promoted from damaged WAL");
    }
}

#[test]
fn a_file_of_the_backup_that_is_missing_truncated_or_altered_is_named() {
    for harm in ["missing", "truncated", "altered by one byte"] {
        let fault = format!("When the fault: a file of the base backup is {harm}");
        let (place, ran) = drill(&Scenario::shop().before("is restored to", &fault));
        let journal = place.journal();
        let file = journal.split("backup file base/").nth(1).and_then(|rest| rest.split(' ').next()).unwrap().to_owned();
        ran.no_go("backup-damaged", &[&file]);
        assert!(!journal.contains("\"kind\":\"replay-stopped\""), "a damaged backup was replayed");
    }
}

#[test]
fn a_damaged_backup_is_found_before_the_change_already() {
    let fault = "Given the fault: a file of the base backup is altered by one byte";
    let (place, ran) = drill(&Scenario::shop().before("the last backup is verified", fault));
    ran.no_go("backup-damaged", &["base/"]);
    assert!(!place.journal().contains("\"kind\":\"change\""), "the change was deployed without a backup to go back to");
}

#[test]
fn a_migration_that_changes_nothing_voids_the_drill() {
    for sql in ["SELECT 1;", "UPDATE shop SET price = price;", "CREATE TABLE gone (id int); DROP TABLE gone;"] {
        drill(&Scenario::own(SHOP, sql)).1.inconclusive("no-damage", &["the damage is shown"]);
    }
}

#[test]
fn orders_placed_meanwhile_are_not_the_damage_of_a_migration() {
    let scenario = Scenario::shop()
        .instead("a platform with", "Given a platform with the sample application running")
        .before("is deployed", "When the application keeps taking orders")
        .instead("is deployed:", "When the migration \"changes_nothing\" is deployed");
    drill(&scenario).1.inconclusive("no-damage", &[]);
}

#[test]
fn a_migration_that_fails_damages_nothing() {
    let (_, ran) = drill(&Scenario::own(SHOP, "ALTER TABLE shop DROP COLUMN nothere;"));
    ran.inconclusive("change-not-applied", &["nothere"]);
}

#[test]
fn a_migration_that_heals_when_reverted_needs_no_restore() {
    // The damage is undone by hand before it is looked at again: the restore was never shown to be needed.
    let healed = tampered("UPDATE shop SET price = id WHERE id % 2 = 0;");
    let (_, ran) = drill(&Scenario::shop().before("the data is still damaged", &healed));
    ran.inconclusive("revert-alone-healed", &[]);
}

#[test]
fn one_transaction_beside_the_target_is_noticed() {
    let early = Scenario::shop().before("is restored to", "When the fault: the restore stops one transaction too early");
    drill(&early).1.no_go("restored-too-early", &["transaction", "it is not there"]);
    for kind in ["time", "transaction"] {
        let late = Scenario::shop()
            .before("is restored to", "When the fault: the restore stops one transaction too late")
            .instead("is restored to", &format!("When the database is restored to \"good\" by {kind}"));
        drill(&late).1.no_go("restored-too-late", &["transaction", "it is there"]);
    }
}

#[test]
fn a_row_or_a_value_that_differs_on_the_restored_server_is_found_and_named() {
    for (sql, key) in [("DELETE FROM shop WHERE id = 7;", "7"), ("UPDATE shop SET price = 9.0 WHERE id = 9;", "9")] {
        let (place, ran) = drill(&Scenario::shop().before("schema and data equal", &tampered(sql)));
        ran.no_go("data-differs", &["1 differing rows in public.shop"]);
        let tables = compared(&place)["tables"].clone();
        let shop = tables.as_array().unwrap().iter().find(|table| table["table"] == "public.shop").unwrap();
        assert_eq!(shop["rows"][0]["key"][0][1], key, "{sql}: {shop:#}");
    }
}

#[test]
fn every_property_that_differs_on_the_restored_server_is_found_and_named() {
    let changes = [
        ("SELECT setval('tickets', 1000);", "public.tickets"),
        ("GRANT SELECT ON shop TO clerk;", "public.shop"),
        ("ALTER TABLE shop DISABLE TRIGGER stamped;", "stamped"),
        ("DROP INDEX by_name;", "by_name"),
        ("ALTER TABLE shop ALTER name SET DEFAULT 'other';", "public.shop.name"),
    ];
    let all = changes.map(|(sql, _)| sql).join("\n");
    let (place, ran) = drill(&Scenario::shop().before("schema and data equal", &tampered(&all)));
    ran.no_go("schema-differs", &["public.shop"]);
    let found = compared(&place);
    for (sql, object) in changes {
        let named = |difference: &serde_json::Value| difference["object"].as_str().is_some_and(|name| name.contains(object));
        assert!(found["schema"].as_array().unwrap().iter().any(named), "{sql}: not found in {:#}", found["schema"]);
    }
    // One alone is enough.
    let (_, ran) = drill(&Scenario::shop().before("schema and data equal", &tampered(changes[2].0)));
    ran.no_go("schema-differs", &["stamped"]);
}

/// The comparison of the restored server with the known-good state.
fn compared(place: &Place) -> serde_json::Value {
    let file = place.package().unwrap().join("comparisons/after-restore.json");
    serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()
}

#[test]
fn a_revert_that_is_not_reconciled_is_no_way_back() {
    let suspended = Scenario::shop().before("is reverted in Git", "When the fault: the reconciler is suspended");
    let (place, ran) = drill(&suspended);
    ran.no_go("revert-not-applied", &["exactly the reverting revision"]);
    assert!(!place.journal().contains("\"kind\":\"promoted\""), "a restore was begun although the bad code still ran");
}

#[test]
fn a_migration_that_comes_back_after_the_restore_is_noticed() {
    let again = Scenario::shop()
        .instead("a platform with", "Given a platform with the sample application running")
        .instead("is deployed:", "When the migration \"corrupt_dummy\" is deployed")
        .before("schema and data equal", "When the application is pointed at the restored database")
        .before("schema and data equal", "When the fault: the migration is applied again after the restore");
    drill(&again).1.no_go("schema-differs", &["public.dummy.quantity"]);
    // A scenario that only asks for the history is told as well.
    drill(&again.without("schema and data equal")).1.no_go("change-in-history", &["corrupt_dummy"]);
}

#[test]
fn a_drill_that_leaves_out_what_counts_is_never_go() {
    for (left_out, missing) in [
        ("schema or data differ", "damage-shown"),
        ("is still damaged", "revert-alone-insufficient"),
        ("schema and data equal", "data-equal"),
        ("is not in the migration history", "change-not-in-history"),
    ] {
        let (_, ran) = drill(&Scenario::shop().without(left_out));
        ran.inconclusive("check-not-run", &[missing]);
        // It was known before anything started.
        assert!(ran.err.contains("can never be GO, at best INCONCLUSIVE (check-not-run)") && ran.err.contains(missing), "{}", ran.err);
    }
    let mut nothing_restored = Scenario::shop();
    for step in ["is restored to", "replay stopped", "on a new timeline", "schema and data equal", "is not in the migration history"] {
        nothing_restored = nothing_restored.without(step);
    }
    drill(&nothing_restored).1.inconclusive("check-not-run", &["replay-stopped-at-target"]);
}

#[test]
fn what_comes_after_a_failed_step_is_skipped_and_on_the_record() {
    let (_, ran) = drill(&Scenario::shop().before("is reverted in Git", "Then table \"shop\" has 51 changed rows"));
    ran.no_go("expectation-failed", &["public.shop", "50 changed"]);
    let steps = ran.evidence.as_ref().unwrap()["predicate"]["steps"].to_string();
    assert!(steps.contains("skipped"), "{steps}");
}

#[test]
fn a_full_disk_says_nothing_about_the_release() {
    let place = Place::new();
    // A file system of its own; where one cannot be mounted (not root), there is no way to fill one.
    let mounted = |size: &str, place: &Place| {
        std::fs::create_dir(place.work()).unwrap();
        duct::cmd!("mount", "-t", "tmpfs", "-o", format!("size={size},mode=0755"), "tmpfs", place.work()).stderr_null().run().is_ok()
    };
    let unmount = |place: &Place| duct::cmd!("umount", place.work()).run().unwrap();
    if !mounted("64m", &place) {
        panic!("no file system can be mounted here, so none can be filled: run this lane as root");
    }
    let refused = place.run(&["deleted_rows"]);
    unmount(&place);
    refused.refused(2, &["64 MB free", "512 MB", "--work"]);

    let place = Place::new();
    assert!(mounted("560m", &place));
    let running = place.start(&["deleted_rows"]);
    place.until_journal_says("\"phase\":\"platform\"");
    let filler = place.work().join("filler");
    let chunk = vec![1; 8 << 20];
    let mut file = std::fs::File::create(&filler).unwrap();
    while std::io::Write::write_all(&mut file, &chunk).is_ok() {}
    drop(file);
    let ended = running.wait().unwrap().status.code();
    std::fs::remove_file(&filler).unwrap();
    let evidence = std::fs::read(place.package().unwrap().join("evidence.json")).unwrap();
    let evidence: serde_json::Value = serde_json::from_slice(&evidence).unwrap();
    let reason = &evidence["predicate"]["verdict"]["reasons"][0];
    assert_eq!((ended, reason["code"].as_str()), (Some(3), Some("disk-full")), "{reason:#}");
    assert_eq!(evidence["predicate"]["verdict"]["decision"], "INCONCLUSIVE");
    until("the work directory is empty", || {
        std::fs::read_dir(place.work()).unwrap().flatten().all(|entry| entry.file_name() == "turnback.lock")
    });
    unmount(&place);
}

#[test]
fn the_usual_drill_on_a_database_of_ones_own_goes() {
    let (_, ran) = drill(&Scenario::own(SHOP, HARM));
    ran.goes();
    assert!(!ran.err.contains("never be GO"), "{}", ran.err);
}

#[test]
fn every_check_stands_once_in_the_evidence() {
    let place = Place::new();
    let ran = place.run(&["deleted_rows"]);
    ran.goes();
    let predicate = &ran.evidence.as_ref().unwrap()["predicate"];
    let checks = predicate["checks"].as_array().unwrap();
    let ids: std::collections::BTreeSet<_> = checks.iter().map(|check| check["id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), checks.len(), "{checks:#?}");
    assert_eq!(predicate["passedTests"].as_array().unwrap().len(), ids.len());
    // Two backups were verified, and both are told.
    let verified = checks.iter().find(|check| check["id"] == "backup-verified").unwrap()["actual"].as_str().unwrap();
    assert!(verified.contains("“scheduled”: ") && verified.contains("“fresh-1”: "), "{verified}");
}

#[test]
fn the_command_on_record_does_the_same_again() {
    let place = Place::new();
    let dir = place.path().join("with a 'blank");
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(dir.join("my drill.feature"), Scenario::shop().text()).unwrap();
    let mut first = place.command();
    let status = first.current_dir(&dir).args(["run", "my drill.feature", "--evidence", "../e"]).output().unwrap().status;
    assert_eq!(status.code(), Some(0));
    let evidence = std::fs::read(place.package().unwrap().join("evidence.json")).unwrap();
    let evidence: serde_json::Value = serde_json::from_slice(&evidence).unwrap();
    let command = evidence["predicate"]["run"]["command"].as_str().unwrap();
    assert!(command.contains(&format!("TURNBACK_WORK={}", place.work().display())), "{command}");
    // From elsewhere, and without the environment that the first run had.
    let again = duct::cmd!("sh", "-c", command).dir("/").env_remove("TURNBACK_WORK").stdout_null().unchecked().run().unwrap();
    assert_eq!(again.status.code(), Some(0), "{command}");
    assert_eq!(std::fs::read_dir(place.evidence()).unwrap().count(), 2, "{command}");
    place.assert_nothing_left();
}

#[test]
fn a_second_migration_after_a_revert_is_numbered_after_the_first() {
    let second = "When the migration \"second\" is deployed:\n\"\"\"\nDELETE FROM shop WHERE id = 5;\n\"\"\"";
    let scenario = Scenario::shop()
        .before("is restored to", second)
        .before("is restored to", "Then the change is in the migration history")
        .before("is restored to", "When the change is reverted in Git")
        .before("is restored to", "Then exactly the reverting revision is applied")
        .before("is restored to", "Then the data is still damaged");
    drill(&scenario).1.goes();
}

#[test]
fn what_was_compared_before_a_later_change_counts_for_nothing() {
    // The last step is the comparison with the history; the harm comes after all of them.
    let late = Scenario::shop().last(&tampered("DELETE FROM shop;"));
    drill(&late).1.inconclusive("check-not-run", &["schema-equal", "data-equal", "change-not-in-history"]);
}
