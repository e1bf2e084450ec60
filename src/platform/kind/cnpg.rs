//! CloudNativePG: what a Cluster reports, backups taken and found, and how its database is reached.
//!
//! It reads and asks; it never decides whether what it saw is enough.

use super::client::{Condition, KubeClient, condition, kinds, text};
use super::install::exists;
use super::{Forward, KindError, Target};
use crate::database::Address;
use crate::wait::Poll;
use jiff::Timestamp;
use kube::api::DynamicObject;
use serde::Serialize;
use serde_json::{Value, json};
use std::time::Duration;
use turnback_core::recovery::BaseBackup;

/// The plugin that archives and backs up.
pub const PLUGIN: &str = "barman-cloud.cloudnative-pg.io";
/// How long CNPG may take to make the superuser's secret.
const SECRET_LIMIT: Duration = Duration::from_secs(60);

/// What a Cluster says about itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ClusterStatus {
    /// CNPG's words, such as `Cluster in healthy state`.
    pub phase: String,
    /// More words.
    pub phase_reason: String,
    /// `Ready`.
    pub ready: Option<Condition>,
    /// `ContinuousArchiving`.
    pub archiving: Option<Condition>,
    /// The pod of the primary.
    pub current_primary: Option<String>,
    /// The primary's timeline.
    pub timeline: Option<u32>,
    /// The system identifier.
    pub system_identifier: Option<String>,
    /// PostgreSQL's image.
    pub image: Option<String>,
}

impl ClusterStatus {
    /// Reads a Cluster.
    #[must_use]
    pub fn read(cluster: &DynamicObject) -> Self {
        let of = |pointer: &str| text(cluster, pointer).map(str::to_owned);
        Self {
            phase: of("/status/phase").unwrap_or_default(),
            phase_reason: of("/status/phaseReason").unwrap_or_default(),
            ready: condition(cluster, "Ready"),
            archiving: condition(cluster, "ContinuousArchiving"),
            current_primary: of("/status/currentPrimary"),
            timeline: cluster.data.pointer("/status/timelineID").and_then(Value::as_u64).and_then(|id| u32::try_from(id).ok()),
            system_identifier: of("/status/systemID").or_else(|| of("/status/systemId")),
            image: of("/status/image"),
        }
    }

    /// Whether it is ready and has a primary.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.ready.as_ref().is_some_and(|ready| ready.status == "True") && self.current_primary.is_some()
    }
}

/// A Backup as CNPG reports it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BackupStatus {
    /// The name of the Backup object.
    pub name: String,
    /// `completed`, `failed`, …
    pub phase: String,
    /// What went wrong.
    pub error: Option<String>,
    /// The pod that it was taken on.
    pub instance: Option<String>,
    /// What it means for recovery; `None` until it is complete.
    pub backup: Option<BaseBackup>,
}

impl BackupStatus {
    /// Reads a Backup. Its times count whole seconds, and its size is not reported: 0.
    #[must_use]
    pub fn read(object: &DynamicObject, system_identifier: &str) -> Self {
        let of = |pointer: &str| text(object, pointer).map(str::to_owned);
        Self {
            name: object.metadata.name.clone().unwrap_or_default(),
            phase: of("/status/phase").unwrap_or_else(|| "not yet begun".to_owned()),
            error: of("/status/error"),
            instance: of("/status/instanceID/podName"),
            backup: base_backup(object, system_identifier),
        }
    }
}

fn base_backup(object: &DynamicObject, system_identifier: &str) -> Option<BaseBackup> {
    let of = |pointer: &str| text(object, pointer);
    let time = |pointer: &str| of(pointer)?.parse::<Timestamp>().ok();
    if of("/status/phase") != Some("completed") {
        return None;
    }
    Some(BaseBackup {
        id: of("/status/backupId")?.to_owned(),
        begin_lsn: of("/status/beginLSN")?.parse().ok()?,
        end_lsn: of("/status/endLSN")?.parse().ok()?,
        begin_time: time("/status/startedAt")?,
        end_time: time("/status/stoppedAt")?,
        // A WAL file's name begins with its timeline.
        timeline: u32::from_str_radix(of("/status/beginWal")?.get(..8)?, 16).ok()?,
        system_identifier: system_identifier.to_owned(),
        bytes: 0,
    })
}

/// What a Cluster says about itself; `None` where there is none of this name.
///
/// # Errors
/// When the API does not answer.
pub async fn status(client: &KubeClient, namespace: &str, cluster: &str) -> Result<Option<ClusterStatus>, KindError> {
    Ok(client.get(&kinds::CLUSTER.named(namespace, cluster)).await?.map(|found| ClusterStatus::read(&found)))
}

