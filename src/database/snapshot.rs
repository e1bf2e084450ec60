//! A recorded state: catalog, sums and the rows file, taken in one snapshot, written whole or not at all, and checked when it is opened.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use sqlx::{PgConnection, Row as _};
use turnback_core::fingerprint::RowSum;
use turnback_core::schema::Catalog;

use super::session::{self, failed, fetch};
use super::sidecar::{Reader, RowsFile, Writer};
use super::tables::KeyColumn;
use super::{Address, DatabaseError, catalog, scan, tables};

/// The document's name in a snapshot's directory.
pub const SNAPSHOT_FILE: &str = "snapshot.json";
/// The rows file's name beside it.
pub const ROWS_FILE: &str = "rows.bin";
const FORMAT: &str = "turnback-snapshot/1";

/// How to take a snapshot.
#[derive(Clone, Debug)]
pub struct SnapshotOptions {
    /// Connections to read rows over; at least one.
    pub connections: usize,
    /// The identifier that `pg_export_snapshot()` gave to a session that stays open meanwhile; without one, a new snapshot is taken.
    pub exported_snapshot: Option<String>,
    /// How long one statement may take; without one, as long as it needs.
    pub statement_timeout: Option<Duration>,
}

impl Default for SnapshotOptions {
    fn default() -> Self {
        Self { connections: 2, exported_snapshot: None, statement_timeout: None }
    }
}

/// Facts about the server at the time. They are recorded and not compared.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Server {
    /// `15.10`.
    pub version: String,
    /// The database's name.
    pub database: String,
    /// When, by the server's clock, in UTC.
    pub time: String,
    /// The position in the write-ahead log then.
    pub lsn: Option<String>,
    /// The timeline, where this role may know it.
    pub timeline: Option<String>,
    /// The system identifier, where this role may know it.
    pub system_identifier: Option<String>,
    /// Whether it was in recovery.
    pub in_recovery: bool,
}

/// One table's state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TableState {
    /// Its quoted, qualified name.
    pub name: String,
    /// Whether it comes back empty after a crash or a recovery.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unlogged: bool,
    /// What tells its rows apart; empty where there is no key.
    pub key: Vec<KeyColumn>,
    /// Rows, and the sum of their hashes.
    pub rows: RowSum,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    format: String,
    server: Server,
    tables: Vec<TableState>,
    excluded: Vec<String>,
    rows_file: RowsFile,
    catalog: Catalog,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    /// SHA-256 of the content.
    digest: String,
    content: Content,
}

/// A recorded state.
#[derive(Clone, Debug)]
pub struct Snapshot {
    directory: PathBuf,
    content: Content,
}

/// Records the state of a database in `directory`, which is created where it is missing.
///
/// # Errors
/// Where the database cannot be reached or read in full, or the files not be written; then nothing new is left in the directory.
pub async fn snapshot(address: &Address, options: &SnapshotOptions, directory: &Path) -> Result<Snapshot, DatabaseError> {
    let failed_at = |operation, path: &Path| {
        let path = path.to_owned();
        move |source| DatabaseError::File { operation, path, source }
    };
    std::fs::create_dir_all(directory).map_err(failed_at("create", directory))?;
    let (document_path, rows_path) = (directory.join(SNAPSHOT_FILE), directory.join(ROWS_FILE));
    let rows_file = tempfile::NamedTempFile::new_in(directory).map_err(failed_at("create a file in", directory))?;
    let writer = rows_file.reopen().and_then(Writer::new).map_err(failed_at("write", &rows_path))?;

    let mut first = session::open(address, options.exported_snapshot.as_deref(), options.statement_timeout).await?;
    let server = server(&mut first, address).await?;
    let most = options.connections.max(1);
    let shared = match &options.exported_snapshot {
        Some(id) => Some(id.clone()),
        None if most > 1 => Some(session::export(&mut first).await?),
        None => None,
    };
    let second = async {
        match most {
            1 => Ok(None),
            _ => session::open(address, shared.as_deref(), options.statement_timeout).await.map(Some),
        }
    };
    let (questions, mut second) = futures::future::try_join(catalog::Questions::of(&mut first), second).await?;
    let mut excluded = Vec::new();
    let (listed, objects) = match &mut second {
        Some(second) => {
            let both = async {
                let listed = tables::list(&mut first, &mut excluded).await?;
                Ok((listed, questions.answer(&mut first).await?))
            };
            let ((listed, mut objects), more) = futures::future::try_join(both, questions.answer(second)).await?;
            objects.extend(more);
            (listed, objects)
        }
        None => (tables::list(&mut first, &mut excluded).await?, questions.answer(&mut first).await?),
    };
    let catalog = catalog::finish(&mut first, objects).await?;
    let mut states: Vec<TableState> = listed
        .iter()
        .map(|table| TableState { name: table.name.clone(), unlogged: table.unlogged, key: table.key.clone(), rows: RowSum::default() })
        .collect();

    let work = Arc::new(scan::Work::new(listed, writer));
    let wanted = work.connections(most);
    let others = (2..wanted).map(|_| session::open(address, shared.as_deref(), options.statement_timeout));
    let mut connections = futures::future::try_join_all(others).await?;
    connections.extend(second.filter(|_| wanted > 1));
    // The first session exported the snapshot: it ends last by doing the last share of the work.
    connections.push(first);
    let sums = scan::run(Arc::clone(&work), connections).await?;
    states.iter_mut().zip(sums).for_each(|(state, sum)| state.rows = sum);

    let described = work.writer().finish().map_err(failed_at("write", &rows_path))?;
    let content = Content { format: FORMAT.into(), server, tables: states, excluded, rows_file: described, catalog };
    let document = Document { digest: digest(&content), content };
    let document_file = tempfile::NamedTempFile::new_in(directory).map_err(failed_at("create a file in", directory))?;
    serde_json::to_writer_pretty(std::io::BufWriter::new(document_file.as_file()), &document)
        .map_err(|problem| failed_at("write", &document_path)(problem.into()))?;
    rows_file.persist(&rows_path).map_err(|end| failed_at("write", &rows_path)(end.error))?;
    document_file.persist(&document_path).map_err(|end| failed_at("write", &document_path)(end.error))?;
    Ok(Snapshot { directory: directory.to_owned(), content: document.content })
}

