//! What a person would look at next: logs, events and objects of a platform as texts with names, without secrets.
//!
//! It never fails: what cannot be read says so in its place.

use super::KindError;
use super::client::{Kind, KubeClient, kinds};
use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DynamicObject, LogParams};
use serde_json::Value;

/// The namespaces that belong to a platform.
pub const NAMESPACES: [&str; 6] = ["orders", "flux-system", "cnpg-system", "object-store", "git-server", "kube-system"];
/// No more is kept of one log.
const LONGEST: i64 = 1024 * 1024;
/// How many logs are read at a time.
const AT_ONCE: usize = 8;

/// Gathers pod logs (those of earlier containers too), events and objects of these namespaces; every value in `secrets` is blotted out.
pub async fn gather(client: &KubeClient, namespaces: &[&str], secrets: &[String]) -> Vec<(String, String)> {
    let mut texts = Vec::new();
    let client = client.impatient();
    for namespace in namespaces {
        texts.extend(of_namespace(&client, namespace).await);
    }
    for (_, text) in &mut texts {
        for secret in secrets.iter().filter(|secret| secret.len() >= 4) {
            if text.contains(secret.as_str()) {
                *text = text.replace(secret.as_str(), "[redacted]");
            }
        }
    }
    texts
}

async fn of_namespace(client: &KubeClient, namespace: &str) -> Vec<(String, String)> {
    let mut texts = Vec::new();
    match client.list(kinds::EVENT, Some(namespace), "").await {
        Ok(events) => texts.push((format!("{namespace}/events.txt"), events_text(&events))),
        Err(error) => texts.push((format!("{namespace}/events.txt"), error.to_string())),
    }
    // Secrets and ConfigMaps are left out: what they hold is either secret or in the repository.
    let listed: [Kind; 9] = [
        kinds::POD,
        kinds::DEPLOYMENT,
        kinds::JOB,
        kinds::CLUSTER,
        kinds::BACKUP,
        kinds::SCHEDULED_BACKUP,
        kinds::OBJECT_STORE,
        kinds::GIT_REPOSITORY,
        kinds::KUSTOMIZATION,
    ];
    for kind in listed {
        let text = match client.list(kind, Some(namespace), "").await {
            Ok(found) if found.is_empty() => continue,
            Ok(found) => found.iter().map(yaml).collect::<Vec<_>>().join("---\n"),
            Err(error) => error.to_string(),
        };
        texts.push((format!("{namespace}/{}.yaml", kind.as_str().to_lowercase()), text));
    }
    let pods = client.list(kinds::POD, Some(namespace), "").await.unwrap_or_default();
    let wanted: Vec<_> = pods.iter().flat_map(containers).collect();
    let logs = stream::iter(wanted).map(async |(pod, container, previous)| {
        let suffix = if previous { ".previous" } else { "" };
        (format!("{namespace}/{pod}/{container}{suffix}.log"), log(client, namespace, &pod, &container, previous).await)
    });
    texts.extend(logs.buffered(AT_ONCE).collect::<Vec<_>>().await);
    texts
}

/// The containers of a pod that have a log, as (pod, container, whether it is the one before a restart).
fn containers(pod: &DynamicObject) -> Vec<(String, String, bool)> {
    let name = pod.metadata.name.clone().unwrap_or_default();
    let list = |field: &str| pod.data.pointer(&format!("/status/{field}")).and_then(Value::as_array).cloned().unwrap_or_default();
    let mut found = Vec::new();
    for status in list("initContainerStatuses").into_iter().chain(list("containerStatuses")) {
        let Some(container) = status["name"].as_str() else { continue };
        if status.pointer("/state/waiting").is_none() {
            found.push((name.clone(), container.to_owned(), false));
        }
        if status["restartCount"].as_u64().unwrap_or(0) > 0 {
            found.push((name.clone(), container.to_owned(), true));
        }
    }
    found
}

async fn log(client: &KubeClient, namespace: &str, pod: &str, container: &str, previous: bool) -> String {
    let pods: Api<Pod> = Api::namespaced(client.client(), namespace);
    let parameters = LogParams {
        container: Some(container.to_owned()),
        previous,
        timestamps: true,
        limit_bytes: Some(LONGEST),
        tail_lines: Some(2000),
        ..LogParams::default()
    };
    match pods.logs(pod, &parameters).await {
        Ok(log) => log,
        Err(error) => {
            KindError::Api { operation: "read the log of", object: format!("Pod {namespace}/{pod}"), source: Box::new(error) }.to_string()
        }
    }
}

fn events_text(events: &[DynamicObject]) -> String {
    let mut lines: Vec<String> = events
        .iter()
        .map(|event| {
            let of = |pointer: &str| event.data.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
            let at =
                [of("/lastTimestamp"), of("/eventTime"), of("/firstTimestamp")].into_iter().find(|at| !at.is_empty()).unwrap_or_default();
            let message = of("/message").replace('\n', " ");
            format!("{at} {} {}/{} {}: {message}\n", of("/type"), of("/involvedObject/kind"), of("/involvedObject/name"), of("/reason"))
        })
        .collect();
    lines.sort();
    lines.concat()
}

fn yaml(object: &DynamicObject) -> String {
    let mut object = object.clone();
    object.metadata.managed_fields = None;
    serde_yaml::to_string(&object).unwrap_or_else(|error| format!("cannot be written as YAML: {error}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_container_that_was_started_again_has_two_logs_and_one_that_waits_none() {
        let pod: DynamicObject =
            serde_json::from_value(json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "p" }, "status": {
            "containerStatuses": [
                { "name": "again", "restartCount": 1, "state": { "running": {} } },
                { "name": "waiting", "restartCount": 0, "state": { "waiting": {} } } ] } }))
            .unwrap();
        let own = |container: &str, previous| ("p".to_owned(), container.to_owned(), previous);
        assert_eq!(containers(&pod), [own("again", false), own("again", true)]);
    }
}
