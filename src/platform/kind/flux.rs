//! Flux: told where the repository is, asked to reconcile, and watched until exactly one revision is applied or has failed.
//!
//! It reports what Flux says and judges nothing. A status about another revision is never taken for an answer.

use super::client::{Kind, KubeClient, Object, kinds};
use super::error::waited;
use super::flux_state::{Next, named_job, next, source_status};
use super::{KindError, ms};
use crate::clock;
use crate::gitops::{BRANCH, CommitId};
use crate::wait::{Poll, Wait};
use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, LogParams};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use serde::Serialize;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::time::{Duration, Instant};
use uuid::Uuid;

pub use super::flux_state::{FluxOutcome, KustomizationState};

/// The namespace of Flux and its objects.
pub const NAMESPACE: &str = "flux-system";
/// The name of the GitRepository, and of the Kustomization that makes the others.
pub const NAME: &str = "turnback";
/// How a reconciliation is asked for.
const REQUESTED: &str = "reconcile.fluxcd.io/requestedAt";

/// What a reconciliation came to.
#[derive(Clone, Debug, Serialize)]
pub struct FluxReconciliation {
    /// The commit that was waited for.
    pub revision: String,
    /// What became of it.
    #[serde(flatten)]
    pub outcome: FluxOutcome,
    /// The Kustomizations before.
    pub before: Vec<KustomizationState>,
    /// The Kustomizations after.
    pub after: Vec<KustomizationState>,
    /// Flux's events meanwhile, oldest first.
    pub events: Vec<String>,
    /// In milliseconds since the beginning: when the source had the revision (`fetched`), and when each Kustomization had applied it.
    pub parts: Vec<(String, u64)>,
}

fn source() -> Object {
    kinds::GIT_REPOSITORY.named(NAMESPACE, NAME)
}

fn kustomization(name: &str) -> Object {
    kinds::KUSTOMIZATION.named(NAMESPACE, name)
}

/// Flux's name for a commit of the branch.
fn revision(commit: &CommitId) -> String {
    format!("{BRANCH}@sha1:{commit}")
}

/// Tells Flux where the repository is and which directory of it to apply. The repository should hold a commit already.
///
/// # Errors
/// When the API refuses.
pub async fn bootstrap(client: &KubeClient, url: &str, path: &str) -> Result<(), KindError> {
    let documents = vec![
        json!({
            "apiVersion": "source.toolkit.fluxcd.io/v1", "kind": "GitRepository",
            "metadata": { "name": NAME, "namespace": NAMESPACE },
            "spec": { "interval": "10m", "timeout": "20s", "url": url, "ref": { "branch": BRANCH } },
        }),
        json!({
            "apiVersion": "kustomize.toolkit.fluxcd.io/v1", "kind": "Kustomization",
            "metadata": { "name": NAME, "namespace": NAMESPACE },
            "spec": { "interval": "10m", "timeout": "1m", "path": path, "prune": true, "wait": false,
                "sourceRef": { "kind": "GitRepository", "name": NAME } },
        }),
    ];
    super::apply(client, documents).await.map(|_| ())
}

/// Suspends or resumes a Kustomization.
///
/// # Errors
/// When there is none of this name.
pub async fn suspend(client: &KubeClient, name: &str, suspended: bool) -> Result<(), KindError> {
    client.merge(&kustomization(name), &json!({ "spec": { "suspend": suspended } })).await.map(|_| ())
}

/// The Kustomizations as they are.
///
/// # Errors
/// When the API does not answer.
pub async fn states(client: &KubeClient) -> Result<Vec<KustomizationState>, KindError> {
    let found = client.list(kinds::KUSTOMIZATION, Some(NAMESPACE), "").await?;
    Ok(found.iter().map(KustomizationState::read).collect())
}

