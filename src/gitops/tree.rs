//! How the GitOps tree is laid out, and the edits that a drill makes to it: pure functions from files' contents to changed files.
//!
//! It knows nothing about Git, databases and platforms.

mod overlay;
mod recovery;

pub use overlay::{DATABASES, PlatformOverlay, platform_overlay};
pub use recovery::{RecoveryDeclaration, declare_recovery};

use super::FileChange;
use super::yaml::{self, YamlError};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use serde_yaml::Spanned;
use sha2::{Digest, Sha256};

/// Where the migrations are: SQL files, the Job for each, and the kustomization that lists them.
pub const MIGRATIONS: &str = "apps/orders/migrations";
/// Which release runs, and against which database Cluster.
pub const RELEASE: &str = "apps/orders/release/release.yaml";
/// The production database: its Cluster, its backups, and Clusters restored from them.
pub const PRODUCTION: &str = "infrastructure/data/cnpg-clusters/production";
/// The namespace of everything that belongs to the application.
pub const NAMESPACE: &str = "orders";

const MIGRATOR_IMAGE: &str = "orders:1.0.0";
const MIGRATION_MAP: &str = "orders-migration-";

/// Why the tree cannot be read or edited.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    /// A file is not what the layout needs.
    #[error(transparent)]
    Yaml(#[from] YamlError),
    /// A file that the layout needs is not there.
    #[error("{0} is not in the tree; restore it, or start from the shipped tree")]
    Missing(String),
    /// A name that cannot be one here.
    #[error("{name:?} cannot be the name of {what}; {rule}")]
    Name {
        /// The name.
        name: String,
        /// What it should name.
        what: &'static str,
        /// How such names are formed.
        rule: &'static str,
    },
    /// A migration that is listed without a Job, or a Job without a migration.
    #[error("{file}: migration {migration} {problem}")]
    Migration {
        /// The kustomization.
        file: String,
        /// The migration.
        migration: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// A value written so that it cannot be changed in place.
    #[error("{file}: cannot set {field} in place; write it as `{field}: value` on a line of its own")]
    Edit {
        /// The file.
        file: String,
        /// The field.
        field: &'static str,
    },
}

/// A migration as the tree lists it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Migration {
    /// Its number, as the migration history holds it.
    pub version: i64,
    /// The SQL file's name without `.sql`, such as `0003_corrupt_dummy`.
    pub name: String,
    /// The name of the Job that runs it; it holds a hash of the SQL.
    pub job: String,
    /// The SQL.
    pub sql: String,
}

/// A migration that was added, and what a commit must hold for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddedMigration {
    /// The migration.
    pub migration: Migration,
    /// The SQL file, the Job, and the kustomization.
    pub changes: Vec<FileChange>,
}

/// Which release runs, and where its database is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Release {
    /// The release's version.
    pub version: String,
    /// The name of the database Cluster.
    pub database: String,
}

/// The path of the kustomization that lists the migrations.
#[must_use]
pub fn migrations_kustomization() -> String {
    format!("{MIGRATIONS}/kustomization.yaml")
}

/// The path of the kustomization that lists the production databases.
#[must_use]
pub fn production_kustomization() -> String {
    format!("{PRODUCTION}/kustomization.yaml")
}

/// The path of production's database Cluster.
#[must_use]
pub fn production_cluster() -> String {
    format!("{PRODUCTION}/cluster.yaml")
}

