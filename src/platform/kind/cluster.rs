//! kind clusters: created, found, and deleted only when they are proven to be ours.
//!
//! It starts kind and docker. The kubeconfig goes into a file of the drill's own; the user's is neither read nor written.

use super::client::{KubeClient, kinds};
use super::error::{is_there, waited};
use super::{KindError, Kit};
use crate::wait::{Poll, Wait};
use serde_json::json;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What the name of every cluster of ours begins with.
pub const PREFIX: &str = "turnback-";
/// The ConfigMap in `kube-system` that says whose a cluster is.
const MARKER: &str = "turnback";
/// How long kind may take to create a cluster, and how long to delete one.
const KIND_LIMIT: Duration = Duration::from_secs(300);
/// How long a short question to docker or kind may take.
const ASK_LIMIT: Duration = Duration::from_secs(30);
/// How long the API of a new cluster may take to answer and to take the marker.
const API_LIMIT: Duration = Duration::from_secs(60);

/// A cluster to be created, in the words of kind's own options.
#[derive(Clone, Debug)]
pub struct Wanted {
    name: String,
    image: String,
    kind: PathBuf,
    kubeconfig: PathBuf,
    run: String,
    patches: Vec<String>,
    wait: Duration,
    retain: bool,
}

/// A kind cluster of ours.
#[derive(Clone, Debug)]
pub struct KindCluster {
    name: String,
    kind: PathBuf,
    kubeconfig: PathBuf,
    run: String,
}

impl Wanted {
    /// A cluster of one node for a run: `turnback-NAME`, of the kit's node image, with its kubeconfig in `kubeconfig`.
    #[must_use]
    pub fn new(kit: &Kit, name: &str, run: &str, kubeconfig: &Path) -> Self {
        let name = if name.starts_with(PREFIX) { name.to_owned() } else { format!("{PREFIX}{name}") };
        Self {
            name,
            image: kit.node.image.clone(),
            kind: kit.programs.kind.clone(),
            kubeconfig: kubeconfig.to_owned(),
            run: run.to_owned(),
            patches: Vec::new(),
            wait: Duration::ZERO,
            retain: false,
        }
    }

    /// Its name, as `kind get clusters` will list it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Another node image.
    #[must_use]
    pub fn image(mut self, image: impl Into<String>) -> Self {
        self.image = image.into();
        self
    }

    /// A patch of kubeadm's configuration (`kubeadmConfigPatches`).
    #[must_use]
    pub fn config_patch(mut self, patch: impl Into<String>) -> Self {
        self.patches.push(patch.into());
        self
    }

    /// How long kind itself waits for the node; by default not at all, so that the installation begins while the node becomes ready.
    #[must_use]
    pub fn wait(mut self, limit: Duration) -> Self {
        self.wait = limit;
        self
    }

    /// Leaves the node of a cluster that could not be created, for a look at its logs.
    #[must_use]
    pub fn retain(mut self, retain: bool) -> Self {
        self.retain = retain;
        self
    }

    /// kind's configuration as JSON, which is YAML too.
    fn config(&self) -> String {
        let cluster = json!({
            "kind": "Cluster",
            "apiVersion": "kind.x-k8s.io/v1alpha4",
            "nodes": [{ "role": "control-plane" }],
            "kubeadmConfigPatches": self.patches,
        });
        cluster.to_string()
    }

    /// Creates the cluster and puts our marker into it.
    ///
    /// # Errors
    /// When a cluster of this name is there, the engine does not answer, the node image is missing, or kind fails: what it said is in the error.
    pub async fn create(mut self) -> Result<KindCluster, KindError> {
        let cluster =
            KindCluster { name: self.name.clone(), kind: self.kind.clone(), kubeconfig: self.kubeconfig.clone(), run: self.run.clone() };
        if exists(&self.kind, &self.name).await? {
            let why = "a cluster of this name is there already, from another run".to_owned();
            return Err(KindError::NotOurs { cluster: self.name, why });
        }
        let ask = ["info", "--format", "{{.CgroupVersion}}"];
        if run("ask the container engine for its cgroup version", "docker", ask.map(OsString::from), None, ASK_LIMIT).await?.trim() == "1" {
            // This Kubernetes refuses to run on cgroup v1 unless it is told that it is meant.
            let patch = "kind: KubeletConfiguration\napiVersion: kubelet.config.k8s.io/v1beta1\nfailCgroupV1: false\n";
            self.patches.push(patch.to_owned());
        }
        let mut arguments: Vec<OsString> = ["create", "cluster", "--config", "-", "--name"].map(OsString::from).to_vec();
        arguments.extend([self.name.clone().into(), "--image".into(), self.image.clone().into()]);
        arguments.extend(["--kubeconfig".into(), self.kubeconfig.clone().into_os_string()]);
        arguments.extend(["--wait".into(), format!("{}s", self.wait.as_secs()).into()]);
        if self.retain {
            arguments.push("--retain".into());
        }
        let ask = ["image", "inspect", "--format", "{{.Id}}", self.image.as_str()].map(OsString::from);
        match run("look for the node image", "docker", ask, None, ASK_LIMIT).await {
            Err(KindError::Program { said, .. }) if said.contains("No such image") => return Err(KindError::NoImage(self.image)),
            other => other?,
        };
        let operation = format!("create the kind cluster {}", self.name);
        let program = self.kind.to_string_lossy().into_owned();
        let mut expression = duct::cmd(&program, arguments).stdin_bytes(self.config()).stdout_capture().stderr_capture().unchecked();
        if let Some(dir) = self.kubeconfig.parent() {
            // Should we be killed, `turnback clean` finds kind still at work by where it works.
            expression = expression.dir(dir);
        }
        ended(&operation, &program, expression, KIND_LIMIT).await?;
        if let Err(error) = cluster.mark().await {
            // Nobody could tell later whose it is.
            let _ = cluster.remove().await;
            return Err(error);
        }
        Ok(cluster)
    }
}