/// Waits until a Cluster is ready.
///
/// # Errors
/// When it is not in time; the last status is CNPG's phase.
pub async fn ready(client: &KubeClient, namespace: &str, cluster: &str, limit: Duration) -> Result<ClusterStatus, KindError> {
    let object = kinds::CLUSTER.named(namespace, cluster);
    let look = |seen: Option<&DynamicObject>| {
        let Some(seen) = seen else { return Ok(Poll::NotYet("it is not there yet".to_owned())) };
        let status = ClusterStatus::read(seen);
        Ok(if status.is_ready() { Poll::Ready(status) } else { Poll::NotYet(format!("{} {}", status.phase, status.phase_reason)) })
    };
    client.until(&object, format!("{object} is ready"), limit, look).await
}

/// Waits until a Cluster says that WAL is being archived.
///
/// # Errors
/// When it does not in time; the last status is the condition with what the archiver said.
pub async fn archiving(client: &KubeClient, namespace: &str, cluster: &str, limit: Duration) -> Result<Condition, KindError> {
    let found = client.until_condition(&kinds::CLUSTER.named(namespace, cluster), "ContinuousArchiving", limit).await?;
    condition(&found, "ContinuousArchiving").ok_or_else(|| KindError::State {
        object: format!("Cluster {namespace}/{cluster}"),
        problem: "its condition ContinuousArchiving went away while it was read".to_owned(),
    })
}

/// Takes a base backup with the plugin and watches it to its end. A backup that fails is a status, not an error.
///
/// # Errors
/// When CNPG refuses the Backup, or it does not end in time.
pub async fn backup(client: &KubeClient, namespace: &str, cluster: &str, name: &str, limit: Duration) -> Result<BackupStatus, KindError> {
    let object = kinds::BACKUP.named(namespace, name);
    let manifest = json!({ "apiVersion": "postgresql.cnpg.io/v1", "kind": "Backup", "metadata": { "name": name, "namespace": namespace },
        "spec": { "cluster": { "name": cluster }, "method": "plugin", "pluginConfiguration": { "name": PLUGIN } } });
    client.create(&object, manifest, false).await?;
    backup_ended(client, namespace, cluster, name, limit).await
}

/// Watches a Backup that was asked for to its end.
///
/// # Errors
/// When it does not end in time.
pub async fn backup_ended(
    client: &KubeClient,
    namespace: &str,
    cluster: &str,
    name: &str,
    limit: Duration,
) -> Result<BackupStatus, KindError> {
    let object = kinds::BACKUP.named(namespace, name);
    let system = system_identifier(client, namespace, cluster).await?;
    let look = |seen: Option<&DynamicObject>| {
        let Some(seen) = seen else { return Ok(Poll::NotYet("it is not there".to_owned())) };
        let status = BackupStatus::read(seen, &system);
        Ok(match status.phase.as_str() {
            "completed" | "failed" => Poll::Ready(status),
            phase => Poll::NotYet(format!("{phase} {}", status.error.unwrap_or_default())),
        })
    };
    client.until(&object, format!("{object} ends"), limit, look).await
}

/// The last complete Backup that a ScheduledBackup made; `None` where it has made none.
///
/// # Errors
/// When the API does not answer.
pub async fn last_scheduled(
    client: &KubeClient,
    namespace: &str,
    cluster: &str,
    schedule: &str,
) -> Result<Option<BackupStatus>, KindError> {
    let system = system_identifier(client, namespace, cluster).await?;
    let found = client.list(kinds::BACKUP, Some(namespace), &format!("cnpg.io/scheduled-backup={schedule}")).await?;
    let complete = found.iter().map(|backup| BackupStatus::read(backup, &system)).filter(|status| status.backup.is_some());
    Ok(complete.max_by_key(|status| status.backup.as_ref().map(|backup| backup.end_lsn)))
}

/// Waits until a ScheduledBackup has made its first complete Backup. One that failed is waited over: the schedule makes another.
///
/// # Errors
/// When it has none in time.
pub async fn first_scheduled(
    client: &KubeClient,
    namespace: &str,
    cluster: &str,
    schedule: &str,
    limit: Duration,
) -> Result<BackupStatus, KindError> {
    let name = format!("ScheduledBackup {namespace}/{schedule} has made a backup");
    let look = async || {
        Ok(match last_scheduled(client, namespace, cluster, schedule).await {
            Ok(Some(status)) => Poll::Ready(status),
            Ok(None) => Poll::NotYet("no complete backup yet".to_owned()),
            Err(error) if error.is_passing() => Poll::NotYet(error.to_string()),
            Err(error) => return Err(error),
        })
    };
    crate::wait::Wait::new(name, limit).every(Duration::from_millis(250)).until(look).await.map_err(super::error::waited)
}

