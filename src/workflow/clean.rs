//! Removing what interrupted drills left: their directories and processes here, and the clusters that those directories name.

use super::outcome::chain;
use super::platform::CLUSTER_FILE;
use crate::platform::kind::{KindCluster, Kit};
use crate::platform::local::{self, CleanReport, WorkDirError};
use std::path::Path;

/// Removes what interrupted drills left below `root`, and nothing else.
///
/// # Errors
/// [`WorkDirError::Busy`] where a drill still runs there, [`WorkDirError`] where the root cannot be used at all.
pub async fn clean(root: &Path) -> Result<CleanReport, WorkDirError> {
    local::clean(root, cluster).await
}

/// Deletes the kind cluster that a run's directory names, where there is one.
async fn cluster(dir: &Path, run: &str) -> Result<Option<String>, String> {
    let name = match std::fs::read_to_string(dir.join(CLUSTER_FILE)) {
        Ok(name) => name,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("the name of its cluster cannot be read: {error}")),
    };
    let kit = Kit::find().map_err(|error| chain(&error))?;
    let cluster = KindCluster::of_run(&kit, name.trim(), run, &dir.join("kubeconfig")).map_err(|error| chain(&error))?;
    cluster.delete().await.map_err(|error| chain(&error))?;
    Ok(Some(format!("the kind cluster {} (run {run})", cluster.name())))
}
