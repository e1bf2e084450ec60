use super::*;
use crate::gitops::TREE;
use turnback_core::recovery::{RecoveryTarget, Target};

const EMPTY: &[u8] =
    b"# What changed the database, in order.\napiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nnamespace: orders\n";

fn shipped(path: &str) -> &'static [u8] {
    TREE.get_file(path).unwrap_or_else(|| panic!("{path} is not in flux/")).contents()
}

fn text_of(change: &FileChange) -> String {
    match change {
        FileChange::Write { content, .. } => String::from_utf8(content.clone()).unwrap(),
        FileChange::Remove { path } => panic!("{path} is removed"),
    }
}

/// The shipped Jobs and kustomization are what `add_migration` writes for the shipped SQL: the base and a drill's change have one form.
#[test]
fn the_shipped_migrations_are_written_by_the_same_function() {
    let mut kustomization = EMPTY.to_vec();
    for name in ["create_orders", "seed_catalogue"] {
        let number = listed_migrations(&kustomization).unwrap().len() + 1;
        let sql = std::str::from_utf8(shipped(&format!("{MIGRATIONS}/{number:04}_{name}.sql"))).unwrap();
        let added = add_migration(&kustomization, name, sql, 0).unwrap();
        for change in &added.changes {
            let expected = text_of(change);
            // Set the variable to write the files anew after the form has changed.
            if std::env::var_os("TURNBACK_WRITE_TREE").is_some() {
                std::fs::write(format!("{}/flux/{}", env!("CARGO_MANIFEST_DIR"), change.path()), &expected).unwrap();
            } else if !change.path().ends_with("kustomization.yaml") {
                assert_eq!(std::str::from_utf8(shipped(change.path())).unwrap(), expected, "{}", change.path());
            }
        }
        kustomization = text_of(added.changes.last().unwrap()).into_bytes();
    }
    if std::env::var_os("TURNBACK_WRITE_TREE").is_some() {
        return;
    }
    assert_eq!(std::str::from_utf8(shipped(&migrations_kustomization())).unwrap(), String::from_utf8(kustomization).unwrap());
}

#[test]
fn a_migration_is_numbered_after_those_listed_and_comes_with_its_job() {
    let added = add_migration(shipped(&migrations_kustomization()), "drop_label", "ALTER TABLE dummy DROP COLUMN label;\n", 0).unwrap();
    assert_eq!((added.migration.version, added.migration.name.as_str()), (3, "0003_drop_label"));
    let all: Vec<String> = added.changes.iter().map(|c| format!("=== {}\n{}", c.path(), text_of(c))).collect();
    insta::assert_snapshot!(all.join("\n"));
}

#[test]
fn other_sql_gives_another_job() {
    let job = |sql: &str| add_migration(EMPTY, "same", sql, 0).unwrap().migration.job;
    assert_ne!(job("SELECT 1;\n"), job("SELECT 2;\n"));
    assert_eq!(job("SELECT 1;\n"), job("SELECT 1;\n"));
}

#[test]
fn a_migration_without_its_job_is_refused() {
    let kustomization = b"configMapGenerator:\n  - name: orders-migration-0001\n    files: [0001_a.sql]\n";
    let paths = listed_migrations(kustomization).unwrap();
    let refused = migration(kustomization, &paths[0], b"SELECT 1;\n").unwrap_err().to_string();
    assert!(refused.contains("0001_a") && refused.contains("without a Job"), "{refused}");
}

#[test]
fn names_that_leave_the_directory_are_refused() {
    for name in ["", "../x", "Drop", "a b", "x.sql", "ü"] {
        assert!(matches!(add_migration(EMPTY, name, "SELECT 1;", 0), Err(TreeError::Name { .. })), "{name:?}");
    }
    let outside = b"configMapGenerator:\n  - name: orders-migration-0001\n    files: [../../0001_a.sql]\n";
    assert!(matches!(listed_migrations(outside), Err(TreeError::Name { .. })));
}

#[test]
fn switching_database_or_version_changes_one_line_only() {
    let before = String::from_utf8(shipped(RELEASE).to_vec()).unwrap();
    for (change, line) in [
        (set_database(before.as_bytes(), "orders-restored").unwrap(), "  database: \"orders-restored\""),
        (set_version(before.as_bytes(), "1.10").unwrap(), "  version: \"1.10\""),
    ] {
        let after = text_of(&change);
        let different: Vec<&str> = after.lines().zip(before.lines()).filter(|(a, b)| a != b).map(|(a, _)| a).collect();
        assert_eq!(different, [line]);
        assert_eq!(after.lines().count(), before.lines().count());
    }
    let windows = before.replace('\n', "\r\n");
    let after = text_of(&set_database(windows.as_bytes(), "other").unwrap());
    assert!(after.contains("  database: \"other\"\r\n"), "{after:?}");
    assert_eq!(release(after.as_bytes()).unwrap().database, "other");
}

