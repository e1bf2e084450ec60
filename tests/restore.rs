//! `turnback restore` and the plan of a restore, on a real backup and archive: verdicts, exit codes, and nothing left.

use sqlx::{ConnectOptions, Connection, Executor};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::OnceCell;
use turnback::database::{Address, SnapshotOptions, snapshot};
use turnback::platform::local::{Account, Archive, Programs, Server, ServerOptions, Shutdown, base_backup};
use turnback::recovery::seal;
use turnback::wait::{Poll, Wait};

const LIMIT: Duration = Duration::from_secs(60);

/// A backup, an archive with more than one segment after it, and two recorded states. The primary has stopped.
struct Source {
    dir: PathBuf,
    /// The last transaction before the second baseline, and the first one after it.
    good_xid: String,
    bad_xid: String,
    /// Where and when the second baseline was recorded.
    lsn: String,
    time: String,
}

async fn source() -> &'static Source {
    static SOURCE: OnceCell<Source> = OnceCell::const_new();
    SOURCE.get_or_init(make).await
}

async fn make() -> Source {
    let dir = scratch().keep();
    let (programs, account) = (Programs::find(None).unwrap(), Account::find().unwrap());
    let archive = Archive::create(&dir.join("wal"), &account).unwrap();
    let options = ServerOptions { socket_dir: dir.join("s"), port: 5432, settings: Vec::new() };
    let mut primary = Server::init(&programs, &account, &dir.join("primary"), options, Some(&archive)).await.unwrap();
    primary.start().await.unwrap();
    let options = primary.connect_options("postgres");
    let mut connection = options.connect().await.unwrap();
    let sql = "CREATE TABLE t (id int PRIMARY KEY, note text); INSERT INTO t SELECT g, 'note ' || g FROM generate_series(1, 5000) g";
    connection.execute(sql).await.unwrap();
    let address = Address::parse(&primary.url("postgres")).unwrap();
    snapshot(&address, &SnapshotOptions::default(), &dir.join("at-backup")).await.unwrap();
    base_backup(&primary, &account, &programs, &dir.join("backup"), "nightly", LIMIT).await.unwrap();
    let xid = "UPDATE t SET note = note || '!' WHERE id = 7 RETURNING pg_current_xact_id()::text";
    let _first: String = sqlx::query_scalar(xid).fetch_one(&mut connection).await.unwrap();
    seal(&options, LIMIT).await.unwrap();
    let good_xid: String = sqlx::query_scalar(xid).fetch_one(&mut connection).await.unwrap();
    let good = snapshot(&address, &SnapshotOptions::default(), &dir.join("good")).await.unwrap();
    connection.execute("SELECT pg_create_restore_point('good')").await.unwrap();
    let time = "SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US') || '+00'";
    let time: String = sqlx::query_scalar(time).fetch_one(&mut connection).await.unwrap();
    let bad_xid: String = sqlx::query_scalar(xid).fetch_one(&mut connection).await.unwrap();
    seal(&options, LIMIT).await.unwrap();
    connection.close().await.unwrap();
    primary.stop(Shutdown::Fast).await.unwrap();
    Source { dir, good_xid, bad_xid, lsn: good.server().lsn.clone().unwrap(), time }
}

/// A directory that the servers' account can enter, removed at the end.
fn scratch() -> TempDir {
    let dir = tempfile::Builder::new().prefix("tb").tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    dir
}

struct Ran {
    code: i32,
    said: String,
}

/// Runs the executable on this backup and archive and makes sure that its work root is empty afterwards.
fn run(command: &str, backup: &Path, archive: &Path, more: &[&str]) -> Ran {
    let work = scratch();
    let root = work.path().join("w");
    let mut call = assert_cmd::Command::new(assert_cmd::cargo::cargo_bin!("turnback"));
    call.arg(command).arg("--backup").arg(backup).arg("--wal-archive").arg(archive).args(more).env("TURNBACK_WORK", &root);
    let output = call.output().unwrap();
    assert_eq!(left(&root), [] as [String; 0], "{more:?}");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ran { code: output.status.code().unwrap_or(-1), said: text(&output.stdout) + &text(&output.stderr) }
}

/// What lies in a work root beside its lock.
fn left(root: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(root).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).filter(|name| name != "turnback.lock").collect()
}

