//! Every kind of recovery target, databases of one's own, and names that break careless quoting.

use crate::support::{HARM, Place, SHOP, Scenario};

#[test]
fn every_kind_of_target_that_can_be_exact_leads_back() {
    for kind in ["time", "LSN", "transaction", "restore point"] {
        let place = Place::new();
        place.drill(&Scenario::shop().instead("is restored to", &format!("When the database is restored to \"good\" by {kind}"))).goes();
        place.assert_nothing_left();
    }
}

/// `immediate` stops at the end of the base backup. Nothing need have been written between it and the known-good state, but the last wanted
/// transaction lies behind it: a restore that cannot be shown to hold everything wanted is too early.
#[test]
fn the_end_of_the_backup_is_before_the_known_good_state() {
    let place = Place::new();
    let scenario = Scenario::shop().instead("is restored to", "When the database is restored to \"good\" by immediate target");
    place.drill(&scenario).no_go("restored-too-early", &["it is not there"]);
    place.assert_nothing_left();
}

#[test]
fn the_wrong_side_of_an_exact_target_is_noticed() {
    let place = Place::new();
    let wrong = "When the database is restored to \"good\" by transaction, exclusive";
    place.drill(&Scenario::shop().instead("is restored to", wrong)).no_go("restored-too-early", &["it is not there"]);
    place.assert_nothing_left();
}

#[test]
fn a_target_that_cannot_be_reached_is_refused_before_anything_is_restored() {
    // With other offsets, and on both sides of the hour that Central Europe has twice: the instant is what counts.
    for (time, code, named) in [
        ("2099-01-01 00:00:00+00", "target-after-last-commit", "2099-01-01 00:00:00.000000+00"),
        ("2098-10-26 02:30:00+02:00", "target-after-last-commit", "2098-10-26 00:30:00.000000+00"),
        ("2098-10-26T02:30:00+01:00", "target-after-last-commit", "2098-10-26 01:30:00.000000+00"),
        ("2001-09-09 07:16:40.000001+05:30", "target-before-backup", "2001-09-09 01:46:40.000001+00"),
    ] {
        let place = Place::new();
        let ran =
            place.drill(&Scenario::shop().instead("is restored to", &format!("When the database is restored to the time \"{time}\"")));
        ran.inconclusive(code, &[named]);
        let journal = place.journal();
        assert!(!journal.contains("restore-planned") && !journal.contains("replay-stopped"), "{time}: something was restored");
        if code == "target-after-last-commit" {
            ran.inconclusive(code, &["sentinel", "pg_switch_wal()"]);
        }
        place.assert_nothing_left();
    }
}

#[test]
fn ones_own_database_takes_three_lines() {
    for target in ["time", "name"] {
        let place = Place::new();
        place.write("shop.sql", SHOP);
        place.write("0042_halve_prices.sql", HARM);
        let config = format!("database: shop.sql\nmigration: 0042_halve_prices.sql\ntarget: {target}\n");
        assert!(config.lines().count() <= 8);
        place.write("turnback.yaml", config);
        let ran = place.run(&[]);
        ran.goes();
        assert!(ran.out.contains("halve_prices"), "{}", ran.out);
        place.assert_nothing_left();
    }
}

#[test]
fn a_database_that_cannot_be_loaded_is_not_held_against_the_release() {
    let place = Place::new();
    let ran = place.drill(&Scenario::own("CREATE TABLE a (id int);\nCREATE TABEL b (id int);", HARM));
    ran.inconclusive("database-not-loaded", &["TABEL"]);
    place.assert_nothing_left();
}