impl KindCluster {
    /// A cluster that was created before, by this run or another one of ours.
    ///
    /// # Errors
    /// When its name is not one of ours, it does not answer, or it does not carry our marker: then it is somebody else's.
    pub async fn adopt(kit: &Kit, name: &str, kubeconfig: &Path) -> Result<Self, KindError> {
        let not_ours = |why: &str| KindError::NotOurs { cluster: name.to_owned(), why: why.to_owned() };
        if !name.starts_with(PREFIX) {
            return Err(not_ours("its name does not begin with turnback-"));
        }
        let mut cluster =
            Self { name: name.to_owned(), kind: kit.programs.kind.clone(), kubeconfig: kubeconfig.to_owned(), run: String::new() };
        let mut arguments: Vec<OsString> = ["export", "kubeconfig", "--name"].map(OsString::from).to_vec();
        arguments.extend([name.into(), "--kubeconfig".into(), kubeconfig.as_os_str().to_owned()]);
        run(&format!("get the kubeconfig of {name}"), &cluster.kind.to_string_lossy(), arguments, None, ASK_LIMIT).await?;
        match cluster.marker().await? {
            Some(run) => cluster.run = run,
            None => return Err(not_ours("it does not carry the marker (ConfigMap kube-system/turnback)")),
        }
        Ok(cluster)
    }

    /// The cluster that a run made, or was about to make, under this name; it may be half made, or not there at all.
    ///
    /// # Errors
    /// When the name is not one of ours.
    pub fn of_run(kit: &Kit, name: &str, run: &str, kubeconfig: &Path) -> Result<Self, KindError> {
        if !name.starts_with(PREFIX) {
            return Err(KindError::NotOurs { cluster: name.to_owned(), why: "its name does not begin with turnback-".to_owned() });
        }
        let (name, run, kubeconfig) = (name.to_owned(), run.to_owned(), kubeconfig.to_owned());
        Ok(Self { name, kind: kit.programs.kind.clone(), kubeconfig, run })
    }

    /// Its name, as `kind get clusters` lists it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The run that made it.
    #[must_use]
    pub fn run(&self) -> &str {
        &self.run
    }

    /// The file with which kubectl and the harness reach it.
    #[must_use]
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// The container that is its node.
    #[must_use]
    pub fn node(&self) -> String {
        format!("{}-control-plane", self.name)
    }

    /// A connection to its API.
    ///
    /// # Errors
    /// When its kubeconfig cannot be used.
    pub async fn connect(&self) -> Result<KubeClient, KindError> {
        KubeClient::connect(&self.kubeconfig, Some(&format!("kind-{}", self.name))).await
    }

    /// Waits until its node is ready.
    ///
    /// # Errors
    /// When it is not ready in time.
    pub async fn node_ready(&self, client: &KubeClient, limit: Duration) -> Result<(), KindError> {
        client.until_condition(&kinds::NODE.global(self.node()), "Ready", limit).await.map(|_| ())
    }

    /// Deletes it, after a look at its marker: a cluster of this name that another run made meanwhile stays.
    ///
    /// # Errors
    /// When it is not ours any more, or kind fails.
    pub async fn delete(&self) -> Result<(), KindError> {
        if !exists(&self.kind, &self.name).await? {
            return Ok(());
        }
        // A cluster whose API is dead can say nothing; then what this run knows counts: it made the cluster under this name.
        if let Ok(marker) = self.marker().await
            && marker.as_deref() != Some(self.run.as_str())
        {
            let why = format!("its marker says {}", marker.unwrap_or_else(|| "nothing".to_owned()));
            return Err(KindError::NotOurs { cluster: self.name.clone(), why });
        }
        self.remove().await
    }

    async fn remove(&self) -> Result<(), KindError> {
        let mut arguments: Vec<OsString> = ["delete", "cluster", "--name"].map(OsString::from).to_vec();
        arguments.extend([self.name.clone().into(), "--kubeconfig".into(), self.kubeconfig.clone().into_os_string()]);
        run(&format!("delete the kind cluster {}", self.name), &self.kind.to_string_lossy(), arguments, None, KIND_LIMIT).await.map(|_| ())
    }