#[test]
fn a_value_that_cannot_be_changed_in_place_is_not_guessed_at() {
    let flow = b"data: {database: a, version: b}\n";
    assert_eq!(set_database(flow, "other"), Err(TreeError::Edit { file: RELEASE.into(), field: "database" }));
    assert!(matches!(set_database(flow, "a\"\n  version: x"), Err(TreeError::Name { .. })));
}

#[test]
fn a_restored_cluster_is_a_copy_of_its_source_with_its_own_archive() {
    let (cluster, list) = (shipped(&format!("{PRODUCTION}/cluster.yaml")), shipped(&production_kustomization()));
    let target = RecoveryTarget { target: Target::Time("2026-11-20T21:04:05.123456Z".parse().unwrap()), inclusive: true };
    let declared = RecoveryDeclaration { name: "orders-restored", target: &target, backup: None };
    let all: Vec<String> =
        declare_recovery(&declared, cluster, list).unwrap().iter().map(|c| format!("=== {}\n{}", c.path(), text_of(c))).collect();
    insta::assert_snapshot!(all.join("\n"));
}

#[test]
fn each_target_is_declared_in_cnpgs_words() {
    let (cluster, list) = (shipped(&format!("{PRODUCTION}/cluster.yaml")), shipped(&production_kustomization()));
    let declare = |target: Target, inclusive: bool, backup: Option<&str>| {
        let target = RecoveryTarget { target, inclusive };
        let changes = declare_recovery(&RecoveryDeclaration { name: "back", target: &target, backup }, cluster, list)?;
        let manifest: Value = yaml::read("cluster-back.yaml", text_of(&changes[0]).as_bytes())?;
        Ok::<_, TreeError>(manifest["spec"]["bootstrap"]["recovery"]["recoveryTarget"].clone())
    };
    let lsn = serde_json::from_value(json!("0/5000060")).unwrap();
    assert_eq!(declare(Target::Lsn(lsn), false, None).unwrap(), json!({ "targetLSN": "0/5000060", "exclusive": true }));
    assert_eq!(declare(Target::Xid((3 << 32) + 761), true, Some("b")).unwrap(), json!({ "targetXID": "761", "backupID": "b" }));
    assert_eq!(declare(Target::Name("p".into()), true, Some("b")).unwrap(), json!({ "targetName": "p", "backupID": "b" }));
    assert_eq!(declare(Target::Immediate, true, Some("b")).unwrap(), json!({ "targetImmediate": true, "backupID": "b" }));
    assert!(declare(Target::Name("p".into()), true, None).unwrap_err().to_string().contains("base backup"));
}

#[test]
fn yaml_that_cannot_be_used_is_named_with_its_place() {
    let place = |content: &[u8]| match release(content) {
        Err(TreeError::Yaml(YamlError::Invalid { file, line, column, .. })) => (file, line, column),
        other => panic!("{other:?}"),
    };
    assert_eq!(release(b""), Err(YamlError::Empty { file: RELEASE.into() }.into()));
    assert_eq!(release(b"\xef\xbb\xbf \r\n"), Err(YamlError::Empty { file: RELEASE.into() }.into()));
    assert_eq!(release(b"a: b\n\xff"), Err(YamlError::Encoding { file: RELEASE.into(), line: 2, offset: 5 }.into()));
    assert_eq!(place(b"data:\n  version: a\n  version: b\n  database: c\n"), (RELEASE.into(), 3, 3));
    assert_eq!(place(b"data:\n  version: [a\n").0, RELEASE);
    assert_eq!(place(b"data:\n  version: a\n  database:\n    - b\n"), (RELEASE.into(), 4, 5));
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for n in 1..12 {
        bomb.push_str(&format!("a{n}: &a{n} [{}]\n", vec![format!("*a{}", n - 1); 10].join(", ")));
    }
    let refused = yaml::read::<Value>("bomb.yaml", bomb.as_bytes()).unwrap_err();
    assert!(matches!(&refused, YamlError::Invalid { line: 1.., .. }), "{refused}");
    let deep = "[".repeat(100_000);
    assert!(yaml::read::<Value>("deep.yaml", deep.as_bytes()).is_err());
    let marked = [b"\xef\xbb\xbf".as_slice(), shipped(RELEASE)].concat();
    assert_eq!(release(&marked), release(shipped(RELEASE)));
}

#[test]
fn a_number_that_a_database_has_seen_is_not_given_again() {
    let number = |last| add_migration(EMPTY, "next", "SELECT 1;", last).unwrap().migration.version;
    assert_eq!([number(-1), number(0), number(7), number(20_261_121_093_000)], [1, 1, 8, 20_261_121_093_001]);
    let listed = add_migration(shipped(&migrations_kustomization()), "next", "SELECT 1;", 1).unwrap().migration.version;
    assert!(listed > 2, "what the tree lists counts too: {listed}");
}
