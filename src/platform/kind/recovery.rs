//! A recovery Cluster followed from its declaration to its end: the log of its Job while it runs, and its readiness.
//!
//! It ends at once when PostgreSQL says that recovery is impossible, instead of waiting for a deadline. It reports; it does not judge.

use super::application::stamped;
use super::client::{KubeClient, kinds, text};
use super::cnpg::{self, ClusterStatus};
use super::error::waited;
use super::recovery_log::RecoveryLog;
use super::{KindError, condition};
use crate::clock;
use crate::wait::{Poll, Wait};
use futures::{AsyncBufReadExt, TryStreamExt};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DynamicObject, LogParams};
use serde::Serialize;
use std::pin::pin;
use std::time::Duration;
use turnback_core::recovery::Lsn;

/// The container of the Job whose log is PostgreSQL's.
const CONTAINER: &str = "full-recovery";
/// How many pods of the Job may fail by something else than PostgreSQL before that is taken for the end: the object store may be away for a moment.
const PODS: usize = 2;

/// A recovery, as far as it got.
#[derive(Clone, Debug, Serialize)]
pub struct Recovery {
    /// The Job's log, PostgreSQL's lines unwrapped.
    pub log: String,
    /// “starting point-in-time recovery to …”.
    pub starting_line: Option<String>,
    /// “recovery stopping before commit of transaction …”: none for a target that is reached by the end of the backup.
    pub stopping_line: Option<String>,
    /// “last completed transaction was at log time …”, and the time in it.
    pub last_completed_transaction: Option<(String, Option<Timestamp>)>,
    /// Where replay ended.
    pub redo_done: Option<Lsn>,
    /// What ended it, when it failed.
    pub fatal: Option<String>,
    /// What the Cluster said at the end; timeline and system identifier are there.
    pub cluster: Option<ClusterStatus>,
    /// In milliseconds: from the call until the Job ran (`pod started`), then `backup restored`, `replay`, and `ready` or `failed`.
    pub parts: Vec<(String, u64)>,
}

impl Recovery {
    /// Whether the Cluster is up.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.fatal.is_none() && self.cluster.as_ref().is_some_and(ClusterStatus::is_ready)
    }
}

/// Follows the recovery of a Cluster that is declared or about to be.
///
/// # Errors
/// When the deadline passes, or the API refuses. A recovery that fails is a [`Recovery`] with `fatal`.
pub async fn follow_recovery(client: &KubeClient, namespace: &str, cluster: &str, limit: Duration) -> Result<Recovery, KindError> {
    let begun = clock::now();
    let mut log = RecoveryLog::default();
    let ended = {
        let following = follow_log(client, namespace, cluster, limit, &mut log);
        let ready = cnpg::ready(client, namespace, cluster, limit);
        tokio::select! {
            fatal = following => fatal.map(|fatal| (Some(fatal), None)),
            ready = ready => ready.map(|status| (None, Some(status))),
        }
    };
    let (fatal, status) = match ended {
        Ok(ended) => ended,
        Err(KindError::TimedOut { name, limit, last }) => {
            let said = log.text.lines().last().unwrap_or("the recovery Job has written nothing").to_owned();
            return Err(KindError::TimedOut { name, limit, last: format!("{last}; {said}") });
        }
        Err(other) => return Err(other),
    };
    let status = match status {
        Some(status) => Some(status),
        None => cnpg::status(client, namespace, cluster).await?,
    };
    Ok(Recovery {
        parts: parts(begun, &log, if fatal.is_some() { "failed" } else { "ready" }, clock::now()),
        log: log.text,
        starting_line: log.starting,
        stopping_line: log.stopping,
        last_completed_transaction: log.last_completed,
        redo_done: log.redo_done,
        fatal,
        cluster: status,
    })
}

fn parts(begun: Timestamp, log: &RecoveryLog, last_part: &str, end: Timestamp) -> Vec<(String, u64)> {
    let marks = [("pod started", log.began), ("backup restored", log.started), ("replay", log.replayed), (last_part, Some(end))];
    let mut last = begun;
    let mut parts = Vec::new();
    for (name, mark) in marks {
        if let Some(mark) = mark {
            parts.push((name.to_owned(), u64::try_from(mark.as_millisecond() - last.as_millisecond()).unwrap_or(0)));
            last = mark.max(last);
        }
    }
    parts
}

