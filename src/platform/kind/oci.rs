//! Just enough of the OCI image layout to put one executable on top of an image that is there already: pure functions from bytes to bytes.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// A block of a tar file.
const BLOCK: usize = 512;

/// A file or directory of a tar file.
pub(super) enum Entry<'a> {
    /// A directory.
    Directory(&'a str),
    /// A file: path, permissions, content.
    File(&'a str, u32, &'a [u8]),
}

/// A tar file (ustar) of these entries, owned by root, all of the same age: its digest depends on the contents alone.
pub(super) fn tar(entries: &[Entry<'_>]) -> Vec<u8> {
    let mut out = Vec::new();
    for entry in entries {
        let (path, mode, kind, content): (&str, u32, u8, &[u8]) = match entry {
            Entry::Directory(path) => (path, 0o755, b'5', &[]),
            Entry::File(path, mode, content) => (path, *mode, b'0', content),
        };
        out.extend_from_slice(&header(path, mode, kind, content.len()));
        out.extend_from_slice(content);
        out.resize(out.len().next_multiple_of(BLOCK), 0);
    }
    out.resize(out.len() + 2 * BLOCK, 0);
    out
}

fn header(path: &str, mode: u32, kind: u8, size: usize) -> [u8; BLOCK] {
    let mut header = [0_u8; BLOCK];
    let mut put = |at: usize, text: &[u8]| header[at..at + text.len()].copy_from_slice(text);
    // Paths here are short and ours; 100 bytes is what the format has room for.
    put(0, &path.as_bytes()[..path.len().min(100)]);
    put(100, format!("{mode:07o}\0").as_bytes());
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, format!("{size:011o}\0").as_bytes());
    put(136, b"00000000000\0");
    put(148, b"        ");
    put(156, &[kind]);
    put(257, b"ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}

/// `sha256:…` of some bytes.
pub(super) fn digest(content: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(content)))
}

/// An image made of another one and a layer on top.
pub(super) struct Image {
    /// What is imported.
    pub archive: Vec<u8>,
    /// The digest of its manifest.
    pub manifest: String,
    /// The digest of its configuration.
    pub config: String,
}

/// Puts a layer on top of a base image, of which only manifest and configuration are given: its layers are where the archive goes to.
///
/// Returns `None` when the base is not of a form that can be extended.
pub(super) fn extend(
    base_manifest: &Value,
    base_config: &Value,
    layer: &[u8],
    entrypoint: &[&str],
    user: &str,
    names: &[&str],
) -> Option<Image> {
    let layer_digest = digest(layer);
    let mut config = base_config.clone();
    config["config"] = {
        let mut own = base_config["config"].clone();
        if !own.is_object() {
            own = json!({});
        }
        own["Entrypoint"] = json!(entrypoint);
        own["User"] = json!(user);
        own.as_object_mut()?.remove("Cmd");
        own
    };
    config.as_object_mut()?.remove("history");
    config.pointer_mut("/rootfs/diff_ids")?.as_array_mut()?.push(json!(layer_digest));
    let config = config.to_string().into_bytes();
    let config_digest = digest(&config);

    let docker = base_manifest["mediaType"].as_str().is_some_and(|kind| kind.contains("docker"));
    let kinds = if docker {
        (
            "application/vnd.docker.distribution.manifest.v2+json",
            "application/vnd.docker.container.image.v1+json",
            "application/vnd.docker.image.rootfs.diff.tar",
        )
    } else {
        ("application/vnd.oci.image.manifest.v1+json", "application/vnd.oci.image.config.v1+json", "application/vnd.oci.image.layer.v1.tar")
    };
    let mut layers = base_manifest["layers"].as_array()?.clone();
    layers.push(json!({ "mediaType": kinds.2, "digest": layer_digest, "size": layer.len() }));
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": kinds.0,
        "config": { "mediaType": kinds.1, "digest": config_digest, "size": config.len() },
        "layers": layers,
    });
    let manifest = manifest.to_string().into_bytes();
    let manifest_digest = digest(&manifest);
    let described: Vec<_> = names
        .iter()
        .map(|name| {
            let tag = name.rsplit(':').next().unwrap_or_default();
            json!({ "mediaType": kinds.0, "digest": manifest_digest, "size": manifest.len(),
                "annotations": { "io.containerd.image.name": name, "org.opencontainers.image.ref.name": tag } })
        })
        .collect();
    let index = json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": described }).to_string();
    let blob = |digest: &str| format!("blobs/sha256/{}", digest.trim_start_matches("sha256:"));
    let (at_config, at_manifest, at_layer) = (blob(&config_digest), blob(&manifest_digest), blob(&layer_digest));
    let archive = tar(&[
        Entry::File("oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#),
        Entry::Directory("blobs/"),
        Entry::Directory("blobs/sha256/"),
        Entry::File(&at_layer, 0o644, layer),
        Entry::File(&at_config, 0o644, &config),
        Entry::File(&at_manifest, 0o644, &manifest),
        Entry::File("index.json", 0o644, index.as_bytes()),
    ]);
    Some(Image { archive, manifest: manifest_digest, config: config_digest })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tar_reads_what_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.tar");
        let content = vec![7_u8; 1000];
        std::fs::write(&file, tar(&[Entry::Directory("usr/"), Entry::File("usr/program", 0o755, &content)])).unwrap();
        duct::cmd!("tar", "-C", dir.path(), "-xf", &file).run().unwrap();
        assert_eq!(std::fs::read(dir.path().join("usr/program")).unwrap(), content);
        let listed = duct::cmd!("tar", "-tvf", &file).read().unwrap();
        assert!(listed.contains("-rwxr-xr-x") && listed.contains("1970-01-01"), "{listed}");
    }

    #[test]
    fn the_base_keeps_its_layers_and_gets_one_more() {
        let manifest = json!({ "mediaType": "application/vnd.oci.image.manifest.v1+json", "layers": [{ "digest": "sha256:base" }] });
        let config = json!({ "architecture": "amd64", "os": "linux", "config": { "Env": ["PATH=/bin"], "Cmd": ["sh"] },
            "rootfs": { "type": "layers", "diff_ids": ["sha256:plain"] }, "history": [{}] });
        let image = extend(&manifest, &config, b"layer", &["/p", "orders"], "65532:65532", &["docker.io/library/orders:1.0.0"]).unwrap();
        let archive = String::from_utf8_lossy(&image.archive);
        assert!(archive.contains(r#""diff_ids":["sha256:plain","sha256:"#) && archive.contains(r#""Entrypoint":["/p","orders"]"#));
        assert!(archive.contains("sha256:base") && !archive.contains(r#""Cmd""#) && !archive.contains("history"));
        assert!(extend(&json!({}), &config, b"", &[], "", &[]).is_none());
    }
}