async fn system_identifier(client: &KubeClient, namespace: &str, cluster: &str) -> Result<String, KindError> {
    Ok(status(client, namespace, cluster).await?.and_then(|status| status.system_identifier).unwrap_or_default())
}

/// The database of a Cluster's primary, as the superuser, through a forwarded port. The address holds as long as the port is open.
///
/// # Errors
/// When the Cluster has no superuser that may log in (`enableSuperuserAccess`), or no port can be opened.
pub async fn superuser(client: &KubeClient, namespace: &str, cluster: &str, database: &str) -> Result<(Address, Forward), KindError> {
    let secret = kinds::SECRET.named(namespace, format!("{cluster}-superuser"));
    address(client, namespace, cluster, &secret, database).await
}

async fn address(
    client: &KubeClient,
    namespace: &str,
    cluster: &str,
    secret: &super::Object,
    database: &str,
) -> Result<(Address, Forward), KindError> {
    let found = exists(client, secret, SECRET_LIMIT).await?;
    let (user, password) = credentials(&found)
        .ok_or_else(|| KindError::State { object: secret.to_string(), problem: "it holds no username and password".to_owned() })?;
    let forward = Forward::open(client, Target::primary(namespace, cluster)).await?;
    // The API's own TLS is around it as far as the pod.
    let url = format!("postgresql://{user}:{password}@127.0.0.1:{}/postgres?sslmode=disable", forward.port());
    let address = Address::parse(&url).map_err(|error| KindError::State { object: secret.to_string(), problem: error.to_string() })?;
    Ok((address.with_database(database), forward))
}

/// User name and password, percent-encoded for a URL.
fn credentials(secret: &DynamicObject) -> Option<(String, String)> {
    let typed: k8s_openapi::api::core::v1::Secret = secret.clone().try_parse().ok()?;
    let data = typed.data?;
    let of = |key: &str| Some(String::from_utf8(data.get(key)?.0.clone()).ok()?.trim_end().bytes().fold(String::new(), encoded));
    Some((of("username")?, of("password")?))
}

fn encoded(mut out: String, byte: u8) -> String {
    if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
        out.push(char::from(byte));
    } else {
        out += &format!("%{byte:02X}");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(value: Value) -> DynamicObject {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_complete_backup_becomes_what_a_restore_is_planned_with() {
        let mut value = json!({ "apiVersion": "postgresql.cnpg.io/v1", "kind": "Backup", "metadata": { "name": "b" }, "status": {
            "phase": "completed", "backupId": "20261121T030405", "beginLSN": "0/4000028", "endLSN": "0/4000158",
            "beginWal": "000000020000000000000004", "startedAt": "2026-11-21T03:04:05Z", "stoppedAt": "2026-11-21T03:04:07Z" } });
        let backup = BackupStatus::read(&object(value.clone()), "7").backup.unwrap();
        assert_eq!((backup.id.as_str(), backup.timeline, backup.end_lsn.to_string().as_str()), ("20261121T030405", 2, "0/4000158"));
        value["status"]["phase"] = json!("failed");
        value["status"]["error"] = json!("no bucket");
        let failed = BackupStatus::read(&object(value), "7");
        assert!(failed.backup.is_none() && failed.error.as_deref() == Some("no bucket"));
    }

    #[test]
    fn a_password_of_any_characters_stands_in_a_url() {
        let secret = object(json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "s" },
            "data": { "username": "cG9zdGdyZXM=", "password": "YUAvOiU=" } }));
        assert_eq!(credentials(&secret), Some(("postgres".into(), "a%40%2F%3A%25".into())));
    }

    #[test]
    fn ready_takes_a_primary() {
        let cluster = |primary: Option<&str>| {
            let status = json!({ "currentPrimary": primary, "conditions": [{ "type": "Ready", "status": "True" }], "timelineID": 2 });
            ClusterStatus::read(&object(
                json!({ "apiVersion": "postgresql.cnpg.io/v1", "kind": "Cluster", "metadata": {}, "status": status }),
            ))
        };
        assert!(cluster(Some("a-1")).is_ready() && !cluster(None).is_ready());
        assert_eq!(cluster(Some("a-1")).timeline, Some(2));
    }
}