/// Takes all migrations out of the tree, for a database of one's own: the listed SQL files and Jobs, and their entries.
///
/// # Errors
/// When the file is not a kustomization.
pub fn without_migrations(kustomization: &[u8]) -> Result<Vec<FileChange>, TreeError> {
    let file = migrations_kustomization();
    let read: MigrationsKustomization = yaml::read(&file, kustomization)?;
    let jobs = read.resources.iter().filter(|resource| resource.ends_with(".job.yaml")).map(|resource| format!("{MIGRATIONS}/{resource}"));
    let mut changes: Vec<_> = listed_migrations(kustomization)?.into_iter().chain(jobs).map(|path| FileChange::Remove { path }).collect();
    let mut value: Value = yaml::read(&file, kustomization)?;
    for (field, ours) in [("resources", ".job.yaml"), ("configMapGenerator", "")] {
        if let Some(list) = value.get_mut(field).and_then(Value::as_array_mut) {
            list.retain(|item| match item {
                Value::String(resource) => !resource.ends_with(ours),
                generator => !generator["name"].as_str().is_some_and(|name| name.starts_with(MIGRATION_MAP)),
            });
        }
    }
    changes.push(FileChange::write(file.clone(), yaml::write(&file, kustomization, &value)?));
    Ok(changes)
}

/// The SQL files that the migrations' kustomization lists, by their paths in the repository, in the order of their numbers.
///
/// # Errors
/// When the file is not a kustomization.
pub fn listed_migrations(kustomization: &[u8]) -> Result<Vec<String>, TreeError> {
    let file = migrations_kustomization();
    let read: MigrationsKustomization = yaml::read(&file, kustomization)?;
    let mut paths = Vec::new();
    for generator in read.generators.iter().filter(|g| g.name.starts_with(MIGRATION_MAP)) {
        let [sql] = generator.files.as_slice() else {
            let problem = "must carry exactly one SQL file";
            return Err(TreeError::Migration { file, migration: generator.name.clone(), problem });
        };
        number(sql)?;
        paths.push(format!("{MIGRATIONS}/{sql}"));
    }
    paths.sort();
    Ok(paths)
}

/// The migration that a listed SQL file and its content stand for.
///
/// # Errors
/// When the file's name is not `<number>_<name>.sql`, its SQL is not UTF-8, or the kustomization lists no Job named after this content.
pub fn migration(kustomization: &[u8], path: &str, sql: &[u8]) -> Result<Migration, TreeError> {
    let file = migrations_kustomization();
    let read: MigrationsKustomization = yaml::read(&file, kustomization)?;
    let sql = yaml::text(path, sql)?.to_owned();
    let found = named(path.rsplit('/').next().unwrap_or(path), sql)?;
    if !read.resources.contains(&job_file(&found)) {
        return Err(TreeError::Migration { file, migration: found.name, problem: "is listed without a Job named after its content" });
    }
    Ok(found)
}

/// Adds a migration after those that the kustomization lists, and after number `last`, the highest that a database has seen: a number that
/// was reverted in Git stays taken in a history that was not restored. The change is the SQL file, its Job and the kustomization's entries.
///
/// # Errors
/// When the name is not made of `a`–`z`, `0`–`9` and `_`, the SQL is empty, or the kustomization cannot be read.
pub fn add_migration(kustomization: &[u8], name: &str, sql: &str, last: i64) -> Result<AddedMigration, TreeError> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if name.is_empty() || name.len() > 60 || !name.chars().all(allowed) {
        let rule = "use at most 60 of a-z, 0-9 and _";
        return Err(TreeError::Name { name: name.to_owned(), what: "a migration", rule });
    }
    let file = migrations_kustomization();
    let listed = listed_migrations(kustomization)?;
    let before: Vec<i64> = listed.iter().map(|path| number(path.rsplit('/').next().unwrap_or(path))).collect::<Result<_, _>>()?;
    let next = before.iter().copied().max().unwrap_or(0).max(last).max(0).saturating_add(1);
    let path = format!("{next:04}_{name}.sql");
    yaml::text(&path, sql.as_bytes())?;
    let added = named(&path, sql.to_owned())?;

    let mut value: Value = yaml::read(&file, kustomization)?;
    push(&file, &mut value, "resources", json!(job_file(&added)))?;
    push(&file, &mut value, "configMapGenerator", json!({ "name": map_name(added.version), "files": [path] }))?;
    let all: Vec<i64> = before.into_iter().chain([added.version]).collect();
    let changes = vec![
        FileChange::write(format!("{MIGRATIONS}/{path}"), sql),
        FileChange::write(job_path(&added), job(&added, &all)?),
        FileChange::write(file.clone(), yaml::write(&file, kustomization, &value)?),
    ];
    Ok(AddedMigration { migration: added, changes })
}