impl Source {
    fn at(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The good time as a clock with this offset from UTC shows it, as a target.
    fn time_at(&self, seconds: i32) -> String {
        let zone = jiff::tz::TimeZone::fixed(jiff::tz::Offset::from_seconds(seconds).unwrap());
        let shown = turnback_core::recovery::parse_time(&self.time).unwrap().to_zoned(zone);
        format!("time={}", shown.strftime("%Y-%m-%d %H:%M:%S%.6f%:z"))
    }

    fn restore(&self, more: &[&str]) -> Ran {
        run("restore", &self.at("backup"), &self.at("wal"), more)
    }

    /// A copy of the backup or of the archive, to be harmed.
    fn copy(&self, name: &str, to: &Path) -> PathBuf {
        let copy = to.join(name);
        duct::cmd!("cp", "-a", self.at(name), &copy).run().unwrap();
        copy
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_target_is_restored_exactly() {
    let source = source().await;
    let (good, at_backup) = (source.at("good").display().to_string(), source.at("at-backup").display().to_string());
    let (time, lsn, xid) = (format!("time={}", source.time), format!("lsn={}", source.lsn), format!("xid={}", source.good_xid));
    let bad = format!("xid={}", source.bad_xid);
    // The same instant, as clocks in Nepal, in Newfoundland and on the other side of the date line show it.
    let elsewhere = [20_700, -12_600, 50_400].map(|seconds| source.time_at(seconds));
    assert!(elsewhere[0].contains("+05:45") && elsewhere[1].contains("-03:30") && elsewhere[2].contains("+14"), "{elsewhere:?}");
    for (target, baseline) in [
        (vec![], &good),
        (vec!["--target", &time], &good),
        (vec!["--target", &elsewhere[0]], &good),
        (vec!["--target", &elsewhere[1]], &good),
        (vec!["--target", &elsewhere[2]], &good),
        (vec!["--target", &lsn, "--exclusive"], &good),
        (vec!["--target", &xid], &good),
        (vec!["--target", &bad, "--exclusive"], &good),
        (vec!["--target", "name=good"], &good),
        (vec!["--target", "immediate"], &at_backup),
    ] {
        let ran = source.restore(&[&target[..], &["--baseline", baseline, "--json"]].concat());
        assert_eq!(ran.code, 0, "{target:?}: {}", ran.said);
        let document: serde_json::Value = serde_json::from_str(&ran.said).unwrap();
        assert_eq!((&document["decision"], &document["reasons"][0]["code"]), (&"GO".into(), &"restored-exactly".into()));
        assert_eq!((&document["restore"]["timeline"], &document["restore"]["reached"]["pause_state"]), (&2.into(), &"paused".into()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_differs_is_a_no_go_and_leaves_evidence() {
    let source = source().await;
    let evidence = scratch();
    let (baseline, into) = (source.at("good").display().to_string(), evidence.path().display().to_string());
    let ran = source.restore(&["--target", &format!("xid={}", source.bad_xid), "--baseline", &baseline, "--evidence", &into]);
    assert!(ran.code == 1 && ran.said.contains("data-differs") && ran.said.contains("public.t"), "{}: {}", ran.code, ran.said);
    let package = std::fs::read_dir(evidence.path()).unwrap().next().unwrap().unwrap().path();
    for file in ["evidence.json", "manifest.json", "report.md", "journal.ndjson", "comparisons/after-restore.json", "logs/restored.log"] {
        assert!(package.join(file).is_file(), "{file}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_baseline_it_is_never_go() {
    let source = source().await;
    let ran = source.restore(&["--target", "name=good"]);
    assert!(ran.code == 3 && ran.said.contains("nothing-compared"), "{}: {}", ran.code, ran.said);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_file_of_the_backup_is_named() {
    let source = source().await;
    let dir = scratch();
    let backup = source.copy("backup", dir.path());
    let file = "base/5/1259";
    let mut bytes = std::fs::read(backup.join(file)).unwrap();
    bytes[5000] ^= 1;
    std::fs::write(backup.join(file), bytes).unwrap();
    let ran = run("restore", &backup, &source.at("wal"), &["--target", "immediate"]);
    assert!(ran.code == 1 && ran.said.contains("backup-damaged") && ran.said.contains(file), "{}: {}", ran.code, ran.said);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_segment_is_named_before_anything_starts() {
    let source = source().await;
    let dir = scratch();
    let archive = source.copy("wal", dir.path());
    std::fs::write(archive.join("notes.txt"), "foreign").unwrap();
    std::fs::create_dir(archive.join("old")).unwrap();
    let time = format!("time={}", source.time);
    assert_eq!(run("plan", &source.at("backup"), &archive, &["--target", &time]).code, 0, "foreign files do no harm");
    let mut segments = Archive::open(&archive).segments().unwrap();
    let before_last = segments.remove(segments.len() - 2);
    std::fs::remove_file(archive.join(&before_last)).unwrap();
    for command in ["restore", "plan"] {
        let ran = run(command, &source.at("backup"), &archive, &["--target", &time, "--json"]);
        assert!(
            ran.code == 2 && ran.said.contains("\"wal-segment-missing\"") && ran.said.contains(&before_last),
            "{}: {}",
            ran.code,
            ran.said
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_plan_says_what_would_be_done_and_what_cannot() {
    let source = source().await;
    let plan = |target: &str| run("plan", &source.at("backup"), &source.at("wal"), &["--target", target, "--json"]);
    let ran = plan(&format!("time={}", source.time));
    let document: serde_json::Value = serde_json::from_str(&ran.said).unwrap();
    let backup = &document["restore"]["plan"]["backup"];
    assert_eq!((ran.code, &document["reachable"], &backup["id"]), (0, &true.into(), &"nightly".into()));
    for (target, code) in [
        ("time=2000-01-01 00:00:00+00", "target-before-backup"),
        ("lsn=0/1000028", "target-before-backup"),
        ("time=2999-01-01 00:00:00+00", "target-after-last-commit"),
        ("lsn=F/0", "wal-segment-missing"),
        ("yesterday", "usage"),
        ("time=2026-11-20 21:04:05", "usage"),
    ] {
        let ran = plan(target);
        assert!(ran.code == 2 && ran.said.contains(&format!("\"{code}\"")), "{target}: {}: {}", ran.code, ran.said);
    }
}

/// A backup can only be rolled forward: nothing before its end can be restored from it, whichever kind of target says so.
#[tokio::test(flavor = "multi_thread")]
async fn a_target_inside_the_backup_is_refused_before_anything_starts() {
    let source = source().await;
    let planned = run("plan", &source.at("backup"), &source.at("wal"), &["--target", "immediate", "--json"]);
    let planned: serde_json::Value = serde_json::from_str(&planned.said).unwrap();
    let backup = &planned["restore"]["plan"]["backup"];
    let lsn = |name: &str| backup[name].as_str().unwrap().parse::<turnback_core::recovery::Lsn>().unwrap();
    let (begin, end) = (lsn("begin_lsn"), lsn("end_lsn"));
    let inside = turnback_core::recovery::Lsn(begin.0 + (end.0 - begin.0) / 2);
    assert!(begin < inside && inside < end, "{begin} {inside} {end}");
    // The backup's own times are known to the second; within that second replay decides.
    let begun = turnback_core::recovery::parse_time(backup["begin_time"].as_str().unwrap()).unwrap() - jiff::SignedDuration::from_micros(1);
    for target in [format!("lsn={inside}"), format!("lsn={begin}"), format!("time={}", turnback_core::recovery::pg_time(begun))] {
        for command in ["plan", "restore"] {
            let ran = run(command, &source.at("backup"), &source.at("wal"), &["--target", &target, "--json"]);
            let document: serde_json::Value = serde_json::from_str(&ran.said).unwrap();
            let seen = (ran.code, &document["reachable"], &document["refused"]["code"]);
            assert_eq!(seen, (2, &false.into(), &"target-before-backup".into()), "{command} {target}: {}", ran.said);
            let remedy = document["refused"]["remedy"].as_str().unwrap();
            assert!(remedy.contains("later target") && remedy.contains("older backup"), "{remedy}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_or_a_restore_point_that_is_not_there_is_refused_with_what_is() {
    let source = source().await;
    let bad: u64 = source.bad_xid.parse().unwrap();
    let (far, last) = (format!("xid={}", bad + 1000), source.bad_xid.as_str());
    for (target, named) in [("name=goood", "“good”"), ("name=Good", "“good”"), (far.as_str(), last)] {
        for command in ["plan", "restore"] {
            let ran = run(command, &source.at("backup"), &source.at("wal"), &["--target", target, "--json"]);
            let document: serde_json::Value = serde_json::from_str(&ran.said).unwrap();
            assert_eq!((ran.code, &document["refused"]["code"]), (2, &"target-not-found".into()), "{command} {target}: {}", ran.said);
            assert!(document["refused"]["message"].as_str().unwrap().contains(named), "{command} {target}: {}", ran.said);
        }
    }
    // Behind a gap it may be: the gap is the reason then.
    let dir = scratch();
    let archive = source.copy("wal", dir.path());
    let segments = Archive::open(&archive).segments().unwrap();
    std::fs::remove_file(archive.join(&segments[segments.len() - 2])).unwrap();
    let ran = run("plan", &source.at("backup"), &archive, &["--target", "name=good", "--json"]);
    assert!(ran.code == 2 && ran.said.contains("\"wal-segment-missing\""), "{}: {}", ran.code, ran.said);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_usable_backup_is_refused_by_name() {
    let source = source().await;
    type Harm = fn(&Path);
    let harms: [(&str, Harm); 7] = [
        ("PG_VERSION", |dir| std::fs::remove_file(dir.join("PG_VERSION")).unwrap()),
        ("backup_label", |dir| std::fs::remove_file(dir.join("backup_label")).unwrap()),
        ("backup_manifest", |dir| std::fs::remove_file(dir.join("backup_manifest")).unwrap()),
        ("backup_manifest", |dir| std::fs::File::options().write(true).open(dir.join("backup_manifest")).unwrap().set_len(900).unwrap()),
        ("pg_tblspc/16400", |dir| std::os::unix::fs::symlink("/", dir.join("pg_tblspc/16400")).unwrap()),
        ("pg_control", |dir| std::fs::write(dir.join("global/pg_control"), "x").unwrap()),
        ("PostgreSQL 9.6", |dir| std::fs::write(dir.join("PG_VERSION"), "9.6\n").unwrap()),
    ];
    for (named, harm) in harms {
        let dir = scratch();
        let backup = source.copy("backup", dir.path());
        harm(&backup);
        let ran = run("restore", &backup, &source.at("wal"), &["--target", "immediate"]);
        assert!(ran.code == 2 && ran.said.contains(named), "{named}: {}: {}", ran.code, ran.said);
    }
    let nowhere = source.at("nowhere");
    for (backup, archive) in [(&nowhere, &source.at("wal")), (&source.at("backup"), &nowhere)] {
        let ran = run("restore", backup, archive, &["--target", "immediate"]);
        assert!(ran.code == 2 && ran.said.contains("nowhere"), "{}: {}", ran.code, ran.said);
    }
    let ran = source.restore(&["--target", "immediate", "--baseline", &nowhere.display().to_string()]);
    assert!(ran.code == 2 && ran.said.contains("nowhere") && ran.said.contains("turnback snapshot"), "{}: {}", ran.code, ran.said);
    assert_eq!(source.restore(&[]).code, 2, "neither target nor baseline");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_another_user_and_read_only_ones_are_restored_as_well() {
    let source = source().await;
    let dir = scratch();
    let (backup, archive) = (source.copy("backup", dir.path()), source.copy("wal", dir.path()));
    // As root they are now root's alone; as anybody else they are one's own and cannot be written.
    if rustix::process::geteuid().is_root() {
        duct::cmd!("chown", "-R", "root:root", &backup, &archive).run().unwrap();
    }
    duct::cmd!("chmod", "-R", "u=rX,go=", &backup, &archive).run().unwrap();
    let ran = run("restore", &backup, &archive, &["--baseline", &source.at("good").display().to_string()]);
    duct::cmd!("chmod", "-R", "u=rwX", &backup, &archive).run().unwrap();
    assert_eq!(ran.code, 0, "{}", ran.said);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_drill_leaves_nothing() {
    let source = source().await;
    let work = scratch();
    let root = work.path().join("w");
    let args = [
        "restore".into(),
        "--backup".into(),
        source.at("backup"),
        "--wal-archive".into(),
        source.at("wal"),
        "--baseline".into(),
        source.at("good"),
    ];
    let child = duct::cmd(assert_cmd::cargo::cargo_bin!("turnback"), args.map(PathBuf::into_os_string));
    let child = child.env("TURNBACK_WORK", &root).stdout_null().unchecked().start().unwrap();
    let begun = Wait::new("the drill has begun", LIMIT);
    begun
        .until(async || Ok::<_, ()>(if left(&root).is_empty() { Poll::NotYet("nothing there".into()) } else { Poll::Ready(()) }))
        .await
        .unwrap();
    let pid = rustix::process::Pid::from_raw(child.pids()[0].cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().status.code(), Some(130));
    assert_eq!(left(&root), [] as [String; 0]);
}
