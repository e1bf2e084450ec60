//! The kind platform's adapters on one real cluster, from nothing to a restored database and back to nothing.
//!
//! It takes a container engine and the kit (`scripts/offline/kit build`), and fails where they are missing. With TURNBACK_KEEP set, the cluster
//! stays for a look when the test fails.

use futures::FutureExt;
use std::path::Path;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use turnback::database::{self, Address};
use turnback::gitops::{self, FileChange, Repository, tree};
use turnback::platform::kind::application::Application;
use turnback::platform::kind::flux::{self, FluxOutcome, FluxReconciliation};
use turnback::platform::kind::recovery::{Recovery, follow_recovery};
use turnback::platform::kind::{
    Forward, KindCluster, Kit, KubeClient, Secrets, Target, Wanted, bucket, cnpg, diagnostics, image, install, kinds, push,
};
use turnback::{clock, recovery};
use turnback_core::recovery::{RecoveryPoint, RecoveryTarget, Target as Point};

const NAMESPACE: &str = "orders";
const CLUSTER: &str = "orders-production";
const MINUTES: Duration = Duration::from_secs(300);

/// The platform under test.
struct Platform<'a> {
    cluster: &'a KindCluster,
    client: KubeClient,
    repository: Repository,
    git: Forward,
    secrets: &'a Secrets,
    begun: Instant,
}

impl<'a> Platform<'a> {
    fn say(&self, what: &str) {
        eprintln!("{:7.1} s  {what}", self.begun.elapsed().as_secs_f32());
    }

    async fn up(kit: &Kit, cluster: &'a KindCluster, secrets: &'a Secrets, directory: &Path, begun: Instant) -> Self {
        let client = cluster.connect().await.unwrap();
        let overlay = tree::PlatformOverlay {
            image: kit.image("postgresql").unwrap().reference.clone(),
            instances: 1,
            storage: "1Gi".to_owned(),
            object_store: install::OBJECT_STORE_URL.to_owned(),
        };
        let executable = Path::new(env!("CARGO_BIN_EXE_turnback"));
        let (installed, (), loaded) =
            tokio::join!(install::install(&client, kit, secrets), async { cluster.node_ready(&client, MINUTES).await.unwrap() }, async {
                let begun = Instant::now();
                let loaded = image::load(cluster, kit, executable, &["orders"], &["1.0.0", "1.1.0"]).await.unwrap();
                eprintln!("         the application's image took {:?}: {loaded:?}", begun.elapsed());
                loaded
            },);
        assert_eq!(loaded.references.len(), 2);
        eprintln!("{:7.1} s  installed: {:?}", begun.elapsed().as_secs_f32(), installed.unwrap().parts);
        let git = Forward::open(&client, Target::git_server()).await.unwrap();
        let repository = Repository::create(&directory.join("repository.git"), &gitops::TREE, clock::now()).unwrap();
        let this = Self { cluster, client, repository, git, secrets, begun };
        let databases = this.read(tree::DATABASES);
        this.commit(&[tree::platform_overlay(&databases, &overlay).unwrap()], "Fit the tree to this platform");
        this
    }

    fn read(&self, path: &str) -> Vec<u8> {
        self.repository.read(&self.repository.head().unwrap(), path).unwrap().unwrap()
    }

    fn commit(&self, changes: &[FileChange], message: &str) {
        self.repository.commit(changes, message, clock::now()).unwrap();
    }

    /// Pushes the branch and reconciles its head.
    async fn reconcile(&self, what: &str) -> FluxReconciliation {
        let head = push::push(&self.repository, &self.git).await.unwrap();
        let done = flux::reconcile(&self.client, &head, MINUTES).await.unwrap();
        assert_eq!(done.revision, head.to_string());
        self.say(&format!("{what}: {:?} {:?}", done.outcome, done.parts));
        done
    }

