//! `turnback.yaml`: one's own database, migration and promises, in a few lines.

use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::time::Duration;
use turnback_core::recovery::TargetKind;

/// What `turnback.yaml` says. Paths are relative to the file.
#[derive(Clone, Debug)]
pub struct Config {
    /// SQL that builds the known-good database (`psql` runs it: a plain `pg_dump` is fine).
    pub database: PathBuf,
    /// What the database is called, where the SQL or the migration depends on it.
    pub database_name: Option<String>,
    /// The migration to try and to turn back.
    pub migration: PathBuf,
    /// By what the restore finds its way back.
    pub target: TargetKind,
    /// Recovery time objective.
    pub rto: Option<Duration>,
    /// Recovery point objective.
    pub rpo: Option<Duration>,
}

/// What is wrong with it.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("cannot read {path}: {source}; name another file with --config, or write one with `database:` and `migration:`")]
    Read {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// It is not what it should be; the message names line and column.
    #[error("{path}: {message}")]
    Invalid {
        /// The file.
        path: String,
        /// What is wrong, and where.
        message: String,
    },
    /// A file that it names is not there.
    #[error("{path}: `{key}` names {file}, which is not there: paths are relative to the file itself")]
    Missing {
        /// The file.
        path: String,
        /// The key.
        key: &'static str,
        /// What it names.
        file: String,
    },
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    database: PathBuf,
    database_name: Option<String>,
    migration: PathBuf,
    #[serde(default)]
    target: RawTarget,
    rto: Option<String>,
    rpo: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum RawTarget {
    #[default]
    Time,
    Lsn,
    #[serde(alias = "transaction")]
    Xid,
    #[serde(alias = "restore-point")]
    Name,
    Immediate,
}

impl Config {
    /// Reads and checks it.
    ///
    /// # Errors
    /// [`ConfigError`], with line and column where the text is wrong.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let name = path.display().to_string();
        let bytes = std::fs::read(path).map_err(|source| ConfigError::Read { path: name.clone(), source })?;
        let text = String::from_utf8(bytes).map_err(|_| ConfigError::Invalid { path: name.clone(), message: "not UTF-8 text".into() })?;
        let base = path.parent().unwrap_or(Path::new("."));
        let config = Self::parse(&text, base)
            .map_err(|message| ConfigError::Invalid { path: name.clone(), message: message.replace("<input>", &name) })?;
        for (key, file) in [("database", &config.database), ("migration", &config.migration)] {
            if !file.is_file() {
                return Err(ConfigError::Missing { path: name, key, file: file.display().to_string() });
            }
        }
        Ok(config)
    }

    fn parse(text: &str, base: &Path) -> Result<Self, String> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        if text.trim().is_empty() {
            return Err("it is empty: it needs at least `database:` and `migration:`".into());
        }
        let raw: Raw = serde_yaml::from_str(text).map_err(|error| said(&error.to_string()))?;
        let length = |key: &str, text: Option<String>| -> Result<Option<Duration>, String> {
            let Some(text) = text else { return Ok(None) };
            let length: jiff::SignedDuration =
                text.parse().map_err(|_| format!("`{key}: {text}` is not a length of time: write for example `5 minutes`"))?;
            Duration::try_from(length).map(Some).map_err(|_| format!("`{key}: {text}` lies in the past"))
        };
        if let Some(name) = &raw.database_name {
            super::platform::check_database_name(name).map_err(|why| format!("`database_name: {name}` {why}"))?;
        }
        Ok(Self {
            database: base.join(raw.database),
            database_name: raw.database_name,
            migration: base.join(raw.migration),
            target: match raw.target {
                RawTarget::Time => TargetKind::Time,
                RawTarget::Lsn => TargetKind::Lsn,
                RawTarget::Xid => TargetKind::Xid,
                RawTarget::Name => TargetKind::Name,
                RawTarget::Immediate => TargetKind::Immediate,
            },
            rto: length("rto", raw.rto)?,
            rpo: length("rpo", raw.rpo)?,
        })
    }
}

/// The parser's message, without its own prefix and without advice about its programming interface.
fn said(error: &str) -> String {
    error.trim_start_matches("error: ").replace(", set DuplicateKeyPolicy in Options if acceptable", "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(text, Path::new("/x"))
    }

    #[test]
    fn three_lines_are_enough() {
        let config = parse("database: shop.sql\nmigration: drop.sql\ntarget: lsn\nrto: 5 minutes\n").unwrap();
        assert_eq!(config.database, Path::new("/x/shop.sql"));
        assert_eq!(config.target, TargetKind::Lsn);
        assert_eq!(config.rto, Some(Duration::from_secs(300)));
        assert!(parse("\u{feff}database: a\r\nmigration: b\r\n").is_ok());
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        for (text, needle) in [
            ("", "empty"),
            ("database: a\nmigration: b\ntabel: c\n", "tabel"),
            ("database: a\ndatabase: b\nmigration: c\n", "uplicate"),
            ("database: [a]\nmigration: b\n", "line 1"),
            ("database: a\nmigration: b\ntarget: tomorrow\n", "line 3"),
            ("database: a\nmigration: b\nrto: soon\n", "soon"),
            ("database: a\n", "migration"),
            ("database: a\nmigration: b\ndatabase_name: postgres\n", "already"),
            ("database: a\nmigration: b\ndatabase_name: ''\n", "at least one"),
        ] {
            let message = parse(text).unwrap_err();
            assert!(message.contains(needle), "{text:?}: {message}");
        }
    }

    #[test]
    fn a_bomb_of_aliases_is_refused() {
        let mut text = String::from("a: &a [x,x,x,x,x,x,x,x,x,x]\n");
        for (this, last) in ('b'..='i').zip('a'..='h') {
            text.push_str(&format!("{this}: &{this} [{}]\n", vec![format!("*{last}"); 10].join(",")));
        }
        assert!(parse(&text).is_err());
        assert!(parse(&format!("database: {}\nmigration: b\n", "[".repeat(100_000))).is_err());
    }
}
