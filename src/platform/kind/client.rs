//! The cluster's API: objects read, changed and waited for, by kind and name.
//!
//! Objects are read as they come, without generated types: what Flux and CNPG report is looked up by path, so that a field that another version
//! does not have is simply not there.

use super::KindError;
use super::error::{api, is_missing, said, waited};
use crate::wait::{Poll, Wait};
use futures::{StreamExt, TryFutureExt};
use kube::api::{Api, ApiResource, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::GroupVersionKind;
use kube::discovery::{self, ApiCapabilities};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::watch_object;
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The field manager of everything that is applied here.
pub const FIELD_MANAGER: &str = "turnback";

/// How long one request is repeated while the API is away: an API server that restarts is back within this.
const PATIENCE: Duration = Duration::from_secs(30);

/// A kind of object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    plural: &'static str,
}

/// The kinds that the harness reads.
pub mod kinds {
    use super::Kind;

    const fn kind(group: &'static str, version: &'static str, kind: &'static str, plural: &'static str) -> Kind {
        Kind { group, version, kind, plural }
    }

    /// A node.
    pub const NODE: Kind = kind("", "v1", "Node", "nodes");
    /// A pod.
    pub const POD: Kind = kind("", "v1", "Pod", "pods");
    /// A ConfigMap.
    pub const CONFIG_MAP: Kind = kind("", "v1", "ConfigMap", "configmaps");
    /// A Secret.
    pub const SECRET: Kind = kind("", "v1", "Secret", "secrets");
    /// A namespace.
    pub const NAMESPACE: Kind = kind("", "v1", "Namespace", "namespaces");
    /// An event.
    pub const EVENT: Kind = kind("", "v1", "Event", "events");
    /// A Deployment.
    pub const DEPLOYMENT: Kind = kind("apps", "v1", "Deployment", "deployments");
    /// A Job.
    pub const JOB: Kind = kind("batch", "v1", "Job", "jobs");
    /// The definition of a kind.
    pub const CRD: Kind = kind("apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions");
    /// CNPG's database Cluster.
    pub const CLUSTER: Kind = kind("postgresql.cnpg.io", "v1", "Cluster", "clusters");
    /// CNPG's Backup.
    pub const BACKUP: Kind = kind("postgresql.cnpg.io", "v1", "Backup", "backups");
    /// CNPG's ScheduledBackup.
    pub const SCHEDULED_BACKUP: Kind = kind("postgresql.cnpg.io", "v1", "ScheduledBackup", "scheduledbackups");
    /// The Barman Cloud plugin's ObjectStore.
    pub const OBJECT_STORE: Kind = kind("barmancloud.cnpg.io", "v1", "ObjectStore", "objectstores");
    /// Flux's source.
    pub const GIT_REPOSITORY: Kind = kind("source.toolkit.fluxcd.io", "v1", "GitRepository", "gitrepositories");
    /// Flux's Kustomization.
    pub const KUSTOMIZATION: Kind = kind("kustomize.toolkit.fluxcd.io", "v1", "Kustomization", "kustomizations");
}

impl Kind {
    /// What the client needs to know of it.
    #[must_use]
    pub fn resource(&self) -> ApiResource {
        ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(self.group, self.version, self.kind), self.plural)
    }

    /// An object of this kind in a namespace.
    pub fn named(&self, namespace: impl Into<String>, name: impl Into<String>) -> Object {
        Object { kind: *self, namespace: Some(namespace.into()), name: name.into() }
    }

    /// An object of this kind that belongs to the cluster.
    pub fn global(&self, name: impl Into<String>) -> Object {
        Object { kind: *self, namespace: None, name: name.into() }
    }

    /// `Kind`, as people write it.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        self.kind
    }
}

/// An object by kind, namespace and name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace; `None` for objects of the cluster.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{} {namespace}/{}", self.kind.kind, self.name),
            None => write!(f, "{} {}", self.kind.kind, self.name),
        }
    }
}

/// A condition of an object's status.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Condition {
    /// Its type, such as `Ready`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// One word.
    pub reason: String,
    /// A sentence.
    pub message: String,
    /// When it became so, as the object says.
    pub since: String,
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={} {}", self.kind, self.status, self.reason)?;
        if self.message.is_empty() { Ok(()) } else { write!(f, ": {}", self.message) }
    }
}

/// The text at a path such as `/status/phase`.
#[must_use]
pub fn text<'a>(object: &'a DynamicObject, pointer: &str) -> Option<&'a str> {
    object.data.pointer(pointer).and_then(Value::as_str)
}

