//! Server-side apply of manifests with many documents: namespaces and definitions first, then everything else, as parallel as the API takes it.

use super::KindError;
use super::client::{FIELD_MANAGER, KubeClient, condition, kinds};
use super::error::api;
use crate::wait::Poll;
use futures::{StreamExt, TryStreamExt, stream};
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use kube::core::GroupVersionKind;
use kube::discovery::Scope;
use serde_json::Value;
use std::path::Path;
use std::time::Duration;

/// How many objects are applied at a time.
const AT_ONCE: usize = 12;
/// How long a definition may take to be established.
const ESTABLISHED: Duration = Duration::from_secs(30);
/// How long the API may refuse in passing: an aggregated API or a webhook that is just coming up.
const ACCEPTED: Duration = Duration::from_secs(60);

/// What was applied.
#[derive(Clone, Debug, Default)]
pub struct Applied {
    /// The Deployments, as (namespace, name).
    pub deployments: Vec<(String, String)>,
    /// How many objects.
    pub objects: usize,
}

/// The documents of a manifest; empty ones are left out.
///
/// # Errors
/// When it is not YAML, or a document is no object of a cluster.
pub fn documents(file: &str, text: &str) -> Result<Vec<Value>, KindError> {
    let wrong = |problem: String| KindError::Manifest { file: file.to_owned(), problem };
    let mut found = Vec::new();
    for document in split(text) {
        let value: Value = serde_yaml::from_str(&document).map_err(|error| wrong(error.without_snippet().to_string()))?;
        if value["kind"].as_str().is_none() || value["apiVersion"].as_str().is_none() || value["metadata"]["name"].as_str().is_none() {
            return Err(wrong("a document without apiVersion, kind or name".to_owned()));
        }
        found.push(value);
    }
    Ok(found)
}

/// Cuts a stream of documents at its `---` lines; a document of comments alone is none.
fn split(text: &str) -> Vec<String> {
    let mut documents = vec![String::new()];
    for line in text.lines() {
        if line.trim_end() == "---" {
            documents.push(String::new());
        } else if let Some(last) = documents.last_mut() {
            last.push_str(line);
            last.push('\n');
        }
    }
    let has_content = |document: &String| document.lines().any(|line| !line.trim().is_empty() && !line.trim_start().starts_with('#'));
    documents.into_iter().filter(has_content).collect()
}

/// Reads a manifest's documents from a file.
///
/// # Errors
/// When it cannot be read, or as [`documents`].
pub fn read(path: &Path) -> Result<Vec<Value>, KindError> {
    let text = std::fs::read_to_string(path).map_err(|source| KindError::Local { operation: "read", path: path.to_owned(), source })?;
    documents(&path.display().to_string(), &text)
}

/// Applies documents: namespaces and definitions first; when the definitions are established, the rest.
///
/// # Errors
/// When the API refuses one of them, or a definition is not established in time.
pub async fn apply(client: &KubeClient, documents: Vec<Value>) -> Result<Applied, KindError> {
    let early = |value: &Value| matches!(value["kind"].as_str(), Some("Namespace" | "CustomResourceDefinition"));
    let (first, rest): (Vec<_>, Vec<_>) = documents.into_iter().partition(early);
    let mut applied = Applied { deployments: Vec::new(), objects: first.len() + rest.len() };
    let named = |value: &Value| value["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let definitions: Vec<_> = first.iter().filter(|value| value["kind"] == "CustomResourceDefinition").map(named).collect();
    for value in rest.iter().filter(|value| value["kind"] == "Deployment") {
        applied.deployments.push((value["metadata"]["namespace"].as_str().unwrap_or("default").to_owned(), named(value)));
    }
    all(client, first).await?;
    stream::iter(definitions)
        .map(async |name| {
            let definition = kinds::CRD.global(name);
            client
                .until(&definition, format!("{definition} is established"), ESTABLISHED, |seen| {
                    let established = seen.and_then(|seen| condition(seen, "Established")).is_some_and(|c| c.status == "True");
                    Ok(if established { Poll::Ready(()) } else { Poll::NotYet("not yet established".into()) })
                })
                .await
        })
        .buffer_unordered(AT_ONCE)
        .try_collect::<Vec<_>>()
        .await?;
    all(client, rest).await?;
    Ok(applied)
}

async fn all(client: &KubeClient, documents: Vec<Value>) -> Result<(), KindError> {
    stream::iter(documents).map(async |value| one(client, value).await).buffer_unordered(AT_ONCE).try_collect::<Vec<_>>().await?;
    Ok(())
}

async fn one(client: &KubeClient, value: Value) -> Result<DynamicObject, KindError> {
    let text = |field: &str| value[field].as_str().unwrap_or_default().to_owned();
    let (kind, name) = (text("kind"), value["metadata"]["name"].as_str().unwrap_or_default().to_owned());
    let (group, version) = match text("apiVersion").split_once('/') {
        Some((group, version)) => (group.to_owned(), version.to_owned()),
        None => (String::new(), text("apiVersion")),
    };
    let gvk = GroupVersionKind::gvk(&group, &version, &kind);
    let object = format!("{kind} {name}");
    let parameters = PatchParams::apply(FIELD_MANAGER).force();
    KubeClient::retrying(&format!("the API takes {object}"), ACCEPTED, async || {
        let (resource, capabilities) = client.resolve(&gvk).await?;
        let namespace = value["metadata"]["namespace"].as_str();
        let objects: Api<DynamicObject> = match (capabilities.scope, namespace) {
            (Scope::Namespaced, namespace) => Api::namespaced_with(client.client(), namespace.unwrap_or("default"), &resource),
            (Scope::Cluster, _) => Api::all_with(client.client(), &resource),
        };
        objects.patch(&name, &parameters, &Patch::Apply(&value)).await.map_err(api("apply", &object))
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_told_apart_and_empty_ones_left_out() {
        let text = "---\n# only words\n---\napiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n---\n\napiVersion: v1\nkind: ConfigMap\n\
                    metadata: {name: b}\ndata:\n  c: |\n    --- not a border\n";
        let found = documents("two.yaml", text).unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!(found[1]["data"]["c"], "--- not a border\n");
    }

    #[test]
    fn a_document_without_a_name_is_refused_with_its_file() {
        let error = documents("bad.yaml", "apiVersion: v1\nkind: Namespace\n").unwrap_err().to_string();
        assert!(error.starts_with("bad.yaml:"), "{error}");
    }
}