    async fn applies(&self, what: &str) {
        let done = self.reconcile(what).await;
        assert_eq!(done.outcome, FluxOutcome::Applied, "{done:#?}");
    }

    fn add_migration(&self, name: &str, sql: &str) -> gitops::CommitId {
        let added = tree::add_migration(&self.read(&tree::migrations_kustomization()), name, sql, 0).unwrap();
        self.commit(&added.changes, &format!("Add the migration {name}"));
        self.repository.head().unwrap()
    }

    /// Declares a recovery, reconciles it and follows it.
    async fn recover(&self, name: &str, target: &RecoveryTarget, backup: Option<&str>) -> (FluxReconciliation, Recovery) {
        let declared = tree::RecoveryDeclaration { name, target, backup };
        let changes =
            tree::declare_recovery(&declared, &self.read(&tree::production_cluster()), &self.read(&tree::production_kustomization()))
                .unwrap();
        self.commit(&changes, &format!("Recover {CLUSTER} to {target}"));
        let head = push::push(&self.repository, &self.git).await.unwrap();
        let following = follow_recovery(&self.client, NAMESPACE, name, MINUTES);
        let (reconciled, followed) = tokio::join!(flux::reconcile(&self.client, &head, MINUTES), following);
        let followed = followed.unwrap();
        self.say(&format!("recovery to {target}: {:?}", followed.parts));
        self.say(&format!(
            "  starting: {:?}\n           stopping: {:?}\n           last: {:?}, redo done {:?}, fatal {:?}",
            followed.starting_line, followed.stopping_line, followed.last_completed_transaction, followed.redo_done, followed.fatal
        ));
        (reconciled.unwrap(), followed)
    }
}

async fn number(at: &Address, query: &'static str) -> i64 {
    let mut connection = database::connect(at).await.unwrap();
    sqlx::query_scalar(query).fetch_one(&mut connection).await.unwrap()
}

async fn drill(platform: &Platform<'_>) {
    let client = &platform.client;
    let head = push::push(&platform.repository, &platform.git).await.unwrap();
    platform.say(&format!("pushed {}", head.short()));
    flux::bootstrap(client, push::URL, "./clusters/kind").await.unwrap();
    platform.applies("the tree").await;

    let ready = cnpg::ready(client, NAMESPACE, CLUSTER, MINUTES).await.unwrap();
    assert_eq!(ready.timeline, Some(1), "{ready:?}");
    cnpg::archiving(client, NAMESPACE, CLUSTER, MINUTES).await.unwrap();
    platform.say("WAL is archived");
    let scheduled = cnpg::first_scheduled(client, NAMESPACE, CLUSTER, CLUSTER, MINUTES).await.unwrap();
    platform.say(&format!("the schedule's backup: {scheduled:?}"));
    let application = Application::open(client, NAMESPACE).await.unwrap();
    application.available(MINUTES).await.unwrap();
    let seen = application.observe().await;
    assert!(seen.healthy, "{seen:?}");
    application.place_order(7).await.unwrap();

    let taken = cnpg::backup(client, NAMESPACE, CLUSTER, "by-hand", MINUTES).await.unwrap();
    platform.say(&format!("a backup by hand: {taken:?}"));
    let backup = taken.backup.expect("the backup completes");
    let (primary, _forward) = cnpg::superuser(client, NAMESPACE, CLUSTER, "orders").await.unwrap();
    let request = recovery::PointRequest::new("known-good", "the-run");
    let count = "SELECT count(*) FROM dummy";
    let known_good = async |_| Ok::<_, std::io::Error>(number(&primary, count).await);
    let recorded = recovery::record_point(primary.options(), &request, known_good).await.unwrap();
    platform.say(&format!("recovery point {:?}, cut {:?}", recorded.point, recorded.cut));
    assert!(recorded.known_good > 0);
    assert!(bucket::list(platform.cluster, client).await.unwrap().iter().any(|object| object.key.contains(&recorded.point.segment)));

    // A migration that fails: Flux says so at exactly this revision, and the Job's log is there.
    let broken = platform.add_migration("broken", "SELECT 1 / 0;");
    let failed = platform.reconcile("a migration that fails").await;
    match failed.outcome {
        FluxOutcome::Failed { kustomization, job_log, .. } => {
            assert_eq!(kustomization, "orders-migrations");
            assert!(job_log.unwrap().contains("division by zero"));
        }
        other => panic!("{other:?}"),
    }
    platform.repository.revert(&broken, clock::now()).unwrap();
    platform.applies("its revert").await;

    // One that does harm and succeeds.
    let bad = platform.add_migration("lose_half", "DELETE FROM dummy WHERE id % 2 = 0;");
    platform.applies("a bad migration").await;
    assert!(number(&primary, count).await < recorded.known_good);
    platform.repository.revert(&bad, clock::now()).unwrap();
    platform.applies("its revert").await;
    assert!(number(&primary, count).await < recorded.known_good, "a revert brings no data back");

    suspended(platform).await;
    restores(platform, &recorded.point, &backup.id, recorded.known_good, count).await;

    let release = platform.read(tree::RELEASE);
    platform.commit(&[tree::set_database(&release, "restored-lsn").unwrap()], "Point orders at the restored database");
    platform.applies("the switch").await;
    let seen = application.observe().await;
    assert!(seen.healthy, "{seen:?}");

    let texts = diagnostics::gather(client, &diagnostics::NAMESPACES, &platform.secrets.values()).await;
    platform.say(&format!("diagnostics: {} texts, {} bytes", texts.len(), texts.iter().map(|(_, text)| text.len()).sum::<usize>()));
    assert!(texts.iter().any(|(name, text)| name.contains("barman-cloud") && !text.is_empty()));
    assert!(texts.iter().all(|(_, text)| platform.secrets.values().iter().all(|secret| !text.contains(secret))));
}

