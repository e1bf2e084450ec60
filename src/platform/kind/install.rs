//! What a new cluster needs before a repository can be reconciled: Flux, CloudNativePG, the Barman Cloud plugin, the S3 and the Git server, and the
//! secrets that no repository holds. All of it at the same time; how long each took is returned.

use super::apply::{self, Applied};
use super::client::{KubeClient, kinds};
use super::secrets::DATABASE_USER;
use super::{KindError, Kit, Secrets, ms};
use crate::gitops;
use crate::wait::Poll;
use kube::api::DynamicObject;
use serde::Serialize;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// How long one Deployment may take to be available.
const AVAILABLE: Duration = Duration::from_secs(180);
/// How long a webhook may take to answer once its Deployment is available.
const ANSWERS: Duration = Duration::from_secs(60);
/// Where CNPG and the plugin are.
const OPERATORS: &str = "cnpg-system";
/// Where the cluster's pods find the S3 server.
pub const OBJECT_STORE_URL: &str = "http://object-store.object-store.svc.cluster.local:7070";
/// The secret with which databases reach the bucket, as the tree names it.
const BACKUP_CREDENTIALS: &str = "backup-credentials";
/// The secret of the application's database user, as the tree names it.
pub const DATABASE_SECRET: &str = "orders-database";

/// What was installed.
#[derive(Clone, Debug, Serialize)]
pub struct Installed {
    /// From the beginning until each part was there, in milliseconds, in the order in which they were.
    pub parts: Vec<(String, u64)>,
}

/// Installs everything.
///
/// # Errors
/// When a manifest cannot be read or is refused, or a component is not there in time: its last status is in the error.
pub async fn install(client: &KubeClient, kit: &Kit, secrets: &Secrets) -> Result<Installed, KindError> {
    let begun = Instant::now();
    let manifests = &kit.manifests;
    let mut documents = vec![namespace(gitops::tree::NAMESPACE)];
    for file in [&manifests.flux, &manifests.cnpg, &manifests.barman_cloud, &manifests.object_store, &manifests.git_server] {
        documents.extend(apply::read(file)?);
    }
    documents.iter_mut().for_each(tune);
    documents.extend(secret_documents(secrets));
    let Applied { deployments, .. } = apply::apply(client, documents).await?;
    let mut parts = vec![("applied".to_owned(), ms(begun))];

    let ready = deployments.iter().map(async |(namespace, name)| {
        available(client, namespace, name, AVAILABLE).await?;
        Ok::<_, KindError>((name.clone(), ms(begun)))
    });
    let dns = async {
        available(client, "kube-system", "coredns", AVAILABLE).await?;
        Ok::<_, KindError>(("coredns".to_owned(), ms(begun)))
    };
    let webhook = async {
        available(client, OPERATORS, "cnpg-controller-manager", AVAILABLE).await?;
        webhook_answers(client).await?;
        Ok::<_, KindError>(("cnpg-webhook".to_owned(), ms(begun)))
    };
    let (deployments, dns, webhook) = futures::try_join!(futures::future::try_join_all(ready), dns, webhook)?;
    parts.extend(deployments);
    parts.extend([dns, webhook]);
    parts.sort_by_key(|(_, at)| *at);
    Ok(Installed { parts })
}

/// Waits until a Deployment is available.
///
/// # Errors
/// When it is not in time; the status says which pods are missing and why.
pub async fn available(client: &KubeClient, namespace: &str, name: &str, limit: Duration) -> Result<(), KindError> {
    let deployment = kinds::DEPLOYMENT.named(namespace, name);
    match client.until_condition(&deployment, "Available", limit).await {
        Ok(_) => Ok(()),
        Err(KindError::TimedOut { name: wait, limit, last }) => {
            let waiting = pods_waiting(client, namespace).await;
            Err(KindError::TimedOut { name: wait, limit, last: format!("{last}{waiting}") })
        }
        Err(other) => Err(other),
    }
}