/// Reads which release runs and against which database.
///
/// # Errors
/// When the file is not the release's ConfigMap.
pub fn release(content: &[u8]) -> Result<Release, TreeError> {
    let read: ReleaseMap = yaml::read(RELEASE, content)?;
    Ok(Release { version: read.data.version.value, database: read.data.database.value })
}

/// Points the application at another database Cluster; comments and order stay.
///
/// # Errors
/// When the file cannot be read, or the name is no Cluster's.
pub fn set_database(content: &[u8], cluster: &str) -> Result<FileChange, TreeError> {
    cluster_name(cluster)?;
    set(content, "database", cluster)
}

/// Sets the release that runs; comments and order stay.
///
/// # Errors
/// When the file cannot be read, or the version is none.
pub fn set_version(content: &[u8], version: &str) -> Result<FileChange, TreeError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if version.is_empty()
        || version.len() > 60
        || !version.starts_with(|c: char| c.is_ascii_alphanumeric())
        || !version.chars().all(allowed)
    {
        let rule = "it is also an image tag: letters, digits, `.`, `-` and `_`, beginning with a letter or digit";
        return Err(TreeError::Name { name: version.to_owned(), what: "a release", rule });
    }
    set(content, "version", version)
}

/// Checks that a name can be a Cluster's: other names are derived from it, so it is shorter than Kubernetes allows.
fn cluster_name(name: &str) -> Result<(), TreeError> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    if name.len() > 50 || !name.chars().all(allowed) || !ends(name.chars().next()) || !ends(name.chars().last()) {
        let rule = "use at most 50 of a-z, 0-9 and -, with a letter or digit at both ends";
        return Err(TreeError::Name { name: name.to_owned(), what: "a database Cluster", rule });
    }
    Ok(())
}

fn set(content: &[u8], field: &'static str, value: &str) -> Result<FileChange, TreeError> {
    let read: ReleaseMap = yaml::read(RELEASE, content)?;
    let wanted = {
        let (version, database) = (read.data.version.value.clone(), read.data.database.value.clone());
        if field == "version" { Release { version: value.to_owned(), database } } else { Release { version, database: value.to_owned() } }
    };
    let at = if field == "version" { read.data.version.referenced } else { read.data.database.referenced };
    let line = usize::try_from(at.line()).unwrap_or(0).saturating_sub(1);
    // The quotes keep a version such as 1.10 a text.
    let edited: String = yaml::text(RELEASE, content)?
        .split_inclusive('\n')
        .enumerate()
        .map(|(n, text)| {
            if n != line {
                return text.to_owned();
            }
            let key = text.split(':').next().unwrap_or_default();
            format!("{key}: \"{value}\"{}", &text[text.trim_end_matches(['\r', '\n']).len()..])
        })
        .collect();
    // The edit is believed only when the file then says exactly what was wanted.
    if release(edited.as_bytes()).ok().as_ref() != Some(&wanted) {
        return Err(TreeError::Edit { file: RELEASE.to_owned(), field });
    }
    Ok(FileChange::write(RELEASE, edited))
}

fn named(file: &str, sql: String) -> Result<Migration, TreeError> {
    let version = number(file)?;
    let name = file.trim_end_matches(".sql").to_owned();
    let hash = hex::encode(Sha256::digest(sql.as_bytes()));
    Ok(Migration { version, job: format!("{}-{}", map_name(version), hash.get(..10).unwrap_or(&hash)), name, sql })
}

fn number(file: &str) -> Result<i64, TreeError> {
    let number = file.strip_suffix(".sql").and_then(|name| name.split_once('_')).and_then(|(number, _)| number.parse().ok());
    let outside = file.contains('/') || file.contains('\\');
    number.filter(|n| *n > 0 && !outside).ok_or_else(|| TreeError::Name {
        name: file.to_owned(),
        what: "a migration's file",
        rule: "name it <number>_<name>.sql, in the kustomization's own directory",
    })
}