/// The conditions of an object.
#[must_use]
pub fn conditions(object: &DynamicObject) -> Vec<Condition> {
    let of = |condition: &Value, field: &str| condition[field].as_str().unwrap_or_default().to_owned();
    let list = object.data.pointer("/status/conditions").and_then(Value::as_array);
    list.into_iter()
        .flatten()
        .map(|c| Condition {
            kind: of(c, "type"),
            status: of(c, "status"),
            reason: of(c, "reason"),
            message: of(c, "message"),
            since: of(c, "lastTransitionTime"),
        })
        .collect()
}

/// One condition of an object.
#[must_use]
pub fn condition(object: &DynamicObject, kind: &str) -> Option<Condition> {
    conditions(object).into_iter().find(|condition| condition.kind == kind)
}

/// A connection to a cluster's API.
#[derive(Clone)]
pub struct KubeClient {
    client: kube::Client,
    known: Arc<Mutex<HashMap<GroupVersionKind, (ApiResource, ApiCapabilities)>>>,
    patience: Duration,
}

impl fmt::Debug for KubeClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KubeClient")
    }
}

impl KubeClient {
    /// Connects with a kubeconfig file and one of its contexts; `None` takes its current one. The user's own kubeconfig is never looked at.
    ///
    /// # Errors
    /// When the file cannot be read or names no such context.
    pub async fn connect(kubeconfig: &Path, context: Option<&str>) -> Result<Self, KindError> {
        let wrong = |problem: String| KindError::Kubeconfig { path: kubeconfig.to_owned(), problem };
        let file = Kubeconfig::read_from(kubeconfig).map_err(|error| wrong(error.to_string()))?;
        let options = KubeConfigOptions { context: context.map(str::to_owned), ..KubeConfigOptions::default() };
        let mut config = kube::Config::from_custom_kubeconfig(file, &options).await.map_err(|error| wrong(error.to_string()))?;
        if config.cluster_url.host().is_some_and(|host| host == "localhost" || host.starts_with("127.")) {
            // A proxy of the environment is for the world outside.
            config.proxy_url = None;
        }
        config.connect_timeout = Some(Duration::from_secs(5));
        let client = kube::Client::try_from(config).map_err(|error| wrong(said(&error)))?;
        Ok(Self { client, known: Arc::default(), patience: PATIENCE })
    }

    /// The same connection, for requests that are made once: for looking at a cluster that may be dead.
    #[must_use]
    pub fn impatient(&self) -> Self {
        Self { patience: Duration::ZERO, ..self.clone() }
    }

    /// The client itself.
    #[must_use]
    pub fn client(&self) -> kube::Client {
        self.client.clone()
    }

    /// The objects of a kind, of one namespace or of the whole cluster.
    #[must_use]
    pub fn api(&self, kind: Kind, namespace: Option<&str>) -> Api<DynamicObject> {
        match namespace {
            Some(namespace) => Api::namespaced_with(self.client(), namespace, &kind.resource()),
            None => Api::all_with(self.client(), &kind.resource()),
        }
    }

    fn of(&self, object: &Object) -> Api<DynamicObject> {
        self.api(object.kind, object.namespace.as_deref())
    }

