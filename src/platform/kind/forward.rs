//! A port of this machine that leads to a port of a pod: whichever pod is the right one when a connection comes in.
//!
//! It listens on 127.0.0.1 alone and knows nothing about what is spoken through it.

use super::client::{KubeClient, kinds};
use super::error::said;
use super::{KindError, condition};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DynamicObject, ListParams};
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// Pods by their labels, and a port of theirs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    namespace: String,
    labels: String,
    port: u16,
}

impl Target {
    /// The ready pod with these labels (`a=b,c=d`).
    pub fn new(namespace: impl Into<String>, labels: impl Into<String>, port: u16) -> Self {
        Self { namespace: namespace.into(), labels: labels.into(), port }
    }

    /// PostgreSQL on the primary of a CNPG Cluster.
    #[must_use]
    pub fn primary(namespace: &str, cluster: &str) -> Self {
        Self::new(namespace, format!("cnpg.io/cluster={cluster},cnpg.io/instanceRole=primary"), 5432)
    }

    /// The sample application.
    #[must_use]
    pub fn application(namespace: &str) -> Self {
        Self::new(namespace, "app.kubernetes.io/name=orders", 8080)
    }

    /// The kit's Git server.
    #[must_use]
    pub fn git_server() -> Self {
        Self::new("git-server", "app=git-server", 8080)
    }

    /// The kit's S3 server.
    #[must_use]
    pub fn object_store() -> Self {
        Self::new("object-store", "app=object-store", 7070)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "port {} of the pod {} in {}", self.port, self.labels, self.namespace)
    }
}

/// A port of this machine; dropping it closes the port and every connection through it.
#[derive(Debug)]
pub struct Forward {
    address: SocketAddr,
    target: Target,
    failure: Arc<Mutex<Option<String>>>,
    task: JoinHandle<()>,
}

impl Drop for Forward {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Forward {
    /// Opens a port of this machine. Whether a pod is there shows when a connection is made.
    ///
    /// # Errors
    /// When no port can be opened.
    pub async fn open(client: &KubeClient, target: Target) -> Result<Self, KindError> {
        let failed = |source| KindError::Local { operation: "listen on", path: PathBuf::from("127.0.0.1"), source };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let failure = Arc::new(Mutex::new(None));
        let task = tokio::spawn(serve(listener, client.clone(), target.clone(), Arc::clone(&failure)));
        Ok(Self { address, target, failure, task })
    }

    /// `127.0.0.1:port`.
    #[must_use]
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Where it leads.
    #[must_use]
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Why the last connection that failed did: a client sees no more than that it was closed.
    #[must_use]
    pub fn last_failure(&self) -> Option<String> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn serve(listener: TcpListener, client: KubeClient, target: Target, failure: Arc<Mutex<Option<String>>>) {
    // Dropped with this task, and every connection with it.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                let (client, target, failure) = (client.clone(), target.clone(), Arc::clone(&failure));
                connections.spawn(async move {
                    if let Err(error) = bridge(stream, &client, &target).await {
                        *failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                    }
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn bridge(mut stream: TcpStream, client: &KubeClient, target: &Target) -> Result<(), String> {
    let pods = client
        .api(kinds::POD, Some(&target.namespace))
        .list(&ListParams::default().labels(&target.labels))
        .await
        .map_err(|error| format!("the API: {}", said(&error)))?;
    let Some(pod) = pods.iter().filter(|pod| is_ready(pod)).max_by_key(|pod| pod.metadata.creation_timestamp.clone()) else {
        return Err(format!("no pod of {} with {} is ready", target.namespace, target.labels));
    };
    let name = pod.metadata.name.clone().unwrap_or_default();
    let api: Api<Pod> = Api::namespaced(client.client(), &target.namespace);
    let mut forwarder = api.portforward(&name, &[target.port]).await.map_err(|error| format!("pod {name}: {}", said(&error)))?;
    let refused = forwarder.take_error(target.port);
    let Some(mut upstream) = forwarder.take_stream(target.port) else {
        return Err(format!("pod {name}: port {} cannot be forwarded", target.port));
    };
    let _ = stream.set_nodelay(true);
    // Either side closing ends it; what matters is only why the pod's side could not be reached.
    let copied = tokio::io::copy_bidirectional(&mut stream, &mut upstream).await;
    drop(upstream);
    forwarder.abort();
    let said = match refused {
        Some(refused) => refused.await,
        None => None,
    };
    match (said, copied) {
        (Some(said), _) => Err(format!("pod {name}: {said}")),
        (None, Err(error)) => Err(format!("pod {name}: {error}")),
        (None, Ok(_)) => Ok(()),
    }
}

/// Whether a pod is ready and stays.
fn is_ready(pod: &DynamicObject) -> bool {
    pod.metadata.deletion_timestamp.is_none() && condition(pod, "Ready").is_some_and(|ready| ready.status == "True")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_a_ready_pod_that_stays_is_led_to() {
        let pod = |status: &str, deleted: bool| -> DynamicObject {
            let mut value = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "p" },
                "status": { "conditions": [{ "type": "Ready", "status": status }] } });
            if deleted {
                value["metadata"]["deletionTimestamp"] = json!("2026-11-21T03:00:00Z");
            }
            serde_json::from_value(value).unwrap()
        };
        assert!(is_ready(&pod("True", false)));
        assert!(!is_ready(&pod("False", false)) && !is_ready(&pod("True", true)));
    }

    #[test]
    fn a_target_says_where_it_leads() {
        let text = Target::primary("orders", "orders-production").to_string();
        assert!(text.contains("5432") && text.contains("orders-production") && text.contains("primary"), "{text}");
    }
}