    async fn mark(&self) -> Result<(), KindError> {
        let client = self.connect().await?;
        let object = kinds::CONFIG_MAP.named("kube-system", MARKER);
        let manifest = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": MARKER, "namespace": "kube-system" },
            "data": { "run": self.run, "cluster": self.name } });
        KubeClient::retrying("the new cluster's API takes our marker", API_LIMIT, async || {
            match client.create(&object, manifest.clone(), false).await {
                Err(KindError::Api { source, .. }) if is_there(&source) => Ok(()),
                other => other.map(|_| ()),
            }
        })
        .await
    }

    /// The run in its marker; `None` where there is no marker.
    async fn marker(&self) -> Result<Option<String>, KindError> {
        let client = self.connect().await?.impatient();
        let marker = client.get(&kinds::CONFIG_MAP.named("kube-system", MARKER)).await?;
        Ok(marker.and_then(|marker| Some(marker.data.pointer("/data/run")?.as_str()?.to_owned())))
    }
}

/// The clusters of this machine whose names are of our kind.
///
/// # Errors
/// When kind or the engine does not answer.
pub async fn list(kind: &Path) -> Result<Vec<String>, KindError> {
    let listed = run("list the kind clusters", &kind.to_string_lossy(), ["get", "clusters"].map(OsString::from), None, ASK_LIMIT).await?;
    Ok(listed.lines().map(str::trim).filter(|name| name.starts_with(PREFIX)).map(str::to_owned).collect())
}

async fn exists(kind: &Path, name: &str) -> Result<bool, KindError> {
    Ok(list(kind).await?.iter().any(|known| known == name))
}

/// Runs a program to its end and returns its standard output.
pub(super) async fn run(
    operation: &str,
    program: &str,
    arguments: impl IntoIterator<Item = OsString>,
    input: Option<String>,
    limit: Duration,
) -> Result<String, KindError> {
    let expression = duct::cmd(program, arguments.into_iter().collect::<Vec<_>>()).stdout_capture().stderr_capture().unchecked();
    let expression = match input {
        Some(input) => expression.stdin_bytes(input),
        None => expression.stdin_null(),
    };
    ended(operation, program, expression, limit).await
}

/// Waits for a program, and kills it when it does not end in time.
pub(super) async fn ended(operation: &str, program: &str, expression: duct::Expression, limit: Duration) -> Result<String, KindError> {
    let start = |source| KindError::Start { operation: operation.to_owned(), program: program.to_owned(), source };
    let handle = expression.start().map_err(start)?;
    let name = Path::new(program).file_name().unwrap_or_default().to_string_lossy();
    let look = async || match handle.try_wait() {
        Ok(None) => Ok(Poll::NotYet(format!("{name} runs"))),
        Ok(Some(output)) => Ok(Poll::Ready((output.status, output.stdout.clone(), output.stderr.clone()))),
        Err(source) => Err(start(source)),
    };
    let done = Wait::new(operation, limit).until(look).await.map_err(waited);
    if done.is_err() {
        // What it left is looked after by whoever asked; the error that is returned says what was going on.
        let _ = handle.kill();
    }
    let (status, output, errors) = done?;
    if status.success() {
        return Ok(String::from_utf8_lossy(&output).into_owned());
    }
    let said = String::from_utf8_lossy(&errors);
    let last: Vec<_> = said.lines().filter(|line| !line.trim().is_empty()).collect();
    let said = last[last.len().saturating_sub(12)..].join("\n");
    Err(KindError::Program { operation: operation.to_owned(), program: program.to_owned(), status: status.to_string(), said })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_program_that_fails_says_why_and_one_that_hangs_is_ended() {
        let arguments = ["-c", "echo one >&2; echo two >&2; exit 3"].map(OsString::from);
        let error = run("test", "sh", arguments, None, ASK_LIMIT).await.unwrap_err().to_string();
        assert!(error.contains("one\ntwo") && error.contains('3'), "{error}");
        let hangs = run("test", "sleep", ["60"].map(OsString::from), None, Duration::from_millis(50)).await;
        assert!(matches!(hangs, Err(KindError::TimedOut { .. })), "{hangs:?}");
        let missing = run("test", "no-such-program-at-all", [], None, ASK_LIMIT).await;
        assert!(matches!(missing, Err(KindError::Start { .. })));
    }

    #[tokio::test]
    async fn a_cluster_of_another_name_is_never_taken_for_ours() {
        let text = r#"{"format":1,"key":"k","built":"b","programs":{"kind":"kind","kubectl":"k"},"node":{"image":"n","id":"i","kubernetes":"v"},
            "images":[],"manifests":{"flux":"f","cnpg":"c","barman-cloud":"b","object-store":"o","git-server":"g"},"components":[]}"#;
        let kit: Kit = serde_json::from_str(text).unwrap();
        let adopted = KindCluster::adopt(&kit, "production", Path::new("none")).await;
        assert!(matches!(adopted, Err(KindError::NotOurs { .. })));
        let wanted = Wanted::new(&kit, "drill", "r", Path::new("c")).config_patch("a: b");
        assert_eq!(wanted.name, "turnback-drill");
        assert!(wanted.config().contains(r#""kubeadmConfigPatches":["a: b"]"#));
    }
}