/// Asks Flux for a commit that was pushed, and waits until every Kustomization has applied exactly it, one has failed at exactly it, or the
/// deadline passes.
///
/// # Errors
/// When the API refuses; what Flux makes of the commit is the outcome.
pub async fn reconcile(client: &KubeClient, commit: &CommitId, limit: Duration) -> Result<FluxReconciliation, KindError> {
    let (begun, since) = (Instant::now(), clock::now());
    let before = states(client).await?;
    let mut parts = Vec::new();
    let wanted = revision(commit);
    let outcome = match fetched(client, &wanted, limit).await? {
        None => {
            parts.push(("fetched".to_owned(), ms(begun)));
            let left = limit.saturating_sub(begun.elapsed());
            applied(client, &before, &wanted, left, begun, &mut parts).await?
        }
        Some(outcome) => outcome,
    };
    let outcome = with_log(client, outcome).await;
    let after = states(client).await?;
    let events = events(client, since).await.unwrap_or_else(|error| vec![error.to_string()]);
    Ok(FluxReconciliation { revision: commit.to_string(), outcome, before, after, events, parts })
}

/// Waits until the source has the revision; an outcome where it never will.
async fn fetched(client: &KubeClient, wanted: &str, limit: Duration) -> Result<Option<FluxOutcome>, KindError> {
    let token = Uuid::now_v7().to_string();
    KubeClient::retrying("Flux's source takes the request", limit, async || client.annotate(&source(), REQUESTED, &token).await).await?;
    let look = |seen: Option<&kube::api::DynamicObject>| {
        let Some(seen) = seen else { return Ok(Poll::NotYet("there is no GitRepository".to_owned())) };
        let (revision, said) = source_status(seen);
        if revision.as_deref() == Some(wanted) {
            return Ok(Poll::Ready(None));
        }
        if seen.data.pointer("/spec/suspend") == Some(&serde_json::Value::Bool(true)) {
            return Ok(Poll::Ready(Some(FluxOutcome::Suspended { object: source().to_string(), stands_at: revision })));
        }
        Ok(Poll::NotYet(format!("the source stands at {}; {said}", revision.as_deref().unwrap_or("nothing"))))
    };
    match client.until(&source(), format!("Flux fetches {wanted}"), limit, look).await {
        Ok(outcome) => Ok(outcome),
        Err(KindError::TimedOut { last, .. }) => Ok(Some(FluxOutcome::TimedOut { last })),
        Err(other) => Err(other),
    }
}

/// Waits until the Kustomizations are through with the revision.
async fn applied(
    client: &KubeClient,
    before: &[KustomizationState],
    wanted: &str,
    limit: Duration,
    begun: Instant,
    parts: &mut Vec<(String, u64)>,
) -> Result<FluxOutcome, KindError> {
    let token = Uuid::now_v7().to_string();
    // Those that have applied this revision before must look again; for the others the revision itself is the proof.
    let again: BTreeSet<_> = before.iter().filter(|state| state.has_applied(wanted)).map(|state| state.name.clone()).collect();
    for name in &again {
        client.annotate(&kustomization(name), REQUESTED, &token).await?;
    }
    let mut states: BTreeMap<String, KustomizationState> = BTreeMap::new();
    let mut poked: BTreeMap<String, String> = BTreeMap::new();
    let mut tokens = BTreeSet::from([token]);
    let api = client.api(kinds::KUSTOMIZATION, Some(NAMESPACE));
    let mut events = pin!(watcher(api, watcher::Config::default()).default_backoff());
    let mut complete = false;
    let look = async || {
        match events.next().await {
            Some(Ok(Event::Init)) => {
                states.clear();
                complete = false;
            }
            Some(Ok(Event::InitDone)) => complete = true,
            Some(Ok(Event::InitApply(object) | Event::Apply(object))) => {
                let state = KustomizationState::read(&object);
                if state.has_applied(wanted) && !parts.iter().any(|(name, _)| *name == state.name) {
                    parts.push((state.name.clone(), ms(begun)));
                }
                states.insert(state.name.clone(), state);
            }
            Some(Ok(Event::Delete(object))) => {
                states.remove(object.metadata.name.as_deref().unwrap_or_default());
            }
            Some(Err(error)) => return Ok(Poll::NotYet(format!("the API: {error}"))),
            None => return Ok(Poll::NotYet("the watch ended".to_owned())),
        }
        if !complete {
            return Ok(Poll::NotYet("listing the Kustomizations".to_owned()));
        }
        let fresh = |state: &KustomizationState| {
            !again.contains(&state.name) || state.last_handled.as_ref().is_some_and(|handled| tokens.contains(handled))
        };
        match next(&states, NAME, wanted, fresh) {
            Next::Done(outcome) => Ok(Poll::Ready(outcome)),
            Next::Wait { poke, status } => {
                for name in poke {
                    // One request at a time: another one only when the last was looked at and came to nothing.
                    let handled = states.get(&name).and_then(|state| state.last_handled.clone());
                    if poked.get(&name).is_none_or(|sent| handled.as_ref() == Some(sent)) {
                        let sent = Uuid::now_v7().to_string();
                        tokens.insert(sent.clone());
                        match client.annotate(&kustomization(&name), REQUESTED, &sent).await {
                            Ok(_) => poked.insert(name, sent),
                            Err(error) if error.is_passing() => None,
                            Err(error) => return Err(error),
                        };
                    }
                }
                Ok(Poll::NotYet(status))
            }
        }
    };
    match Wait::new(format!("Flux applies {wanted}"), limit).until(look).await.map_err(waited) {
        Ok(outcome) => Ok(outcome),
        Err(KindError::TimedOut { last, .. }) => Ok(FluxOutcome::TimedOut { last }),
        Err(other) => Err(other),
    }
}

