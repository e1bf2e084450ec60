//! Backup, archive, recovery points and point-in-time recovery on real PostgreSQL servers.

use jiff::Timestamp;
use sqlx::{ConnectOptions, Connection, Executor, Row};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::OnceCell;
use turnback::platform::local::{
    Account, Archive, ArchiveError, Login, Paused, Programs, RestoreError, RestoreRequest, SegmentFault, Server, ServerOptions, Shutdown,
    WorkDir, WorkDirError, base_backup, leftovers, lost_commits, restore, verify,
};
use turnback::recovery::{PointRequest, record_point, seal};
use turnback::workflow::clean;
use turnback_core::recovery::{BaseBackup, Lsn, RecoveryPoint, RecoveryTarget, RestorePlan, Target, TargetKind, parse_time, plan};

const LIMIT: Duration = Duration::from_secs(60);

/// Says how long a part took when the tests run with `--nocapture`.
fn timed(part: &str, since: Instant) {
    eprintln!("{part}: {} ms", since.elapsed().as_millis());
}

fn options(dir: &Path) -> ServerOptions {
    ServerOptions { socket_dir: dir.join("s"), port: 5432, settings: Vec::new() }
}

/// A directory that the servers' account can enter, removed at the end.
fn scratch() -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::Builder::new().prefix("tb").tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    dir
}

async fn run(server: &Server, sql: &'static str) {
    let mut connection = server.connect_options("postgres").connect().await.unwrap();
    connection.execute(sql).await.unwrap();
    connection.close().await.unwrap();
}

async fn rows(server: &Server) -> Vec<i32> {
    let mut connection = server.connect_options("postgres").connect().await.unwrap();
    sqlx::query_scalar("SELECT id FROM t ORDER BY id").fetch_all(&mut connection).await.unwrap()
}

/// A history with a known row in every transaction, and everything needed to restore any moment of it. The primary has stopped.
struct History {
    dir: PathBuf,
    programs: Programs,
    account: Account,
    archive: Archive,
    backup: BaseBackup,
    /// Row → its transaction: id, where its commit record begins, commit time.
    commits: BTreeMap<i32, (u64, Lsn, Timestamp)>,
    /// Rows 1–6 are there at this point.
    point: RecoveryPoint,
    last_commit: (Timestamp, Lsn),
    lost: turnback::recovery::Lost,
}

/// Rows 1–3, backup, 4, segment, 5, segment, restore point “five”, 6, recovery point, 7, 8, segment.
async fn history() -> &'static History {
    static HISTORY: OnceCell<History> = OnceCell::const_new();
    HISTORY.get_or_init(make_history).await
}