/// What the containers of a namespace wait for, such as an image.
async fn pods_waiting(client: &KubeClient, namespace: &str) -> String {
    let Ok(pods) = client.list(kinds::POD, Some(namespace), "").await else { return String::new() };
    let mut said = String::new();
    for pod in pods {
        let list = |field: &str| pod.data.pointer(&format!("/status/{field}")).and_then(Value::as_array).cloned().unwrap_or_default();
        for container in list("initContainerStatuses").into_iter().chain(list("containerStatuses")) {
            if let Some(waiting) = container.pointer("/state/waiting") {
                let of = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                let name = pod.metadata.name.as_deref().unwrap_or_default();
                said += &format!("; Pod {name}, {}: {} {}", of(&container["name"]), of(&waiting["reason"]), of(&waiting["message"]));
            }
        }
    }
    said
}

/// Waits until CNPG's webhook answers: a Cluster that is created for a try only is taken.
async fn webhook_answers(client: &KubeClient) -> Result<(), KindError> {
    let tried = kinds::CLUSTER.named("default", "turnback-try");
    let manifest = json!({ "apiVersion": "postgresql.cnpg.io/v1", "kind": "Cluster", "metadata": { "name": "turnback-try", "namespace": "default" },
        "spec": { "instances": 1, "storage": { "size": "1Gi" } } });
    KubeClient::retrying("CNPG's webhook answers", ANSWERS, async || client.create(&tried, manifest.clone(), true).await).await.map(|_| ())
}

/// Waits until a namespace's object exists.
///
/// # Errors
/// When it does not in time.
pub async fn exists(client: &KubeClient, object: &super::Object, limit: Duration) -> Result<DynamicObject, KindError> {
    let look = |seen: Option<&DynamicObject>| {
        Ok(seen.map_or_else(|| Poll::NotYet("it is not there".to_owned()), |seen| Poll::Ready(seen.clone())))
    };
    client.until(object, format!("{object} exists"), limit, look).await
}

/// Settings of Flux's controllers for a platform that lives for one drill.
fn tune(document: &mut Value) {
    if document["kind"] != "Deployment" || document["metadata"]["name"] != "kustomize-controller" {
        return;
    }
    if let Some(arguments) = document.pointer_mut("/spec/template/spec/containers/0/args").and_then(Value::as_array_mut) {
        // A revision that never becomes healthy, such as a recovery that cannot succeed, gives way to the one that takes it back.
        arguments.push(json!("--feature-gates=CancelHealthCheckOnNewRevision=true"));
    }
}

fn namespace(name: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "Namespace",
        "metadata": { "name": name, "labels": { "pod-security.kubernetes.io/enforce": "baseline" } } })
}

fn secret_documents(secrets: &Secrets) -> Vec<Value> {
    let bucket = json!({ "ACCESS_KEY_ID": secrets.access_key, "ACCESS_SECRET_KEY": secrets.access_secret });
    let secret = |namespace: &str, name: &str, kind: &str, data: &Value| json!({ "apiVersion": "v1", "kind": "Secret", "type": kind, "metadata": { "name": name, "namespace": namespace }, "stringData": data });
    let user = json!({ "username": DATABASE_USER, "password": secrets.database });
    vec![
        secret("object-store", "object-store", "Opaque", &bucket),
        secret(gitops::tree::NAMESPACE, BACKUP_CREDENTIALS, "Opaque", &bucket),
        secret(gitops::tree::NAMESPACE, DATABASE_SECRET, "kubernetes.io/basic-auth", &user),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_kustomize_controller_is_tuned() {
        let deployment = |name: &str| {
            json!({ "kind": "Deployment", "metadata": { "name": name },
            "spec": { "template": { "spec": { "containers": [{ "args": ["--log-level=info"] }] } } } })
        };
        let (mut tuned, mut other) = (deployment("kustomize-controller"), deployment("source-controller"));
        tune(&mut tuned);
        tune(&mut other);
        assert!(tuned.to_string().contains("CancelHealthCheckOnNewRevision") && !other.to_string().contains("feature-gates"));
    }
}