    /// What the cluster calls a kind that a manifest names, and whether it lives in namespaces. Asked once for each kind.
    ///
    /// # Errors
    /// When the cluster does not know the kind.
    pub async fn resolve(&self, gvk: &GroupVersionKind) -> Result<(ApiResource, ApiCapabilities), KindError> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(gvk).cloned();
        if let Some(known) = known {
            return Ok(known);
        }
        let name = format!("{}/{} {}", gvk.group, gvk.version, gvk.kind);
        let found = discovery::oneshot::pinned_kind(&self.client, gvk).await.map_err(api("look up the kind", name))?;
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(gvk.clone(), found.clone());
        Ok(found)
    }

    /// An object, or `None` where there is none, or not even its kind.
    ///
    /// # Errors
    /// When the API does not answer.
    pub async fn get(&self, object: &Object) -> Result<Option<DynamicObject>, KindError> {
        self.patiently(async || match self.of(object).get(&object.name).await {
            Ok(found) => Ok(Some(found)),
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(api("read", object)(error)),
        })
        .await
    }

    /// The objects of a kind with these labels (`a=b,c=d`; empty for all); none where the kind is not known.
    ///
    /// # Errors
    /// When the API does not answer.
    pub async fn list(&self, kind: Kind, namespace: Option<&str>, labels: &str) -> Result<Vec<DynamicObject>, KindError> {
        self.patiently(async || match self.api(kind, namespace).list(&ListParams::default().labels(labels)).await {
            Ok(found) => Ok(found.items),
            Err(error) if is_missing(&error) => Ok(Vec::new()),
            Err(error) => Err(api("list", kind.plural)(error)),
        })
        .await
    }

    /// Creates an object from its manifest; with `dry_run` only for a try.
    ///
    /// # Errors
    /// When the API refuses it.
    pub async fn create(&self, object: &Object, manifest: Value, dry_run: bool) -> Result<DynamicObject, KindError> {
        let failed = |problem: String| KindError::Manifest { file: object.to_string(), problem };
        let manifest: DynamicObject = serde_json::from_value(manifest).map_err(|error| failed(error.to_string()))?;
        let parameters = PostParams { dry_run, field_manager: Some(FIELD_MANAGER.to_owned()) };
        self.of(object).create(&parameters, &manifest).map_err(api("create", object)).await
    }

    /// Merges a change into an object.
    ///
    /// # Errors
    /// When there is no such object, or the API refuses.
    pub async fn merge(&self, object: &Object, change: &Value) -> Result<DynamicObject, KindError> {
        let parameters = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        self.patiently(async || {
            self.of(object).patch(&object.name, &parameters, &Patch::Merge(change)).map_err(api("change", object)).await
        })
        .await
    }

    /// Repeats a request that may be repeated, while the API is away.
    async fn patiently<T>(&self, mut request: impl AsyncFnMut() -> Result<T, KindError>) -> Result<T, KindError> {
        match request().await {
            Err(error) if error.is_passing() && !self.patience.is_zero() => Self::retrying("the API answers", self.patience, request).await,
            other => other,
        }
    }

    /// Sets an annotation.
    ///
    /// # Errors
    /// As [`Self::merge`].
    pub async fn annotate(&self, object: &Object, key: &str, value: &str) -> Result<DynamicObject, KindError> {
        self.merge(object, &json!({ "metadata": { "annotations": { key: value } } })).await
    }

    /// Deletes an object; one that is not there is fine.
    ///
    /// # Errors
    /// When the API refuses.
    pub async fn delete(&self, object: &Object) -> Result<(), KindError> {
        self.patiently(async || match self.of(object).delete(&object.name, &kube::api::DeleteParams::background()).await {
            Ok(_) => Ok(()),
            Err(error) if is_missing(&error) => Ok(()),
            Err(error) => Err(api("delete", object)(error)),
        })
        .await
    }

    /// Watches one object until `look` is content with it; it is given `None` while there is no such object. An API that is away for a while is
    /// waited for.
    ///
    /// # Errors
    /// What `look` returns, or that the deadline passed.
    pub async fn until<T>(
        &self,
        object: &Object,
        name: impl fmt::Display,
        limit: Duration,
        mut look: impl FnMut(Option<&DynamicObject>) -> Result<Poll<T>, KindError>,
    ) -> Result<T, KindError> {
        let mut events = pin!(watch_object(self.of(object), &object.name).default_backoff());
        let next = async || match events.next().await {
            Some(Ok(seen)) => look(seen.as_ref()),
            Some(Err(error)) => Ok(Poll::NotYet(format!("the API: {error}"))),
            None => Ok(Poll::NotYet(format!("the watch of {object} ended"))),
        };
        Wait::new(name, limit).until(next).await.map_err(waited)
    }

    /// Waits until a condition of an object is `True`.
    ///
    /// # Errors
    /// When the deadline passes; the last status is the condition as it was seen last.
    pub async fn until_condition(&self, object: &Object, kind: &str, limit: Duration) -> Result<DynamicObject, KindError> {
        let look = |seen: Option<&DynamicObject>| {
            let Some(seen) = seen else { return Ok(Poll::NotYet(format!("there is no {object}"))) };
            Ok(match condition(seen, kind) {
                Some(found) if found.status == "True" => Poll::Ready(seen.clone()),
                Some(found) => Poll::NotYet(found.to_string()),
                None => Poll::NotYet(format!("no condition {kind}")),
            })
        };
        self.until(object, format!("{object} is {kind}"), limit, look).await
    }

    /// Tries something until it succeeds, as long as its failures are passing ones.
    ///
    /// # Errors
    /// The first failure that does not pass, or that the deadline passed.
    pub async fn retrying<T>(name: &str, limit: Duration, mut attempt: impl AsyncFnMut() -> Result<T, KindError>) -> Result<T, KindError> {
        let look = async || match attempt().await {
            Ok(done) => Ok(Poll::Ready(done)),
            Err(error) if error.is_passing() => Ok(Poll::NotYet(error.to_string())),
            Err(error) => Err(error),
        };
        Wait::new(name, limit).every(Duration::from_millis(250)).until(look).await.map_err(waited)
    }
}