/// Adds the log of the Job that failed, where Flux names one.
async fn with_log(client: &KubeClient, outcome: FluxOutcome) -> FluxOutcome {
    let FluxOutcome::Failed { kustomization, reason, message, .. } = outcome else { return outcome };
    let job_log = match named_job(&message) {
        Some((namespace, job)) => job_log(client, &namespace, &job).await.ok(),
        None => None,
    };
    FluxOutcome::Failed { kustomization, reason, message, job_log }
}

/// The logs of a Job's pods, one after the other.
///
/// # Errors
/// When the API does not answer.
pub async fn job_log(client: &KubeClient, namespace: &str, job: &str) -> Result<String, KindError> {
    let pods = client.list(kinds::POD, Some(namespace), &format!("batch.kubernetes.io/job-name={job}")).await?;
    let logs: Api<Pod> = Api::namespaced(client.client(), namespace);
    let mut text = String::new();
    for name in pods.into_iter().filter_map(|pod| pod.metadata.name) {
        let log = logs
            .logs(&name, &LogParams::default())
            .await
            .map_err(super::error::api("read the log of", format!("Pod {namespace}/{name}")))?;
        text.push_str(&log);
    }
    Ok(text)
}

/// Events about Flux's objects since a moment, oldest first.
async fn events(client: &KubeClient, since: Timestamp) -> Result<Vec<String>, KindError> {
    let found = client.list(kinds::EVENT, Some(NAMESPACE), "").await?;
    let ours =
        |kind: Option<&str>| [kinds::KUSTOMIZATION, kinds::GIT_REPOSITORY].map(|k: Kind| k.as_str()).contains(&kind.unwrap_or_default());
    let mut lines: Vec<(Timestamp, String)> = Vec::new();
    for event in found {
        let of = |pointer: &str| event.data.pointer(pointer).and_then(serde_json::Value::as_str);
        let Some(at) = of("/lastTimestamp").and_then(|at| at.parse::<Timestamp>().ok()) else { continue };
        // Events count whole seconds.
        if !ours(of("/involvedObject/kind")) || at.as_second() < since.as_second() {
            continue;
        }
        let words = ["/involvedObject/kind", "/involvedObject/name", "/reason", "/message"].map(|pointer| of(pointer).unwrap_or_default());
        let [kind, name, reason, message] = words;
        lines.push((at, format!("{at} {kind}/{name} {reason}: {}", message.lines().next().unwrap_or_default())));
    }
    lines.sort();
    Ok(lines.into_iter().map(|(_, line)| line).collect())
}