async fn make_history() -> History {
    let dir = scratch().keep();
    let programs = Programs::find(None).unwrap();
    let account = Account::find().unwrap();
    let archive = Archive::create(&dir.join("wal"), &account).unwrap();
    let since = Instant::now();
    let mut primary = Server::init(&programs, &account, &dir.join("primary"), options(&dir), Some(&archive)).await.unwrap();
    timed("initdb", since);
    let since = Instant::now();
    primary.start().await.unwrap();
    timed("start", since);
    let options = primary.connect_options("postgres");
    let mut connection = options.connect().await.unwrap();
    connection.execute("CREATE TABLE t (id int PRIMARY KEY)").await.unwrap();
    let mut xids = BTreeMap::new();
    let mut insert = async |connection: &mut sqlx::PgConnection, id: i32| {
        let sql = "INSERT INTO t VALUES ($1) RETURNING pg_current_xact_id()::text";
        let xid: String = sqlx::query_scalar(sql).bind(id).fetch_one(connection).await.unwrap();
        xids.insert(xid.parse::<u64>().unwrap(), id);
    };
    for id in 1..=3 {
        insert(&mut connection, id).await;
    }
    let since = Instant::now();
    let backup = base_backup(&primary, &account, &programs, &dir.join("backups/one"), "one", LIMIT).await.unwrap();
    timed("backup", since);
    let since = Instant::now();
    let verified = verify(&programs, &account, &dir.join("backups/one"), LIMIT).await.unwrap();
    timed("verify", since);
    assert!(verified.ok, "{}", verified.output);
    insert(&mut connection, 4).await;
    seal(&options, LIMIT).await.unwrap();
    insert(&mut connection, 5).await;
    seal(&options, LIMIT).await.unwrap();
    connection.execute("SELECT pg_create_restore_point('five')").await.unwrap();
    insert(&mut connection, 6).await;
    let since = Instant::now();
    let recorded =
        record_point(&options, &PointRequest::new("known good", "run-1"), async |_snapshot| Ok::<_, std::io::Error>(())).await.unwrap();
    timed("point", since);
    insert(&mut connection, 7).await;
    insert(&mut connection, 8).await;
    let sealed = seal(&options, LIMIT).await.unwrap();
    let point = recorded.point;
    let lost = lost_commits(&programs, &account, &archive, &point, sealed.lsn, LIMIT).await.unwrap();
    connection.close().await.unwrap();
    let since = Instant::now();
    primary.stop(Shutdown::Fast).await.unwrap();
    timed("stop", since);

    // Where each commit record lies is read from the WAL itself, as a witness of its own.
    let (from, to) = (backup.begin_lsn.to_string(), sealed.lsn.to_string());
    let dump = duct::cmd!(programs.bin.join("pg_waldump"), "--rmgr=Transaction", "-p", archive.dir(), "-s", from, "-e", to)
        .env("TZ", "UTC")
        .read()
        .unwrap();
    let mut commits = BTreeMap::new();
    for line in dump.lines().filter(|line| line.contains("desc: COMMIT")) {
        let between = |from: &str, to: &str| line.split_once(from).unwrap().1.split(to).next().unwrap().trim().to_owned();
        let xid: u64 = between("tx:", ",").parse().unwrap();
        if let Some(row) = xids.get(&xid) {
            // pg_waldump pads the low half: 0/030001D8.
            let lsn: Lsn = between("lsn: ", ",").parse().unwrap();
            commits.insert(*row, (xid, lsn, parse_time(&format!("{}+00", between("COMMIT ", " UTC"))).unwrap()));
        }
    }
    assert_eq!(commits.keys().copied().collect::<Vec<_>>(), [4, 5, 6, 7, 8]);
    let last_commit = (commits[&8].2, sealed.lsn);
    History { dir, programs, account, archive, backup, commits, point, last_commit, lost }
}

impl History {
    fn plan(&self, target: Target, inclusive: bool) -> RestorePlan {
        let facts = self.archive.facts(Some(self.last_commit)).unwrap();
        plan(std::slice::from_ref(&self.backup), &facts, &RecoveryTarget { target, inclusive }).unwrap()
    }

    async fn restore(&self, plan: &RestorePlan, dir: &Path) -> Result<Paused, RestoreError> {
        self.restore_from(plan, dir, &self.archive, options(dir)).await
    }

    async fn restore_from(
        &self,
        plan: &RestorePlan,
        dir: &Path,
        archive: &Archive,
        options: ServerOptions,
    ) -> Result<Paused, RestoreError> {
        restore(RestoreRequest {
            programs: &self.programs,
            account: &self.account,
            plan,
            backup_dir: &self.dir.join("backups/one"),
            archive,
            dir: &dir.join("restored"),
            options,
            archive_to: None,
            login: Login::default(),
            limit: LIMIT,
        })
        .await
    }

