//! The sample application in the cluster, observed through a forwarded port and its pods' logs.
//!
//! It returns what it saw and judges nothing.

use super::client::{KubeClient, kinds};
use super::error::api;
use super::{Forward, KindError, Target};
use crate::platform::local::application::{Traffic, place};
use crate::platform::observation::{self, Observation, is_error_line};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, LogParams};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// The labels of the application's pods.
const LABELS: &str = "app.kubernetes.io/name=orders";
/// The name of its Deployment.
const DEPLOYMENT: &str = "orders";
/// No more than this is read of a log in one look.
const LONGEST_LOOK: i64 = 4 * 1024 * 1024;

/// The application of one namespace.
#[derive(Debug)]
pub struct Application {
    client: KubeClient,
    /// For orders: one connection, to one pod as long as that lives.
    http: reqwest::Client,
    /// For looking: a connection each time, to the pod that is the right one then.
    look: reqwest::Client,
    forward: Forward,
    namespace: String,
    /// Up to which moment each pod's log was read.
    read: Mutex<HashMap<String, Timestamp>>,
}

impl Application {
    /// Opens a port to the application; it need not run yet.
    ///
    /// # Errors
    /// When no port can be opened.
    pub async fn open(client: &KubeClient, namespace: &str) -> Result<Self, KindError> {
        let forward = Forward::open(client, Target::application(namespace)).await?;
        let made = |reuse| {
            observation::http_client(reuse)
                .map_err(|error| KindError::State { object: "the HTTP client".to_owned(), problem: error.to_string() })
        };
        let (http, look) = (made(true)?, made(false)?);
        Ok(Self { client: client.clone(), http, look, forward, namespace: namespace.to_owned(), read: Mutex::default() })
    }

    /// Where it can be reached from this machine: `127.0.0.1:port`.
    #[must_use]
    pub fn address(&self) -> String {
        self.forward.address()
    }

    /// Waits until its Deployment is available.
    ///
    /// # Errors
    /// When it is not in time.
    pub async fn available(&self, limit: Duration) -> Result<(), KindError> {
        let deployment = kinds::DEPLOYMENT.named(&self.namespace, DEPLOYMENT);
        self.client.until_condition(&deployment, "Available", limit).await.map(|_| ())
    }

    /// Looks at health, metrics and the log's new error lines, once.
    pub async fn observe(&self) -> Observation {
        let mut seen = observation::look(&self.look, &self.address()).await;
        if seen.status.is_none()
            && let Some(why) = self.forward.last_failure()
        {
            seen.detail = format!("{} ({why})", seen.detail);
        }
        match self.new_lines().await {
            Ok(lines) => seen.log_errors = lines.into_iter().filter(|line| is_error_line(line)).collect(),
            // A log that cannot be read is no proof that there was no error in it.
            Err(error) => seen.log_errors = vec![format!("the log cannot be read: {error}")],
        }
        seen
    }

    /// The log lines of all its pods that came since the last look, in the order of their times.
    ///
    /// # Errors
    /// When the API does not answer.
    pub async fn new_lines(&self) -> Result<Vec<String>, KindError> {
        let pods = self.client.list(kinds::POD, Some(&self.namespace), LABELS).await?;
        let logs: Api<Pod> = Api::namespaced(self.client.client(), &self.namespace);
        let mut lines = Vec::new();
        for name in pods.into_iter().filter_map(|pod| pod.metadata.name) {
            let last = self.read.lock().unwrap_or_else(PoisonError::into_inner).get(&name).copied();
            let parameters = LogParams { timestamps: true, since_time: last, limit_bytes: Some(LONGEST_LOOK), ..LogParams::default() };
            let log = match logs.logs(&name, &parameters).await {
                Ok(log) => log,
                // A pod that is just starting, or that ended since it was listed, has no log to read.
                Err(kube::Error::Api(status)) if matches!(status.code, 400 | 404) => continue,
                Err(error) => return Err(api("read the log of", format!("Pod {}/{name}", self.namespace))(error)),
            };
            // `since_time` counts whole seconds, so lines of the same second come again.
            let new = log.lines().filter_map(stamped).filter(|(at, _)| last.is_none_or(|last| *at > last));
            lines.extend(new.map(|(at, line)| (at, name.clone(), line.to_owned())));
        }
        lines.sort_by_key(|(at, _, _)| *at);
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        for (at, name, _) in &lines {
            read.insert(name.clone(), *at);
        }
        Ok(lines.into_iter().map(|(_, _, line)| line).collect())
    }

    /// Places an order for a catalogue entry and returns its id once the application says that it is committed.
    ///
    /// # Errors
    /// What the application said, or that it did not answer.
    pub async fn place_order(&self, product: i64) -> Result<i64, String> {
        place(&self.http, &self.address(), product).await
    }

    /// Begins to place orders in the background.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        Traffic::at(self.http.clone(), self.address())
    }
}

/// A line of a log with its time in front.
pub(super) fn stamped(line: &str) -> Option<(Timestamp, &str)> {
    let (time, rest) = line.split_once(' ')?;
    Some((time.parse().ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_told_from_its_time() {
        let (time, line) = stamped("2026-11-21T03:04:05.6Z {\"level\":\"ERROR\"}").unwrap();
        assert!(time.to_string().starts_with("2026-11-21T03:04:05.6") && is_error_line(line));
        assert!(stamped("no time at all").is_none());
    }
}
