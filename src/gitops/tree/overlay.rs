//! What a drill's platform needs to be otherwise than in the shipped tree, as patches in the Kustomization that applies the databases: the tree
//! itself stays what a team would adopt, and a Cluster restored later is patched like the one it comes from.

use super::TreeError;
use crate::gitops::FileChange;
use crate::gitops::yaml::{self, YamlError};
use serde_json::{Value, json};

/// The Kustomization that applies the databases.
pub const DATABASES: &str = "clusters/kind/databases.yaml";

/// What is otherwise on a drill's platform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlatformOverlay {
    /// The image of PostgreSQL.
    pub image: String,
    /// How many instances each Cluster has.
    pub instances: u32,
    /// The size of each volume.
    pub storage: String,
    /// Where the S3 server is.
    pub object_store: String,
}

/// Patches every Cluster and ObjectStore by kind, and lets the superuser log in with a password, because a drill has to write restore points.
/// Applied twice it is the same.
///
/// # Errors
/// When the file is no Kustomization.
pub fn platform_overlay(databases: &[u8], overlay: &PlatformOverlay) -> Result<FileChange, TreeError> {
    let mut manifest: Value = yaml::read(DATABASES, databases)?;
    let cluster = json!([
        { "op": "add", "path": "/spec/imageName", "value": overlay.image },
        { "op": "add", "path": "/spec/instances", "value": overlay.instances },
        { "op": "add", "path": "/spec/storage/size", "value": overlay.storage },
        { "op": "add", "path": "/spec/enableSuperuserAccess", "value": true },
    ]);
    let store = json!([{ "op": "add", "path": "/spec/configuration/endpointURL", "value": overlay.object_store }]);
    let patch = |group: &str, kind: &str, patch: &Value| json!({ "target": { "group": group, "kind": kind }, "patch": patch.to_string() });
    let Some(spec) = manifest.get_mut("spec").and_then(Value::as_object_mut) else {
        return Err(YamlError::Field { file: DATABASES.to_owned(), field: "spec".to_owned(), problem: "is missing" }.into());
    };
    spec.insert(
        "patches".to_owned(),
        json!([patch("postgresql.cnpg.io", "Cluster", &cluster), patch("barmancloud.cnpg.io", "ObjectStore", &store)]),
    );
    Ok(FileChange::write(DATABASES, yaml::write(DATABASES, databases, &manifest)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gitops::TREE;

    #[test]
    fn the_shipped_tree_is_patched_by_kind_and_a_second_time_changes_nothing() {
        let overlay = PlatformOverlay {
            image: "turnback.invalid/postgresql:15".to_owned(),
            instances: 1,
            storage: "1Gi".to_owned(),
            object_store: "http://object-store:7070".to_owned(),
        };
        let shipped = TREE.get_file(DATABASES).unwrap().contents();
        let FileChange::Write { content, .. } = platform_overlay(shipped, &overlay).unwrap() else { panic!("a file is written") };
        let read: Value = yaml::read(DATABASES, &content).unwrap();
        let before: Value = yaml::read(DATABASES, shipped).unwrap();
        assert_eq!(read["spec"]["healthCheckExprs"], before["spec"]["healthCheckExprs"]);
        let patches = read["spec"]["patches"].as_array().unwrap();
        assert_eq!((patches[0]["target"]["kind"].as_str(), patches[0]["target"].get("name")), (Some("Cluster"), None));
        let operations: Value = serde_json::from_str(patches[0]["patch"].as_str().unwrap()).unwrap();
        assert_eq!(operations[0]["value"], "turnback.invalid/postgresql:15");
        let FileChange::Write { content: again, .. } = platform_overlay(&content, &overlay).unwrap() else { panic!("a file is written") };
        assert_eq!(String::from_utf8(again).unwrap(), String::from_utf8(content).unwrap());
    }
}
