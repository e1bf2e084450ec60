//! Bringing the kind platform up: a cluster, what must run in it, the tree in its Git server, and Flux having applied it.

use super::super::{CLUSTER_FILE, Description, PRIMARY, Up, tree_file};
use super::{BACKUP_LIMIT, Kind, platform};
use crate::clock;
use crate::gitops::tree::{DATABASES, NAMESPACE, PlatformOverlay, platform_overlay};
use crate::gitops::{self, Repository};
use crate::platform::kind::application::Application;
use crate::platform::kind::{Forward, Kit, Secrets, Target, Wanted, cnpg, flux, image, install, push};
use crate::platform::local::Account;
use crate::workflow::drill::operating_system;
use crate::workflow::{DatabaseSource, Drill, Failure};
use serde_json::json;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use turnback_core::drill::ReasonCode;
use turnback_core::evidence::Tool;
use turnback_core::recovery::BaseBackup;

/// Free space that the drill's own directory needs, in bytes; the cluster's data lies with the container engine.
const SPACE: u64 = 64 * 1024 * 1024;
/// How long the node of a new cluster may take to be ready.
const NODE_LIMIT: Duration = Duration::from_secs(120);
/// How long archiving may take to be in order.
const ARCHIVING_LIMIT: Duration = Duration::from_secs(120);
/// How long Flux may take for the first revision: a database, its schema and the application.
const FIRST_LIMIT: Duration = Duration::from_secs(300);
/// What the kit calls the image of PostgreSQL, and how large its volume is.
const OPERAND: &str = "postgresql";
const STORAGE: &str = "1Gi";
/// The directory of the tree that the cluster applies.
const CLUSTER_PATH: &str = "./clusters/kind";
/// The application's releases; the drill's change brings the second.
const VERSIONS: [&str; 2] = ["1.0.0", "1.1.0"];

/// What a kind platform is made of.
#[derive(Clone, Debug)]
pub struct KindSettings {
    /// Programs, images and manifests.
    pub kit: Kit,
    /// This executable: it is the sample application too.
    pub executable: PathBuf,
    /// Whose the drill's own directory is.
    pub account: Account,
}

impl KindSettings {
    pub(in crate::workflow) fn headline(&self) -> String {
        let version = |name: &str| self.kit.components.iter().find(|one| one.name == name).map_or("?", |one| one.version.as_str());
        format!("on kind · Kubernetes {} · CloudNativePG {} · Flux", self.kit.node.kubernetes, version("cloudnative-pg"))
    }

    pub(in crate::workflow) fn describe(&self) -> Description {
        let mut tools: Vec<_> = self
            .kit
            .components
            .iter()
            .map(|one| Tool { name: one.name.clone(), version: format!("{} ({})", one.version, one.source) })
            .collect();
        tools.extend(self.kit.images.iter().map(|one| Tool { name: format!("image {}", one.reference), version: one.digest.clone() }));
        tools.push(Tool { name: "operating system".into(), version: operating_system() });
        Description {
            name: "kind",
            note: format!(
                "the real thing on one machine: Kubernetes {} in kind, Flux, CloudNativePG, the Barman Cloud plugin and an S3 server, {}",
                self.kit.node.kubernetes, self.kit.built
            ),
            tools,
            limits: vec![
                "CloudNativePG promotes as soon as the target is reached: where replay stopped was read from the recovery Job's log, not from a paused server".into(),
                "Barman Cloud keeps no checksums of a backup's files: that a backup is whole was shown by restoring it".into(),
                "one node and one instance each: failover, storage classes and the network between nodes were not exercised".into(),
            ],
            space: SPACE,
        }
    }
}

