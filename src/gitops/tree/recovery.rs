//! A restore as files: the Cluster that is bootstrapped from another one's backups, up to a recovery target.

use super::{PRODUCTION, TreeError, cluster_name, production_kustomization, push};
use crate::gitops::FileChange;
use crate::gitops::yaml::{self, YamlError};
use serde_json::{Map, Value, json};
use turnback_core::recovery::{RecoveryTarget, Target, pg_time};

const PLUGIN: &str = "barman-cloud.cloudnative-pg.io";

/// A restore to be declared.
#[derive(Clone, Debug)]
pub struct RecoveryDeclaration<'a> {
    /// The new Cluster: recovery only ever bootstraps one.
    pub name: &'a str,
    /// Where replay stops.
    pub target: &'a RecoveryTarget,
    /// The base backup to start from. CNPG chooses one by itself for a time or an LSN; the other targets need it.
    pub backup: Option<&'a str>,
}

/// Declares a Cluster restored from `source` (the content of its manifest) beside it, and lists it in production's kustomization.
///
/// The new Cluster is a copy of its source in size, parameters, database and owner. It reads the source's archive under the source's server
/// name and writes its own under its own name, because PostgreSQL refuses to archive over another server's WAL.
///
/// # Errors
/// When a manifest cannot be read, the name is none or the source's own, or the target needs a base backup and none is named.
pub fn declare_recovery(declared: &RecoveryDeclaration<'_>, source: &[u8], kustomization: &[u8]) -> Result<Vec<FileChange>, TreeError> {
    let RecoveryDeclaration { name, .. } = declared;
    cluster_name(name)?;
    let file = format!("{PRODUCTION}/cluster.yaml");
    let mut manifest: Value = yaml::read(&file, source)?;
    let from = text(&file, &manifest, "/metadata/name")?;
    if from == *name {
        let rule = "a restore makes a new Cluster beside its source; choose another name";
        return Err(TreeError::Name { name: (*name).to_owned(), what: "a restored Cluster", rule });
    }
    let plugin =
        manifest.pointer("/spec/plugins").and_then(Value::as_array).and_then(|all| all.iter().find(|p| p["name"] == PLUGIN)).cloned();
    let Some(plugin) = plugin else {
        let problem = "names no barman-cloud plugin: the source has no archive to restore from";
        return Err(YamlError::Field { file, field: "spec.plugins".into(), problem }.into());
    };
    let store = text(&file, &plugin, "/parameters/barmanObjectName")?;
    let server = plugin.pointer("/parameters/serverName").and_then(Value::as_str).unwrap_or(&from).to_owned();

    let mut recovery = Map::new();
    recovery.insert("source".into(), json!(from));
    let bootstrap =
        manifest.pointer("/spec/bootstrap/initdb").or_else(|| manifest.pointer("/spec/bootstrap/recovery")).cloned().unwrap_or_default();
    for field in ["database", "owner", "secret"] {
        if let Some(value) = bootstrap.get(field) {
            recovery.insert(field.into(), value.clone());
        }
    }
    recovery.insert("recoveryTarget".into(), recovery_target(declared)?);

    manifest["metadata"]["name"] = json!(name);
    manifest["spec"]["bootstrap"] = json!({ "recovery": recovery });
    let parameters = |server: &str| json!({ "barmanObjectName": store, "serverName": server });
    manifest["spec"]["plugins"] = json!([{ "name": PLUGIN, "isWALArchiver": true, "parameters": parameters(name) }]);
    manifest["spec"]["externalClusters"] = json!([{ "name": from, "plugin": { "name": PLUGIN, "parameters": parameters(&server) } }]);

    let listing = production_kustomization();
    let mut list: Value = yaml::read(&listing, kustomization)?;
    let path = format!("cluster-{name}.yaml");
    push(&listing, &mut list, "resources", json!(path))?;
    Ok(vec![
        FileChange::write(format!("{PRODUCTION}/{path}"), yaml::write(&path, b"", &manifest)?),
        FileChange::write(listing.clone(), yaml::write(&listing, kustomization, &list)?),
    ])
}

fn recovery_target(declared: &RecoveryDeclaration<'_>) -> Result<Value, TreeError> {
    let mut fields = Map::new();
    let chooses_backup = match &declared.target.target {
        Target::Time(time) => {
            fields.insert("targetTime".into(), json!(pg_time(*time)));
            true
        }
        Target::Lsn(lsn) => {
            fields.insert("targetLSN".into(), json!(lsn.to_string()));
            true
        }
        Target::Xid(xid) => {
            // PostgreSQL compares the 32 bits that stand in the commit record.
            fields.insert("targetXID".into(), json!((xid & 0xffff_ffff).to_string()));
            false
        }
        Target::Name(name) => {
            fields.insert("targetName".into(), json!(name));
            false
        }
        Target::Immediate => {
            fields.insert("targetImmediate".into(), json!(true));
            false
        }
    };
    if !declared.target.inclusive && matches!(declared.target.target, Target::Time(_) | Target::Lsn(_) | Target::Xid(_)) {
        fields.insert("exclusive".into(), json!(true));
    }
    match declared.backup {
        Some(backup) => {
            fields.insert("backupID".into(), json!(backup));
        }
        None if !chooses_backup => {
            let rule = "a transaction, a restore point and `immediate` need the id of the base backup to start from";
            return Err(TreeError::Name { name: String::new(), what: "the base backup of this target", rule });
        }
        None => (),
    }
    Ok(Value::Object(fields))
}

fn text(file: &str, value: &Value, pointer: &str) -> Result<String, TreeError> {
    let wrong = YamlError::Field {
        file: file.to_owned(),
        field: pointer.trim_start_matches('/').replace('/', "."),
        problem: "is missing or not text",
    };
    Ok(value.pointer(pointer).and_then(Value::as_str).ok_or(wrong)?.to_owned())
}