/// The path of the Job that runs a migration.
#[must_use]
pub fn job_path(migration: &Migration) -> String {
    format!("{MIGRATIONS}/{}", job_file(migration))
}

fn map_name(version: i64) -> String {
    format!("{MIGRATION_MAP}{version:04}")
}

fn job_file(migration: &Migration) -> String {
    format!("{}.job.yaml", migration.job.trim_start_matches(MIGRATION_MAP))
}

/// The Job of a migration. It mounts the SQL of all migrations up to its own, so that it does not depend on which Job runs first, and nothing
/// in its immutable template changes when a later migration is added or when the database is switched.
fn job(migration: &Migration, versions: &[i64]) -> Result<String, TreeError> {
    let secret = |key: &str| json!({ "secretKeyRef": { "name": "orders-database", "key": key } });
    let sources: Vec<Value> = versions.iter().map(|v| json!({ "configMap": { "name": map_name(*v) } })).collect();
    let value = json!({
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": { "name": migration.job, "namespace": NAMESPACE, "labels": { "app.kubernetes.io/name": "orders-migration" } },
        "spec": {
            "backoffLimit": 0,
            "activeDeadlineSeconds": 600,
            "template": {
                "metadata": { "labels": { "app.kubernetes.io/name": "orders-migration" } },
                "spec": {
                    "restartPolicy": "Never",
                    "automountServiceAccountToken": false,
                    "securityContext": { "runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": { "type": "RuntimeDefault" } },
                    "containers": [{
                        "name": "migrator",
                        "image": MIGRATOR_IMAGE,
                        "args": ["migrate", "--dir", "/migrations"],
                        "env": [
                            { "name": "CLUSTER", "valueFrom": { "configMapKeyRef": { "name": "orders-release", "key": "database" } } },
                            { "name": "DATABASE_USER", "valueFrom": secret("username") },
                            { "name": "DATABASE_PASSWORD", "valueFrom": secret("password") },
                            {
                                "name": "DATABASE_URL",
                                "value": "postgres://$(DATABASE_USER):$(DATABASE_PASSWORD)@$(CLUSTER)-rw:5432/orders",
                            },
                        ],
                        "securityContext": {
                            "allowPrivilegeEscalation": false,
                            "readOnlyRootFilesystem": true,
                            "capabilities": { "drop": ["ALL"] },
                        },
                        "volumeMounts": [{ "name": "migrations", "mountPath": "/migrations", "readOnly": true }],
                    }],
                    "volumes": [{ "name": "migrations", "projected": { "sources": sources } }],
                },
            },
        },
    });
    Ok(yaml::write("the Job", b"", &value)?)
}

/// Appends to a list of a manifest, making the list where there is none.
fn push(file: &str, manifest: &mut Value, field: &str, item: Value) -> Result<(), TreeError> {
    let wrong = |problem| YamlError::Field { file: file.to_owned(), field: field.to_owned(), problem };
    let fields = manifest.as_object_mut().ok_or_else(|| wrong("is not in a mapping"))?;
    let list = fields.entry(field).or_insert_with(|| json!([]));
    list.as_array_mut().ok_or_else(|| wrong("is not a list"))?.push(item);
    Ok(())
}

#[derive(Deserialize)]
struct MigrationsKustomization {
    #[serde(default)]
    resources: Vec<String>,
    #[serde(default, rename = "configMapGenerator")]
    generators: Vec<Generator>,
}

#[derive(Deserialize)]
struct Generator {
    name: String,
    #[serde(default)]
    files: Vec<String>,
}

#[derive(Deserialize)]
struct ReleaseMap {
    data: ReleaseData,
}

#[derive(Deserialize)]
struct ReleaseData {
    version: Spanned<String>,
    database: Spanned<String>,
}

#[cfg(test)]
mod tests;
