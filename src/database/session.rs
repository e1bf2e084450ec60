//! Sessions that read the same thing whatever is configured: pinned settings, and one snapshot shared by several connections.

use std::time::Duration;

use sqlx::{ConnectOptions as _, Connection as _, PgConnection, Row as _};

use super::{Address, DatabaseError};
use crate::wait::{Poll, Wait, WaitError};

/// How long to wait for a connection.
const CONNECT_WITHIN: Duration = Duration::from_secs(15);

/// What text output and plans depend on, pinned. Everything is qualified because the search path is empty, row security raises an error
/// instead of hiding rows, and rows are never read through an index, which might be damaged.
const PINNED: &str = "SET search_path = ''; SET DateStyle = 'ISO, YMD'; SET TimeZone = 'UTC'; SET IntervalStyle = 'postgres'; \
    SET extra_float_digits = 1; SET bytea_output = 'hex'; SET xmlbinary = 'base64'; SET quote_all_identifiers = off; \
    SET standard_conforming_strings = on; SET row_security = off; SET statement_timeout = 0; SET lock_timeout = 0; \
    SET idle_in_transaction_session_timeout = 0; SET jit = off; SET max_parallel_workers_per_gather = 0; \
    SET default_transaction_isolation = 'repeatable read'; SET lc_monetary = 'C'";

/// Opens a connection with the server's own settings.
///
/// # Errors
/// [`DatabaseError::Connect`] with the address (without its password) and what was said.
pub async fn connect(address: &Address) -> Result<PgConnection, DatabaseError> {
    let options = address.options().clone().application_name("turnback").disable_statement_logging();
    Wait::new("a connection", CONNECT_WITHIN).until(async || PgConnection::connect_with(&options).await.map(Poll::Ready)).await.map_err(
        |end| DatabaseError::Connect {
            address: address.to_string(),
            problem: match end {
                WaitError::Failed { source, .. } => server_words(&source),
                timeout @ WaitError::TimedOut { .. } => timeout.to_string(),
            },
        },
    )
}

/// The server's message where there is one, without the driver's wrapping.
fn server_words(error: &sqlx::Error) -> String {
    error.as_database_error().map_or_else(|| error.to_string(), |said| said.message().to_owned())
}

/// Opens a connection with pinned settings, in a read-only transaction on `snapshot` or a new one.
pub(super) async fn open(
    address: &Address,
    snapshot: Option<&str>,
    statement_timeout: Option<Duration>,
) -> Result<PgConnection, DatabaseError> {
    let mut connection = connect(address).await?;
    let mut sql = String::from(PINNED);
    if let Some(limit) = statement_timeout {
        sql += &format!("; SET statement_timeout = {}", limit.as_millis().max(1));
    }
    sql += "; BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY";
    if let Some(id) = snapshot {
        sql += &format!("; SET TRANSACTION SNAPSHOT {}", literal(id));
    }
    execute(&mut connection, sql, "begin reading", &address.to_string()).await?;
    Ok(connection)
}

/// Lets other sessions see what this one sees, for as long as its transaction lasts.
pub(super) async fn export(connection: &mut PgConnection) -> Result<String, DatabaseError> {
    one_text(connection, "SELECT pg_catalog.pg_export_snapshot()", "export the snapshot of", "the reading session").await
}

pub(super) async fn execute(
    connection: &mut PgConnection,
    sql: String,
    operation: &'static str,
    object: &str,
) -> Result<(), DatabaseError> {
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(connection).await.map(drop).map_err(failed(operation, object))
}

pub(super) async fn fetch(
    connection: &mut PgConnection,
    sql: String,
    operation: &'static str,
    object: &str,
) -> Result<Vec<sqlx::postgres::PgRow>, DatabaseError> {
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).fetch_all(connection).await.map_err(failed(operation, object))
}

pub(super) async fn one_text(
    connection: &mut PgConnection,
    sql: &str,
    operation: &'static str,
    object: &str,
) -> Result<String, DatabaseError> {
    let row = sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned())).fetch_one(connection).await.map_err(failed(operation, object))?;
    row.try_get(0).map_err(failed(operation, object))
}

/// Names the operation and the object of a failed query.
pub(super) fn failed(operation: &'static str, object: &str) -> impl FnOnce(sqlx::Error) -> DatabaseError {
    move |source| DatabaseError::Query { operation, object: object.to_owned(), source }
}

/// A text as an SQL literal.
pub(super) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
