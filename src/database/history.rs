//! The migration history, as sqlx's migrator keeps it in the database itself.

use super::DatabaseError;
use sqlx::{PgConnection, Row};

/// The table in which the migrator keeps its history.
pub const TABLE: &str = "public._sqlx_migrations";

/// Whether a schema object is part of that table: every migration changes it, also one that does nothing else.
#[must_use]
pub fn owns(object: &str) -> bool {
    object.strip_prefix(TABLE).is_some_and(|rest| rest.is_empty() || rest.starts_with('.') || rest == "_pkey")
}

/// One applied migration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its number.
    pub version: i64,
    /// Its description: the file's name without number and ending, underscores as spaces.
    pub description: String,
    /// Whether it ended well.
    pub success: bool,
}

impl Entry {
    /// Whether this is the migration of that name.
    #[must_use]
    pub fn is(&self, name: &str) -> bool {
        let plain = |text: &str| text.replace(['_', '-'], " ");
        plain(&self.description) == plain(name)
    }
}

/// Reads the history; a database that no migrator has touched has none.
///
/// # Errors
/// When the table is there and cannot be read.
pub async fn read(connection: &mut PgConnection) -> Result<Vec<Entry>, DatabaseError> {
    let failed = |source| DatabaseError::Query { operation: "read", object: "public._sqlx_migrations".to_owned(), source };
    let there: bool = sqlx::query_scalar("SELECT to_regclass('public._sqlx_migrations') IS NOT NULL")
        .fetch_one(&mut *connection)
        .await
        .map_err(failed)?;
    if !there {
        return Ok(Vec::new());
    }
    let rows = sqlx::query("SELECT version, description, success FROM public._sqlx_migrations ORDER BY version")
        .fetch_all(connection)
        .await
        .map_err(failed)?;
    rows.iter()
        .map(|row| Ok(Entry { version: row.try_get(0)?, description: row.try_get(1)?, success: row.try_get(2)? }))
        .collect::<Result<_, sqlx::Error>>()
        .map_err(failed)
}