async fn server(connection: &mut PgConnection, address: &Address) -> Result<Server, DatabaseError> {
    const READ: &str = "read the server facts of";
    let object = address.to_string();
    let sql = "SELECT current_setting('server_version_num'), split_part(current_setting('server_version'), ' ', 1), current_database()::text, \
        to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US') || '+00', pg_is_in_recovery()::text, \
        (CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_insert_lsn() END)::text, \
        CASE WHEN has_function_privilege('pg_control_system()', 'EXECUTE') THEN (SELECT system_identifier FROM pg_control_system())::text END, \
        CASE WHEN pg_is_in_recovery() THEN NULL ELSE ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::int::text END";
    // On a standby the last expression's function refuses, but a branch that is not taken is not evaluated.
    let row = fetch(connection, sql.to_owned(), READ, &object).await?.pop();
    let Some(row) = row else {
        return Err(DatabaseError::Catalog { what: "server facts", object, problem: "no row came back".into() });
    };
    let text = |index: usize| row.try_get::<Option<String>, _>(index).map_err(failed(READ, &object));
    let version = text(1)?.unwrap_or_default();
    let number: u32 = text(0)?.and_then(|number| number.parse().ok()).unwrap_or_default();
    if !(14..=18).contains(&(number / 10_000)) {
        return Err(DatabaseError::Version { address: object, version });
    }
    Ok(Server {
        version,
        database: text(2)?.unwrap_or_default(),
        time: text(3)?.unwrap_or_default(),
        lsn: text(5)?,
        timeline: text(7)?,
        system_identifier: text(6)?,
        in_recovery: text(4)?.as_deref() == Some("true"),
    })
}

fn digest(value: &impl Serialize) -> String {
    // Maps with text keys into memory: serialising them cannot fail, and an empty text would fail every check.
    hex::encode(Sha256::digest(serde_json::to_vec(value).unwrap_or_default()))
}

impl Snapshot {
    /// Opens a recorded state and checks that it is what was written. The rows file is checked block by block as it is read.
    ///
    /// # Errors
    /// [`DatabaseError::File`] where a file cannot be read, [`DatabaseError::Damaged`] where it is truncated, edited or of another format.
    pub fn load(directory: &Path) -> Result<Self, DatabaseError> {
        let path = directory.join(SNAPSHOT_FILE);
        let text = std::fs::read(&path).map_err(|source| DatabaseError::File { operation: "read", path: path.clone(), source })?;
        let damaged = |problem: String| DatabaseError::Damaged { path: path.clone(), problem };
        let document: Document = serde_json::from_slice(&text).map_err(|problem| damaged(format!("it is not a snapshot: {problem}")))?;
        if document.content.format != FORMAT {
            return Err(damaged(format!("its format is {:?} and this program reads {FORMAT:?}", document.content.format)));
        }
        if digest(&document.content) != document.digest {
            return Err(damaged("its content does not have the digest written in it: it was edited".into()));
        }
        let snapshot = Self { directory: directory.to_owned(), content: document.content };
        snapshot.rows()?;
        Ok(snapshot)
    }

    /// Reads the whole rows file and checks it.
    ///
    /// # Errors
    /// [`DatabaseError::Damaged`] where a block was changed.
    pub fn verify(&self) -> Result<(), DatabaseError> {
        self.rows()?.verify()
    }

    /// The root digest over schema and data, in hexadecimal: the same for equal states, whichever server held them.
    #[must_use]
    pub fn digest(&self) -> String {
        let tables: Vec<_> = self.content.tables.iter().map(|table| (&table.name, &table.rows)).collect();
        digest(&(&self.content.catalog, tables))
    }

    /// Where it is kept.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Facts about the server at the time.
    #[must_use]
    pub fn server(&self) -> &Server {
        &self.content.server
    }

    /// Every schema object.
    #[must_use]
    pub fn catalog(&self) -> &Catalog {
        &self.content.catalog
    }

    /// Every table with rows of its own, in order of name.
    #[must_use]
    pub fn tables(&self) -> &[TableState] {
        &self.content.tables
    }

    /// What was left out, and why.
    #[must_use]
    pub fn excluded(&self) -> &[String] {
        &self.content.excluded
    }

    /// Rows in all.
    #[must_use]
    pub fn rows_total(&self) -> u64 {
        self.content.tables.iter().map(|table| table.rows.rows).sum()
    }

    pub(super) fn rows(&self) -> Result<Reader, DatabaseError> {
        Reader::open(&self.directory.join(ROWS_FILE), &self.content.rows_file)
    }
}
