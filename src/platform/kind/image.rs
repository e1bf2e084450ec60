//! The application's image: this executable on top of the base image that the node has, put straight into the node's containerd.
//!
//! Only the new layer travels, so it takes a second or two. The executable is linked to the C library of the machine that built it, which must not
//! be newer than the base's.

use super::cluster::{KindCluster, ended, run};
use super::oci::{self, Entry};
use super::{KindError, Kit};
use serde::Serialize;
use serde_json::Value;
use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

/// How long importing may take.
const IMPORT_LIMIT: Duration = Duration::from_secs(60);
/// Where the executable is in the image.
const PLACE: &str = "usr/local/bin/turnback";
/// Who runs it.
const USER: &str = "65532:65532";

/// The application's image, for the evidence.
#[derive(Clone, Debug, Serialize)]
pub struct ApplicationImage {
    /// The references, all for the same bytes.
    pub references: Vec<String>,
    /// The digest of its manifest.
    pub digest: String,
    /// The digest of its configuration.
    pub id: String,
}

/// Puts an executable into a cluster's node as `orders:TAG` for each tag. `arguments` are its first arguments there, such as the name of the
/// hidden sub-command that is the application.
///
/// # Errors
/// When the executable cannot be read, the node has not the kit's base image, or containerd does not take the image.
pub async fn load(
    cluster: &KindCluster,
    kit: &Kit,
    executable: &Path,
    arguments: &[&str],
    tags: &[&str],
) -> Result<ApplicationImage, KindError> {
    let failed = |source| KindError::Local { operation: "read the executable", path: executable.to_owned(), source };
    let program = tokio::fs::read(executable).await.map_err(failed)?;
    let base = kit.image("base")?;
    let manifest = content(cluster, &base.digest).await?;
    let config_digest = manifest["config"]["digest"].as_str().unwrap_or_default().to_owned();
    let config = content(cluster, &config_digest).await?;
    let names: Vec<_> = tags.iter().map(|tag| format!("docker.io/library/orders:{tag}")).collect();
    let place = format!("/{PLACE}");
    let entrypoint: Vec<String> = std::iter::once(place.as_str()).chain(arguments.iter().copied()).map(str::to_owned).collect();
    let given = names.clone();
    // Hashing some tens of megabytes takes a moment: not on the thread that serves everything else.
    let made = tokio::task::spawn_blocking(move || {
        let layer = oci::tar(&[
            Entry::Directory("usr/"),
            Entry::Directory("usr/local/"),
            Entry::Directory("usr/local/bin/"),
            Entry::File(PLACE, 0o755, &program),
        ]);
        let entrypoint: Vec<_> = entrypoint.iter().map(String::as_str).collect();
        let names: Vec<_> = given.iter().map(String::as_str).collect();
        oci::extend(&manifest, &config, &layer, &entrypoint, USER, &names)
    })
    .await
    .ok()
    .flatten();
    let Some(image) = made else {
        let problem = format!("{} has no manifest and configuration that could be extended", base.reference);
        return Err(KindError::State { object: "the base image in the node".to_owned(), problem });
    };
    let mut arguments: Vec<OsString> = ["exec", "--interactive"].map(OsString::from).to_vec();
    arguments.push(cluster.node().into());
    arguments.extend(["ctr", "--namespace", "k8s.io", "images", "import", "--digests", "-"].map(OsString::from));
    let expression = duct::cmd("docker", arguments).stdin_bytes(image.archive).stdout_capture().stderr_capture().unchecked();
    ended("put the application's image into the node", "docker", expression, IMPORT_LIMIT).await?;
    Ok(ApplicationImage { references: names, digest: image.manifest, id: image.config })
}

/// A JSON blob of the node's content store.
async fn content(cluster: &KindCluster, digest: &str) -> Result<Value, KindError> {
    let mut arguments: Vec<OsString> = vec!["exec".into(), cluster.node().into()];
    arguments.extend(["ctr", "--namespace", "k8s.io", "content", "get", digest].map(OsString::from));
    let operation = format!("read {digest} from the node's containerd (is this the kit that the node was made of?)");
    let text = run(&operation, "docker", arguments, None, IMPORT_LIMIT).await?;
    serde_json::from_str(&text).map_err(|error| KindError::State { object: digest.to_owned(), problem: error.to_string() })
}