    /// The rows that are there at the pause, and, unchanged, after the promotion to timeline 2.
    async fn rows_at(&self, target: Target, inclusive: bool) -> Vec<i32> {
        let dir = scratch();
        let plan = self.plan(target, inclusive);
        let paused = self.restore(&plan, dir.path()).await.unwrap();
        let (files, replay) = (paused.files, paused.replay);
        let at_pause = rows(paused.server()).await;
        let mut promoted = paused.promote().await.unwrap();
        eprintln!("{}: files {files:?}, replay {replay:?}, promotion {:?}", plan.target, promoted.promotion);
        assert_eq!((promoted.timeline, &promoted.system_identifier), (2, &self.backup.system_identifier));
        assert_eq!(rows(&promoted.server).await, at_pause, "promotion changed the rows");
        promoted.server.stop(Shutdown::Immediate).await.unwrap();
        at_pause
    }

    /// A copy of the archive, to be damaged.
    fn archive_copy(&self, dir: &Path) -> Archive {
        let copy = dir.join("wal");
        duct::cmd!("cp", "-a", self.archive.dir(), &copy).run().unwrap();
        Archive::open(&copy)
    }
}

fn up_to(last: i32) -> Vec<i32> {
    (1..=last).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_target_stops_at_its_transaction_on_either_side() {
    let history = history().await;
    let (xid, lsn, time) = history.commits[&6];
    for (target, inclusive, last) in [
        (Target::Time(time), true, 6),
        (Target::Time(time), false, 5),
        (Target::Lsn(lsn), true, 6),
        (Target::Lsn(lsn), false, 5),
        (Target::Xid(xid), true, 6),
        (Target::Xid(xid), false, 5),
        (Target::Name("five".to_owned()), true, 5),
        (Target::Name("five".to_owned()), false, 5),
        (Target::Immediate, true, 3),
        (Target::Immediate, false, 3),
    ] {
        let shown = format!("{target:?}, inclusive: {inclusive}");
        assert_eq!(history.rows_at(target, inclusive).await, up_to(last), "{shown}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recovery_point_is_reached_and_proven_by_every_kind_of_target() {
    let history = history().await;
    for kind in [TargetKind::Time, TargetKind::Lsn, TargetKind::Xid, TargetKind::Name] {
        let dir = scratch();
        let target = kind.of(&history.point);
        let mut paused = history.restore(&history.plan(target.target, target.inclusive), dir.path()).await.unwrap();
        let since = Instant::now();
        let reached = paused.prove(&history.point).await.unwrap();
        timed("proof", since);
        assert!(reached.marker_present == Some(true) && reached.sentinel_absent == Some(true), "{kind:?}: {reached:?}");
        assert_eq!(reached.pause_state, "paused");
        assert!(reached.lsn <= history.point.sentinel.lsn && reached.last_commit.unwrap() <= history.point.time);
        assert_eq!(rows(paused.server()).await, up_to(6), "{kind:?}");
        paused.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_transaction_too_early_or_too_late_is_seen() {
    let history = history().await;
    for (target, inclusive, expected) in [
        (Target::Xid(history.point.marker.xid), false, (false, true)),
        (Target::Xid(history.point.sentinel.xid), true, (true, false)),
        (Target::Immediate, true, (false, true)),
        (Target::Xid(history.commits[&7].0), true, (true, false)),
    ] {
        let dir = scratch();
        let mut paused = history.restore(&history.plan(target.clone(), inclusive), dir.path()).await.unwrap();
        let reached = paused.prove(&history.point).await.unwrap();
        assert_eq!((reached.marker_present, reached.sentinel_absent), (Some(expected.0), Some(expected.1)), "{target:?}: {reached:?}");
        paused.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instant_is_the_same_whatever_the_offset_and_the_servers_time_zone() {
    let history = history().await;
    let time = history.commits[&5].2;
    for zone in ["Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Australia/Lord_Howe"] {
        let dir = scratch();
        // The target as someone in that zone would write it down, daylight saving time included.
        let there = time.in_tz(zone).unwrap().strftime("%Y-%m-%d %H:%M:%S%.6f%:z").to_string();
        let plan = history.plan(Target::Time(parse_time(&there).unwrap()), true);
        let mut options = options(dir.path());
        options.settings = vec![("timezone".to_owned(), zone.to_owned()), ("log_timezone".to_owned(), zone.to_owned())];
        let mut paused = history.restore_from(&plan, dir.path(), &history.archive, options).await.unwrap();
        assert_eq!(rows(paused.server()).await, up_to(5), "{zone}: {there}");
        paused.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_a_short_and_an_altered_segment_are_named() {
    let history = history().await;
    let plan = history.plan(Target::Xid(history.commits[&7].0), true);
    let row_5 = history.archive.segment_of(1, history.commits[&5].1);
    let offset = usize::try_from(history.commits[&5].1.0 % (16 << 20)).unwrap();
    type Damage<'a> = (&'static str, Box<dyn Fn(&Path) + 'a>);
    let damages: [Damage<'_>; 3] = [
        ("missing", Box::new(|path| std::fs::remove_file(path).unwrap())),
        ("bytes instead of", Box::new(|path| std::fs::File::options().write(true).open(path).unwrap().set_len(8192).unwrap())),
        (
            "checksum",
            Box::new(move |path| {
                let mut bytes = std::fs::read(path).unwrap();
                bytes[offset + 26] ^= 1;
                std::fs::write(path, bytes).unwrap();
            }),
        ),
    ];
    for (says, damage) in damages {
        let dir = scratch();
        let archive = history.archive_copy(dir.path());
        damage(&archive.dir().join(&row_5));
        let checked = archive.check(&history.programs, &history.account, 1, history.backup.begin_lsn, None, LIMIT).await.unwrap();
        assert!(checked.as_ref().is_some_and(|fault| fault.segment() == row_5 && fault.to_string().contains(says)), "{says}: {checked:?}");
        let error = history.restore_from(&plan, dir.path(), &archive, options(dir.path())).await.err().unwrap();
        let RestoreError::Segment { fault, .. } = &error else { panic!("{says}: {error}") };
        assert_eq!(Some(fault), checked.as_ref(), "{says}");
        assert!(error.to_string().contains(&row_5));
    }
    let whole = history.archive.check(&history.programs, &history.account, 1, history.backup.begin_lsn, None, LIMIT).await.unwrap();
    assert_eq!(whole, None::<SegmentFault>);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_never_comes_ends_with_the_last_completed_transaction() {
    let history = history().await;
    let dir = scratch();
    let plan = history.plan(Target::Name("never written".to_owned()), true);
    let error = history.restore(&plan, dir.path()).await.err().unwrap();
    let RestoreError::TargetNotReached { last_completed: Some(last), .. } = &error else { panic!("{error}") };
    assert!(last.contains("last completed transaction was at log time"), "{last}");
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_keep_a_restored_server_down_are_told_from_lost_data() {
    let history = history().await;
    for (name, value) in [("shared_preload_libraries", "nothere"), ("max_connections", "5")] {
        let dir = scratch();
        let mut options = options(dir.path());
        options.settings.push((name.to_owned(), value.to_owned()));
        let plan = history.plan(Target::Immediate, true);
        let error = history.restore_from(&plan, dir.path(), &history.archive, options).await.err().unwrap();
        assert!(matches!(&error, RestoreError::SettingsBroken { .. }), "{name}: {error:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_file_of_a_backup_is_named() {
    let history = history().await;
    let dir = scratch();
    let copy = dir.path().join("backup");
    duct::cmd!("cp", "-a", history.dir.join("backups/one"), &copy).run().unwrap();
    let file = "base/1/1259";
    let mut bytes = std::fs::read(copy.join(file)).unwrap();
    bytes[100] ^= 1;
    std::fs::write(copy.join(file), bytes).unwrap();
    let seen = verify(&history.programs, &history.account, &copy, LIMIT).await.unwrap();
    assert_eq!((seen.ok, seen.damaged_file.as_deref()), (false, Some(file)), "{}", seen.output);
    std::fs::remove_file(copy.join(file)).unwrap();
    let seen = verify(&history.programs, &history.account, &copy, LIMIT).await.unwrap();
    assert_eq!((seen.ok, seen.damaged_file.as_deref()), (false, Some(file)), "{}", seen.output);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_restore_would_lose_is_counted_from_the_wal() {
    let history = history().await;
    assert_eq!((history.lost.commits, history.lost.last_commit), (2, Some(history.commits[&8].2)));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_that_another_server_has_filled_is_refused() {
    let history = history().await;
    let error = Archive::create(history.archive.dir(), &history.account).unwrap_err();
    assert!(matches!(&error, ArchiveError::NotEmpty { .. }), "{error}");
}

/// What a snapshot or a restored server holds of the accounts, as one value.
const ACCOUNTS: &str = "SELECT sum(balance)::bigint, md5(string_agg(id || ':' || balance, ',' ORDER BY id)) FROM accounts";

#[tokio::test(flavor = "multi_thread")]
async fn the_snapshot_and_the_restored_state_agree_while_others_write() {
    let dir = scratch();
    let (programs, account) = (Programs::find(None).unwrap(), Account::find().unwrap());
    let archive = Archive::create(&dir.path().join("wal"), &account).unwrap();
    let mut primary = Server::init(&programs, &account, &dir.path().join("primary"), options(dir.path()), Some(&archive)).await.unwrap();
    primary.start().await.unwrap();
    run(
        &primary,
        "CREATE TABLE accounts AS SELECT id, 100 AS balance FROM generate_series(1, 100) id; ALTER TABLE accounts ADD PRIMARY KEY (id)",
    )
    .await;
    let backup_dir = dir.path().join("backup");
    let backup = base_backup(&primary, &account, &programs, &backup_dir, "b", LIMIT).await.unwrap();
    let options_of = primary.connect_options("postgres");
    let done = AtomicBool::new(false);
    let write = async || {
        let mut connection = options_of.connect().await.unwrap();
        let mut written = 0u32;
        while !done.load(Ordering::Relaxed) {
            let sql = "WITH p AS (SELECT (random() * 99)::int + 1 AS id) UPDATE accounts SET balance = balance + 1 FROM p WHERE accounts.id = p.id";
            connection.execute(sql).await.unwrap();
            written += 1;
        }
        written
    };
    let record = async {
        let mut points = Vec::new();
        for turn in 0..3 {
            let request = PointRequest::new(format!("turn {turn}"), "run");
            let recorded = record_point(&options_of, &request, async |snapshot: String| {
                let mut connection = options_of.connect().await?;
                connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ").await?;
                connection.execute(sqlx::AssertSqlSafe(format!("SET TRANSACTION SNAPSHOT '{snapshot}'"))).await?;
                let row = connection.fetch_one(ACCOUNTS).await?;
                Ok::<(i64, String), sqlx::Error>((row.try_get(0)?, row.try_get(1)?))
            });
            let recorded = recorded.await.unwrap();
            eprintln!("{:?}", recorded.cut);
            points.push((recorded.point, recorded.known_good));
        }
        done.store(true, Ordering::Relaxed);
        points
    };
    let (first, second, third, points) = futures::join!(write(), write(), write(), record);
    assert!(first > 0 && second > 0 && third > 0);
    primary.stop(Shutdown::Immediate).await.unwrap();
    let facts = archive.facts(None).unwrap();
    for (turn, kind) in [TargetKind::Time, TargetKind::Lsn, TargetKind::Name].into_iter().enumerate() {
        let (point, known_good) = &points[turn];
        let plan = plan(std::slice::from_ref(&backup), &facts, &kind.of(point)).unwrap();
        let to = dir.path().join(format!("restored{turn}"));
        let (programs, account, plan, backup_dir, archive) = (&programs, &account, &plan, backup_dir.as_path(), &archive);
        let options = ServerOptions { socket_dir: dir.path().join("s"), port: 5433, settings: Vec::new() };
        let request = RestoreRequest {
            programs,
            account,
            plan,
            backup_dir,
            archive,
            dir: &to,
            options,
            archive_to: None,
            login: Login::default(),
            limit: LIMIT,
        };
        let mut paused = restore(request).await.unwrap();
        let reached = paused.prove(point).await.unwrap();
        assert!(reached.marker_present == Some(true) && reached.sentinel_absent == Some(true), "{kind:?}: {reached:?}");
        let row = paused.server().connect_options("postgres").connect().await.unwrap().fetch_one(ACCOUNTS).await.unwrap();
        assert_eq!(&(row.get::<i64, _>(0), row.get::<String, _>(1)), known_good, "{kind:?}");
        paused.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_drill_leaves_nothing_after_clean_and_foreign_directories_are_not_touched() {
    let top = scratch();
    let root = top.path().join("state");
    let (programs, account) = (Programs::find(None).unwrap(), Account::find().unwrap());
    let work = WorkDir::open(&root, "first-run", &account, 1).unwrap();
    let busy = WorkDir::open(&root, "second-run", &account, 1).unwrap_err();
    assert!(matches!(&busy, WorkDirError::Busy { run, pid, .. } if run == "first-run" && *pid == std::process::id()), "{busy}");
    assert!(matches!(clean(&root).await, Err(WorkDirError::Busy { .. })));

    let at = ServerOptions { socket_dir: work.sockets(), port: 5432, settings: Vec::new() };
    let mut server = Server::init(&programs, &account, &work.path().join("primary"), at.clone(), None).await.unwrap();
    server.start().await.unwrap();
    let mut second = Server::init(&programs, &account, &work.path().join("second"), at, None).await.unwrap();
    let in_use = second.start().await.unwrap_err().to_string();
    assert!(in_use.contains("port 5432") && in_use.contains("in use"), "{in_use}");
    let late = base_backup(&server, &account, &programs, &work.path().join("b/never"), "never", Duration::ZERO).await.unwrap_err();
    assert!(late.timed_out(), "{late}");

    let foreign = root.join("someone");
    std::fs::create_dir(&foreign).unwrap();
    std::fs::write(foreign.join("precious"), "x").unwrap();
    let target = top.path().join("elsewhere");
    std::fs::create_dir(&target).unwrap();
    std::fs::write(target.join("precious"), "x").unwrap();
    std::os::unix::fs::symlink(&target, work.path().join("link")).unwrap();
    let pid = server.pid().unwrap();
    // A recorded process id that has since been given to another program: ours, with another start.
    let stale = format!("{{\"pid\":{},\"start_ticks\":1,\"executable\":\"/bin/true\"}}\n", std::process::id());
    std::fs::write(work.path().join("turnback-processes.jsonl"), stale).unwrap();
    // As after SIGKILL: nobody stopped the server, and the lock is free.
    server.detach();
    drop((server, work));

    assert_eq!(leftovers(&root).unwrap().len(), 1);
    let report = clean(&root).await.unwrap();
    assert!(report.left.is_empty() && report.removed.iter().any(|line| line.contains(&pid.to_string())), "{report:?}");
    assert_eq!(report.untouched, std::slice::from_ref(&foreign));
    assert!(leftovers(&root).unwrap().is_empty());
    assert!(foreign.join("precious").is_file() && target.join("precious").is_file());
    let again = clean(&root).await.unwrap();
    assert!(again.removed.is_empty() && again.left.is_empty());
    std::fs::remove_dir_all(&foreign).unwrap();
    clean(&root).await.unwrap();
    assert!(!root.exists());
    clean(&root).await.unwrap();
}

#[tokio::test]
async fn a_root_that_is_a_link_or_too_small_is_refused() {
    let top = scratch();
    let account = Account::find().unwrap();
    std::os::unix::fs::symlink(top.path(), top.path().join("link")).unwrap();
    assert!(matches!(WorkDir::open(&top.path().join("link"), "r", &account, 1), Err(WorkDirError::NotOurs { .. })));
    assert!(matches!(WorkDir::open(&top.path().join("w"), "r", &account, u64::MAX), Err(WorkDirError::NoSpace { .. })));
}
