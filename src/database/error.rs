//! What can go wrong when a database is read or a recorded state is opened.

use std::path::PathBuf;

/// Why a database could not be read, or two states not compared.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// The text is not a PostgreSQL URL. The text itself is not repeated: it may hold a password.
    #[error("not a PostgreSQL URL: {problem}; write postgresql://USER@HOST:PORT/DATABASE or a snapshot's directory")]
    Address {
        /// What is wrong with it.
        problem: String,
    },
    /// No connection.
    #[error("no connection to {address}: {problem}; is the server up, and may this user connect?")]
    Connect {
        /// Where, without the password.
        address: String,
        /// What the server or the network said.
        problem: String,
    },
    /// The server is too old or too new to be read for certain.
    #[error("{address} runs PostgreSQL {version}; versions 14 to 18 can be read exactly")]
    Version {
        /// Where.
        address: String,
        /// The server's version.
        version: String,
    },
    /// A query failed.
    #[error("cannot {operation} {object}: {source}{}", hint(source))]
    Query {
        /// What was being done: “read the rows of”.
        operation: &'static str,
        /// To what.
        object: String,
        /// What the server said.
        source: sqlx::Error,
    },
    /// The server sent rows that cannot be taken apart.
    #[error("cannot read the rows of {table}: {source}")]
    Rows {
        /// The table.
        table: String,
        /// What is wrong with the data.
        source: turnback_core::fingerprint::CopyError,
    },
    /// The catalog holds something that cannot be represented.
    #[error("cannot read the {what} of {object}: {problem}")]
    Catalog {
        /// Which part of the catalog.
        what: &'static str,
        /// Of what.
        object: String,
        /// What is wrong.
        problem: String,
    },
    /// A file could not be written or read.
    #[error("cannot {operation} {}: {source}", path.display())]
    File {
        /// What was being done.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A recorded state is not what was written: truncated, edited, or of another format.
    #[error("{}: {problem}; take the snapshot again or restore the file from where it was kept", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A worker stopped before its part was done.
    #[error("a worker reading rows stopped: {problem}")]
    Worker {
        /// Why.
        problem: String,
    },
}

/// The next step for what the server most often says.
fn hint(source: &sqlx::Error) -> &'static str {
    match source.as_database_error().and_then(sqlx::error::DatabaseError::code).as_deref() {
        Some("42501") => "; connect as a role that may read everything: the owner, a member of pg_read_all_data, or a superuser",
        Some("57014") => "; give the statement more time, or more connections",
        Some("55P03") => "; another session holds a lock: try again when it has ended",
        _ => "",
    }
}