/// A suspended Kustomization is told from one that is slow.
async fn suspended(platform: &Platform<'_>) {
    flux::suspend(&platform.client, "orders-migrations", true).await.unwrap();
    let version = tree::set_version(&platform.read(tree::RELEASE), "1.1.0").unwrap();
    platform.commit(&[version], "Release 1.1.0");
    let blocked = platform.reconcile("a release while suspended").await;
    assert!(matches!(&blocked.outcome, FluxOutcome::Suspended { object, .. } if object.contains("orders-migrations")), "{blocked:#?}");
    flux::suspend(&platform.client, "orders-migrations", false).await.unwrap();
    platform.applies("the same, resumed").await;
}

async fn restores(platform: &Platform<'_>, point: &RecoveryPoint, backup: &str, known_good: i64, count: &'static str) {
    let to = |target: Point| RecoveryTarget { target, inclusive: true };
    let kinds_of_target = [
        ("restored-lsn", to(Point::Lsn(point.lsn)), None),
        ("restored-time", to(Point::Time(point.time)), None),
        ("restored-name", to(Point::Name(point.restore_point.clone())), Some(backup)),
        ("restored-xid", to(Point::Xid(point.marker.xid)), Some(backup)),
        ("restored-immediate", to(Point::Immediate), Some(backup)),
    ];
    for (name, target, backup) in kinds_of_target {
        let (reconciled, followed) = platform.recover(name, &target, backup).await;
        assert_eq!(reconciled.outcome, FluxOutcome::Applied, "{reconciled:#?}\n{}", followed.log);
        assert!(followed.is_ready(), "{followed:#?}");
        let status = followed.cluster.unwrap();
        assert_eq!(status.timeline, Some(2));
        assert_eq!(status.system_identifier.as_deref(), Some(point.system_identifier.as_str()));
        let (restored, _forward) = cnpg::superuser(&platform.client, NAMESPACE, name, "orders").await.unwrap();
        assert_eq!(number(&restored, count).await, known_good, "{name}");
        if name != "restored-lsn" {
            // One restored server at a time is enough for this machine.
            let head = platform.repository.head().unwrap();
            platform.repository.revert(&head, clock::now()).unwrap();
            platform.applies("its declaration reverted").await;
            platform.client.delete(&kinds::CLUSTER.named(NAMESPACE, name)).await.unwrap();
        }
    }

    // A target that is never reached: PostgreSQL's FATAL ends it, long before any deadline, and its revert is not held up by it.
    let begun = Instant::now();
    let (reconciled, followed) = unreachable(platform, backup).await;
    assert!(
        followed.fatal.as_deref().is_some_and(|fatal| fatal.contains("before configured recovery target was reached")),
        "{followed:#?}"
    );
    assert!(!matches!(reconciled, Some(FluxOutcome::Applied)));
    assert!(begun.elapsed() < MINUTES / 2, "{:?}", begun.elapsed());
    let head = platform.repository.head().unwrap();
    platform.repository.revert(&head, clock::now()).unwrap();
    platform.applies("the revert of a recovery that cannot succeed").await;
}

