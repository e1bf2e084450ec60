//! The kit: which programs, images and manifests a cluster is made of. It reads the description that `scripts/offline/kit` writes, nothing else.

use super::KindError;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// The one format that is understood.
const FORMAT: u64 = 1;

/// A kit, as its description says.
#[derive(Clone, Debug, Deserialize)]
pub struct Kit {
    /// The format of the description.
    format: u64,
    /// Changes with the contents of the node image.
    pub key: String,
    /// Where the images come from, such as `from source`: goes into the evidence.
    pub built: String,
    /// The programs.
    pub programs: Programs,
    /// The node image.
    pub node: Node,
    /// The images in the node.
    pub images: Vec<Image>,
    /// The manifests.
    pub manifests: Manifests,
    /// What all of it was built from.
    pub components: Vec<Component>,
}

/// The executables of a kit.
#[derive(Clone, Debug, Deserialize)]
pub struct Programs {
    /// kind.
    pub kind: PathBuf,
    /// kubectl; for people, the harness does not use it.
    pub kubectl: PathBuf,
}

/// The node image.
#[derive(Clone, Debug, Deserialize)]
pub struct Node {
    /// Its reference in the engine.
    pub image: String,
    /// The id that the engine gives it.
    pub id: String,
    /// The version of Kubernetes.
    pub kubernetes: String,
}

/// An image in the node.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Image {
    /// Its short name.
    pub name: String,
    /// The reference by which pods name it.
    pub reference: String,
    /// The digest of its configuration.
    pub id: String,
    /// The digest of its manifest.
    pub digest: String,
}

/// Paths of manifests.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Manifests {
    /// Flux.
    pub flux: PathBuf,
    /// CloudNativePG.
    pub cnpg: PathBuf,
    /// The Barman Cloud plugin.
    pub barman_cloud: PathBuf,
    /// The S3 server.
    pub object_store: PathBuf,
    /// The Git server.
    pub git_server: PathBuf,
}

/// A component and its version.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Component {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// What it was built from.
    pub source: String,
}

impl Kit {
    /// Where the kit is: `TURNBACK_KIT`, or `turnback/kit` in the user's cache.
    #[must_use]
    pub fn place() -> PathBuf {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        set("TURNBACK_KIT").unwrap_or_else(|| {
            let cache = set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache")));
            cache.unwrap_or_else(|| PathBuf::from(".cache")).join("turnback").join("kit")
        })
    }

    /// Reads the kit of this machine.
    ///
    /// # Errors
    /// When there is none, or one of another format.
    pub fn find() -> Result<Self, KindError> {
        Self::read(&Self::place())
    }

    /// Reads the kit in a directory.
    ///
    /// # Errors
    /// When there is none, or one of another format, or a file that it names is gone.
    pub fn read(place: &Path) -> Result<Self, KindError> {
        let path = place.join("kit.json");
        let wrong = |problem: String| KindError::Kit { path: path.clone(), problem };
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(KindError::NoKit(place.to_owned())),
            Err(error) => return Err(wrong(error.to_string())),
        };
        let kit: Self = serde_json::from_slice(&text).map_err(|error| wrong(error.to_string()))?;
        if kit.format != FORMAT {
            return Err(wrong(format!("its format is {}, and this turnback knows {FORMAT}", kit.format)));
        }
        let Manifests { flux, cnpg, barman_cloud, object_store, git_server } = &kit.manifests;
        for file in [&kit.programs.kind, flux, cnpg, barman_cloud, object_store, git_server] {
            if !file.is_file() {
                return Err(wrong(format!("{} is gone", file.display())));
            }
        }
        Ok(kit)
    }

    /// An image of the node by its short name.
    ///
    /// # Errors
    /// When the kit has none of that name.
    pub fn image(&self, name: &str) -> Result<&Image, KindError> {
        self.images
            .iter()
            .find(|image| image.name == name)
            .ok_or_else(|| KindError::Kit { path: Self::place().join("kit.json"), problem: format!("it has no image named {name}") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_kit_names_the_command_that_makes_it() {
        let none = tempfile::tempdir().unwrap();
        let error = Kit::read(none.path()).unwrap_err().to_string();
        assert!(error.contains("scripts/offline/kit build") && error.contains("not supported yet"), "{error}");
    }

    #[test]
    fn another_format_and_missing_files_are_refused() {
        let place = tempfile::tempdir().unwrap();
        let kit = |format: u64| {
            let text = format!(
                r#"{{"format":{format},"key":"k","built":"from source","go":"go","programs":{{"kind":"/none/kind","kubectl":"/none/kubectl"}},
                "node":{{"image":"n:1","id":"sha256:1","kubernetes":"v1","description":"d"}},"base":{{"layer":"l","diff_id":"d"}},"images":[],
                "manifests":{{"flux":"f","cnpg":"c","barman-cloud":"b","object-store":"o","git-server":"g"}},"components":[]}}"#
            );
            std::fs::write(place.path().join("kit.json"), text).unwrap();
            Kit::read(place.path()).unwrap_err().to_string()
        };
        assert!(kit(2).contains("its format is 2"), "{}", kit(2));
        assert!(kit(1).contains("/none/kind is gone"), "{}", kit(1));
    }
}