pub(in crate::workflow::platform) async fn up(
    drill: &mut Drill,
    settings: &KindSettings,
    source: &DatabaseSource,
    database: Option<String>,
) -> Result<Up, Failure> {
    if !matches!(source, DatabaseSource::SampleApplication) || database.is_some() {
        return Err(Failure::expectation("on kind a drill runs with the sample application's database; drill your own with `--on local`"));
    }
    let begun = Instant::now();
    let dir = drill.dir()?;
    let kit = &settings.kit;
    let run = drill.record.run.id.clone();
    let kubeconfig = dir.join("kubeconfig");
    let short: String = run.chars().rev().filter(char::is_ascii_alphanumeric).take(8).collect();
    // Before there is a cluster: whoever finds this directory after a kill knows which cluster to delete.
    let wanted = Wanted::new(kit, &short, &run, &kubeconfig);
    std::fs::write(dir.join(CLUSTER_FILE), wanted.name()).map_err(|e| Failure::platform(&e))?;
    let cluster = wanted.create().await.map_err(|e| platform(&e))?;
    let mut parts = vec![("cluster", begun.elapsed())];
    drill.journal("cluster-created", json!({ "cluster": cluster.name(), "node_image": kit.node.image }));

    let client = cluster.connect().await.map_err(|e| platform(&e))?;
    let secrets = Secrets::generate();
    let repository = Repository::create(&dir.join("repository.git"), &gitops::TREE, clock::now()).map_err(|e| Failure::platform(&e))?;
    let overlay = PlatformOverlay {
        image: kit.image(OPERAND).map_err(|e| platform(&e))?.reference.clone(),
        instances: 1,
        storage: STORAGE.to_owned(),
        object_store: install::OBJECT_STORE_URL.to_owned(),
    };
    let databases = tree_file(&repository, &repository.head().map_err(|e| Failure::platform(&e))?, DATABASES)?;
    let adapted = [platform_overlay(&databases, &overlay).map_err(|e| Failure::platform(&e))?];
    let head = repository.commit(&adapted, "Fit the tree to this platform", clock::now()).map_err(|e| Failure::platform(&e))?;
    let (installed, _, loaded) = futures::try_join!(
        install::install(&client, kit, &secrets),
        cluster.node_ready(&client, NODE_LIMIT),
        image::load(&cluster, kit, &settings.executable, &["orders"], &VERSIONS)
    )
    .map_err(|e| platform(&e))?;
    parts.push(("components", begun.elapsed()));
    drill.journal("components-installed", json!({ "parts": installed.parts, "application": loaded }));

    let git = Forward::open(&client, Target::git_server()).await.map_err(|e| platform(&e))?;
    push::push(&repository, &git).await.map_err(|e| platform(&e))?;
    flux::bootstrap(&client, push::URL, CLUSTER_PATH).await.map_err(|e| platform(&e))?;
    let first = flux::reconcile(&client, &head, FIRST_LIMIT).await.map_err(|e| platform(&e))?;
    if first.outcome != flux::FluxOutcome::Applied {
        let said = serde_json::to_string(&first.outcome).unwrap_or_default();
        return Err(Failure::because(ReasonCode::PlatformFailed, format!("Flux did not apply the tree at {}: {said}", head.short())));
    }
    parts.push(("tree", begun.elapsed()));
    drill.journal("reconciled", json!({ "asked": head.to_string(), "parts": first.parts }));

    cnpg::archiving(&client, NAMESPACE, PRIMARY, ARCHIVING_LIMIT).await.map_err(|e| platform(&e))?;
    let scheduled = cnpg::first_scheduled(&client, NAMESPACE, PRIMARY, PRIMARY, BACKUP_LIMIT).await.map_err(|e| platform(&e))?;
    let Some(backup) = scheduled.backup else {
        return Err(Failure::because(
            ReasonCode::BackupNotCompleted,
            format!("the scheduled Backup {} is {}", scheduled.name, scheduled.phase),
        ));
    };
    parts.push(("backup", begun.elapsed()));
    let database = "orders".to_owned();
    let primary = cnpg::superuser(&client, NAMESPACE, PRIMARY, &database).await.map_err(|e| platform(&e))?;
    let application = Application::open(&client, NAMESPACE).await.map_err(|e| platform(&e))?;
    application.available(NODE_LIMIT).await.map_err(|e| platform(&e))?;
    let took: Vec<_> = parts.iter().map(|(name, at)| format!("{name} after {} s", at.as_secs())).collect();
    let seen = format!(
        "kind cluster {} with Flux and CloudNativePG: {}; revision {} applied; the application answers",
        cluster.name(),
        took.join(", "),
        head.short()
    );
    let kind = Kind {
        cluster,
        client,
        secrets,
        repository,
        git,
        application,
        with_application: true,
        database,
        source: PRIMARY,
        primary,
        restored: None,
        recovering: String::new(),
        reconciliations: vec![first],
        recovery_log: None,
        kubeconfig,
        kubectl: kit.programs.kubectl.clone(),
    };
    // CNPG's times count whole seconds: the backup may have ended up to one later.
    let backup = BaseBackup { end_time: backup.end_time + jiff::SignedDuration::from_secs(1), ..backup };
    Ok(Up { platform: Box::new(kind), backups: vec![backup], not_exercised: Vec::new(), seen })
}