async fn unreachable(platform: &Platform<'_>, backup: &str) -> (Option<FluxOutcome>, Recovery) {
    let target = RecoveryTarget { target: Point::Name("nobody wrote this".to_owned()), inclusive: true };
    let declared = tree::RecoveryDeclaration { name: "restored-never", target: &target, backup: Some(backup) };
    let (source, listing) = (platform.read(&tree::production_cluster()), platform.read(&tree::production_kustomization()));
    platform.commit(&tree::declare_recovery(&declared, &source, &listing).unwrap(), "Recover to a point that does not exist");
    let head = push::push(&platform.repository, &platform.git).await.unwrap();
    // Flux waits for the Cluster; the recovery's own log knows sooner.
    let reconciling = flux::reconcile(&platform.client, &head, MINUTES);
    let following = follow_recovery(&platform.client, NAMESPACE, "restored-never", MINUTES);
    tokio::pin!(reconciling);
    tokio::pin!(following);
    tokio::select! {
        reconciled = &mut reconciling => (Some(reconciled.unwrap().outcome), following.await.unwrap()),
        followed = &mut following => {
            platform.say(&format!("a recovery that cannot succeed: {:?}", followed.as_ref().map(|followed| (&followed.fatal, &followed.parts))));
            (None, followed.unwrap())
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_adapters_do_on_a_real_cluster_what_a_drill_needs() {
    let directory = TempDir::new().unwrap();
    let begun = Instant::now();
    let kit = Kit::find().unwrap();
    let name = format!("test-{}", std::process::id());
    let cluster = Wanted::new(&kit, &name, "the-run", &directory.path().join("kubeconfig")).create().await.unwrap();
    eprintln!("{:7.1} s  the cluster's API answers", begun.elapsed().as_secs_f32());
    let secrets = Secrets::generate();
    let all = async {
        let platform = Platform::up(&kit, &cluster, &secrets, directory.path(), begun).await;
        drill(&platform).await;
    };
    let result = FutureExt::catch_unwind(std::panic::AssertUnwindSafe(all)).await;
    if result.is_err() {
        let client = cluster.connect().await.unwrap();
        let texts = diagnostics::gather(&client, &diagnostics::NAMESPACES, &secrets.values()).await;
        let kept = std::env::temp_dir().join(format!("turnback-kind-{name}"));
        for (name, text) in texts {
            let file = kept.join(name);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, text).unwrap();
        }
        eprintln!("{:7.1} s  failed; what the cluster said is in {}", begun.elapsed().as_secs_f32(), kept.display());
    }
    if result.is_ok() || std::env::var_os("TURNBACK_KEEP").is_none() {
        cluster.delete().await.unwrap();
        eprintln!("{:7.1} s  deleted", begun.elapsed().as_secs_f32());
    }
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
}
