//! A command in a pod, for what no API tells.

use super::KindError;
use super::client::KubeClient;
use super::error::api;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, AttachParams};
use std::time::Duration;
use tokio::io::AsyncReadExt;

/// Runs a command in a container of a pod and returns its standard output.
///
/// # Errors
/// When the pod is not there, the command fails (with what it said), or it does not end in time.
pub async fn exec(
    client: &KubeClient,
    namespace: &str,
    pod: &str,
    container: &str,
    command: &[&str],
    limit: Duration,
) -> Result<String, KindError> {
    let program = command.first().copied().unwrap_or_default().to_owned();
    let name = format!("{namespace}/{pod}");
    let failed = |said: String| KindError::Exec { pod: name.clone(), command: program.clone(), said };
    let run = async {
        let pods: Api<Pod> = Api::namespaced(client.client(), namespace);
        let parameters = AttachParams::default().container(container).stdin(false).stdout(true).stderr(true);
        let mut attached = pods.exec(pod, command.to_vec(), &parameters).await.map_err(api("run a command in", &name))?;
        let (mut output, mut errors) = (Vec::new(), Vec::new());
        let (stdout, stderr, status) = (attached.stdout(), attached.stderr(), attached.take_status());
        let read_output = async { if let Some(mut stdout) = stdout { stdout.read_to_end(&mut output).await.map(|_| ()) } else { Ok(()) } };
        let read_errors = async { if let Some(mut stderr) = stderr { stderr.read_to_end(&mut errors).await.map(|_| ()) } else { Ok(()) } };
        futures::try_join!(read_output, read_errors).map_err(|error| failed(error.to_string()))?;
        let status = match status {
            Some(status) => status.await,
            None => None,
        };
        let output = String::from_utf8_lossy(&output).into_owned();
        let errors = String::from_utf8_lossy(&errors).trim().to_owned();
        match status {
            Some(status) if status.status.as_deref() == Some("Failure") => {
                Err(failed(format!("{}: {errors}", status.message.unwrap_or_default())))
            }
            _ => Ok(output),
        }
    };
    match tokio::time::timeout(limit, run).await {
        Ok(done) => done,
        Err(_) => Err(KindError::TimedOut { name: format!("{program} ends in pod {name}"), limit, last: "it runs".to_owned() }),
    }
}
