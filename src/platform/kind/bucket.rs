//! The objects in the kit's S3 server, seen and changed where they lie: as files of its pod's volume in the node.
//!
//! For evidence and for faults. It knows nothing about what the objects mean.

use super::client::{KubeClient, kinds};
use super::cluster::run;
use super::{KindCluster, KindError};
use serde::Serialize;
use std::ffi::OsString;
use std::time::Duration;

const ASK_LIMIT: Duration = Duration::from_secs(30);

/// An object in the S3 server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StoredObject {
    /// `bucket/key`
    pub key: String,
    /// Its size.
    pub bytes: u64,
    /// When it was written, in seconds since 1970.
    pub modified: i64,
}

/// All objects, by their keys.
///
/// # Errors
/// When the S3 server's pod or the node does not answer.
pub async fn list(cluster: &KindCluster, client: &KubeClient) -> Result<Vec<StoredObject>, KindError> {
    let directory = directory(client).await?;
    let found = in_node(cluster, "list the objects in the bucket", &["find", &directory, "-type", "f", "-printf", "%P\t%s\t%T@\n"]).await?;
    let mut objects: Vec<_> = found.lines().filter_map(object).collect();
    objects.sort_by(|a, b| a.key.cmp(&b.key));
    Ok(objects)
}

/// Removes an object.
///
/// # Errors
/// When there is none of this key.
pub async fn remove(cluster: &KindCluster, client: &KubeClient, key: &str) -> Result<(), KindError> {
    let file = format!("{}/{}", directory(client).await?, checked(key)?);
    in_node(cluster, "remove an object from the bucket", &["rm", "--", &file]).await.map(|_| ())
}

/// Overwrites one byte of an object with its complement.
///
/// # Errors
/// When there is no object of this key, or it is shorter.
pub async fn flip(cluster: &KindCluster, client: &KubeClient, key: &str, offset: u64) -> Result<(), KindError> {
    let file = format!("{}/{}", directory(client).await?, checked(key)?);
    // $1 the file, $2 the offset: nothing of the key is read as shell.
    let script = "set -eu; byte=$(od -An -tu1 -j \"$2\" -N 1 \"$1\"); [ -n \"$byte\" ]; \
                  printf \"$(printf '\\\\%03o' $((255 - byte)))\" | dd of=\"$1\" bs=1 seek=\"$2\" conv=notrunc status=none";
    in_node(cluster, "damage an object in the bucket", &["sh", "-c", script, "flip", &file, &offset.to_string()]).await.map(|_| ())
}

/// Cuts an object off.
///
/// # Errors
/// When there is no object of this key.
pub async fn truncate(cluster: &KindCluster, client: &KubeClient, key: &str, length: u64) -> Result<(), KindError> {
    let file = format!("{}/{}", directory(client).await?, checked(key)?);
    let size = format!("--size={length}");
    in_node(cluster, "cut off an object in the bucket", &["truncate", "--no-create", &size, "--", &file]).await.map(|_| ())
}

/// Where the objects lie in the node.
async fn directory(client: &KubeClient) -> Result<String, KindError> {
    let pods = client.list(kinds::POD, Some("object-store"), "app=object-store").await?;
    let uid = pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).find_map(|pod| pod.metadata.uid.clone());
    let uid = uid.ok_or_else(|| KindError::State {
        object: "the S3 server".to_owned(),
        problem: "it has no pod in the namespace object-store; is the platform installed?".to_owned(),
    })?;
    Ok(format!("/var/lib/kubelet/pods/{uid}/volumes/kubernetes.io~empty-dir/data"))
}

fn checked(key: &str) -> Result<&str, KindError> {
    if key.is_empty() || key.split('/').any(|part| part.is_empty() || part == "..") {
        return Err(KindError::State { object: format!("object {key:?}"), problem: "this cannot be the key of an object here".to_owned() });
    }
    Ok(key)
}

fn object(line: &str) -> Option<StoredObject> {
    let mut fields = line.split('\t');
    let (key, bytes, modified) = (fields.next()?, fields.next()?, fields.next()?);
    let modified = modified.split('.').next()?.parse().ok()?;
    Some(StoredObject { key: key.to_owned(), bytes: bytes.parse().ok()?, modified })
}

async fn in_node(cluster: &KindCluster, operation: &str, command: &[&str]) -> Result<String, KindError> {
    let node = cluster.node();
    let arguments = ["exec", node.as_str()].iter().chain(command).map(OsString::from).collect::<Vec<_>>();
    run(operation, "docker", arguments, None, ASK_LIMIT).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_is_read_and_a_path_out_of_the_bucket_refused() {
        let read = object("backups/a/wals/01.gz\t123\t1763700000.5").unwrap();
        assert_eq!((read.key.as_str(), read.bytes, read.modified), ("backups/a/wals/01.gz", 123, 1_763_700_000));
        assert!(checked("../../etc/passwd").is_err() && checked("/etc/passwd").is_err() && checked("backups/a").is_ok());
    }
}