/// Names that need quotes, in the language of the scenario and in SQL.
const ODD_DATABASES: [(&str, &str); 3] =
    [(r#"My \"own\" Datenbänk"#, r#"My "own" Datenbänk"#), ("it's %s & $1; 日本 🦀", "it's %s & $1; 日本 🦀"), ("select", "select")];

/// Harm that also names the database itself, so that it fails where the name is another.
fn harm_naming(database: &str) -> String {
    format!("{HARM}\nCOMMENT ON DATABASE \"{}\" IS 'harmed';", database.replace('"', "\"\""))
}

fn recorded_database(place: &Place, point: &str) -> serde_json::Value {
    let file = place.package().unwrap().join("snapshots").join(point).join("snapshot.json");
    let snapshot: serde_json::Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    snapshot["content"]["server"]["database"].clone()
}

#[test]
fn a_database_can_have_a_name_of_ones_own() {
    for (written, name) in ODD_DATABASES {
        let place = Place::new();
        let named = format!("Given the database is named \"{written}\"");
        place.drill(&Scenario::own(SHOP, &harm_naming(name)).before("a platform with", &named)).goes();
        assert_eq!(recorded_database(&place, "good"), name);
        place.assert_nothing_left();
    }
    let (_, name) = ODD_DATABASES[0];
    let place = Place::new();
    place.write("shop.sql", SHOP);
    place.write("harm.sql", harm_naming(name));
    place.write("turnback.yaml", format!("database: shop.sql\nmigration: harm.sql\ndatabase_name: '{name}'\n"));
    place.run(&[]).goes();
    assert_eq!(recorded_database(&place, "before-the-migration"), name);
    place.assert_nothing_left();
}

#[test]
fn a_name_that_no_database_can_have_is_refused() {
    let long = "ü".repeat(32);
    for (name, why) in [("postgres", "already"), (long.as_str(), "63 bytes")] {
        let place = Place::new();
        let named = format!("Given the database is named \"{name}\"");
        place.drill(&Scenario::shop().before("a platform with", &named)).refused(2, &["impossible-name", name, why]);
    }
}

#[test]
fn odd_names_work_everywhere() {
    let long = "l".repeat(63);
    let database = format!(
        r#"CREATE SCHEMA "Käse & ""Brot""";
CREATE TABLE "Käse & ""Brot"""."order" ("select" int PRIMARY KEY, "a ""quoted"" column" text, "日本 🦀" text, "it's" int DEFAULT 1);
CREATE TABLE "{long}" ("{long}" int PRIMARY KEY, "user" text);
CREATE TABLE "user" ("group" int, "from" text);
CREATE TABLE "{{}}%s$1;--" ("\" int);
INSERT INTO "Käse & ""Brot"""."order" SELECT g, 'x' || g, '🦀', g FROM generate_series(1, 20) g;
INSERT INTO "{long}" SELECT g, 'u' FROM generate_series(1, 20) g;
INSERT INTO "user" SELECT g, 'f' FROM generate_series(1, 20) g;
INSERT INTO "{{}}%s$1;--" VALUES (1), (1), (2);"#
    );
    let harm = format!(
        r#"DELETE FROM "Käse & ""Brot"""."order" WHERE "select" = 3;
UPDATE "{long}" SET "user" = 'gone' WHERE "{long}" = 4;
ALTER TABLE "user" DROP COLUMN "from";
DELETE FROM "{{}}%s$1;--" WHERE "\" = 1;"#
    );
    let place = Place::new();
    let ran = place.drill(&Scenario::own(&database, &harm));
    ran.goes();
    let damage = std::fs::read_to_string(ran.package.as_ref().unwrap().join("comparisons/after-change.json")).unwrap();
    let damage: serde_json::Value = serde_json::from_str(&damage).unwrap();
    let differing = |table: &str| {
        let found = damage["tables"].as_array().unwrap().iter().find(|compared| compared["table"] == table);
        let found = found.unwrap_or_else(|| panic!("{table} was not compared: {}", damage["tables"]));
        ["added", "removed", "changed"].map(|kind| found[kind].as_u64().unwrap())
    };
    assert_eq!(differing(r#""Käse & ""Brot"""."order""#), [0, 1, 0]);
    assert_eq!(differing(&format!("public.{long}")), [0, 0, 1]);
    assert_eq!(differing(r#"public."{}%s$1;--""#), [0, 2, 0]);
    place.assert_nothing_left();
}