/// Reads the log of the Job's pods, one after the other, until one of them says that recovery is impossible.
async fn follow_log(
    client: &KubeClient,
    namespace: &str,
    cluster: &str,
    limit: Duration,
    log: &mut RecoveryLog,
) -> Result<String, KindError> {
    let labels = format!("batch.kubernetes.io/job-name={cluster}-1-full-recovery");
    let pods: Api<Pod> = Api::namespaced(client.client(), namespace);
    let mut read: Vec<String> = Vec::new();
    let mut failed: Vec<String> = Vec::new();
    let look = async || {
        let found = match client.list(kinds::POD, Some(namespace), &labels).await {
            Ok(found) => found,
            Err(error) if error.is_passing() => return Ok(Poll::NotYet(error.to_string())),
            Err(error) => return Err(error),
        };
        for pod in &found {
            let name = pod.metadata.name.clone().unwrap_or_default();
            if text(pod, "/status/phase") == Some("Failed") && read.contains(&name) && !failed.contains(&name) {
                failed.push(name);
                if failed.len() >= PODS {
                    let said = log.last_error.clone().unwrap_or_else(|| "its log names no error".to_owned());
                    return Ok(Poll::Ready(format!("{} pods of the recovery Job failed: {said}", failed.len())));
                }
            }
        }
        let Some(pod) = found.iter().find(|pod| has_started(pod) && !read.iter().any(|name| pod.metadata.name.as_ref() == Some(name)))
        else {
            return Ok(Poll::NotYet("the recovery Job's pod has not started".to_owned()));
        };
        let name = pod.metadata.name.clone().unwrap_or_default();
        let parameters = LogParams { container: Some(CONTAINER.to_owned()), follow: true, timestamps: true, ..LogParams::default() };
        let Ok(stream) = pods.log_stream(&name, &parameters).await else {
            return Ok(Poll::NotYet(format!("the log of {name} cannot be read yet")));
        };
        read.push(name.clone());
        let mut stream = pin!(stream);
        let mut lines = stream.as_mut().lines();
        // A stream that breaks off is no word about the recovery: the Cluster's own status goes on being watched.
        while let Ok(Some(line)) = lines.try_next().await {
            if let Some((at, line)) = stamped(&line) {
                log.take(at, line);
            }
            if let Some(fatal) = &log.fatal {
                return Ok(Poll::Ready(fatal.clone()));
            }
        }
        Ok(Poll::NotYet(format!("the log of {name} ended")))
    };
    let name = format!("the recovery of {namespace}/{cluster} ends");
    Wait::new(name, limit).every(Duration::from_millis(250)).until(look).await.map_err(waited)
}

/// Whether the container with PostgreSQL's log has begun, or ended.
fn has_started(pod: &DynamicObject) -> bool {
    let statuses = pod.data.pointer("/status/containerStatuses").and_then(serde_json::Value::as_array);
    let of_recovery = statuses.into_iter().flatten().find(|status| status["name"] == CONTAINER);
    of_recovery.is_some_and(|status| status.pointer("/state/running").is_some() || status.pointer("/state/terminated").is_some())
        || condition(pod, "Ready").is_some_and(|ready| ready.status == "True")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn parts_follow_one_another_and_missing_ones_are_left_out() {
        let at = |ms: i64| Timestamp::from_millisecond(1_763_700_000_000 + ms).unwrap();
        let log = RecoveryLog { began: Some(at(1000)), started: Some(at(4000)), ..RecoveryLog::default() };
        let parts = parts(at(0), &log, "ready", at(9000));
        assert_eq!(parts, [("pod started".to_owned(), 1000), ("backup restored".to_owned(), 3000), ("ready".to_owned(), 5000)]);
    }

    #[test]
    fn a_pod_is_read_once_its_container_runs_or_has_run() {
        let pod = |state: serde_json::Value| -> DynamicObject {
            serde_json::from_value(json!({ "apiVersion": "v1", "kind": "Pod", "metadata": {},
                "status": { "containerStatuses": [{ "name": "full-recovery", "state": state }] } }))
            .unwrap()
        };
        assert!(has_started(&pod(json!({ "running": {} }))) && has_started(&pod(json!({ "terminated": {} }))));
        assert!(!has_started(&pod(json!({ "waiting": { "reason": "PodInitializing" } }))));
    }
}
