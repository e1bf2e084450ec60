//! Taking a recovery point: one moment at which the snapshot that is fingerprinted, the restore point in the WAL and the clock agree exactly,
//! while others go on writing.
//!
//! Session A holds SHARE locks on every user table for a few milliseconds. Under them, session B commits the marker and exports its snapshot, and
//! A writes the restore point and reads the clock. Then writers go on, B stays open for the fingerprint, and A commits the sentinel.

use super::observe::{CLOCK, ObserveError, connect, observe_on, read_lsn, read_time, seal_on};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{Connection, Row};
use std::error::Error;
use std::future::Future;
use std::time::{Duration, Instant};
use turnback_core::recovery::{Lsn, Marker, RecoveryPoint};

/// The prefix of our messages in the WAL.
pub const MESSAGE_PREFIX: &str = "turnback";
/// The longest name of a restore point that PostgreSQL takes, in bytes.
const RESTORE_POINT_LIMIT: usize = 63;

/// How to take a recovery point.
#[derive(Clone, Debug)]
pub struct PointRequest {
    /// What the scenario calls it.
    pub name: String,
    /// The id of the run, written into the marker, the sentinel and the restore point's name.
    pub run: String,
    /// How long one attempt waits for the locks; while it waits, writers queue behind it.
    pub lock_timeout: Duration,
    /// How often to try.
    pub attempts: u32,
    /// How long archiving may take.
    pub archive_limit: Duration,
}

impl PointRequest {
    /// A request with sensible limits.
    pub fn new(name: impl Into<String>, run: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            run: run.into(),
            lock_timeout: Duration::from_millis(500),
            attempts: 10,
            archive_limit: Duration::from_secs(30),
        }
    }

    fn restore_point(&self) -> String {
        let mut name = format!("turnback {} {}", self.run, self.name);
        while name.len() > RESTORE_POINT_LIMIT {
            name.pop();
        }
        name
    }
}

/// What the cut cost those who were writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Tables locked.
    pub tables: usize,
    /// Attempts made.
    pub attempts: u32,
    /// From asking for the locks to having them.
    pub waited: Duration,
    /// From having them to giving them back.
    pub held: Duration,
}

/// A recovery point and what was made of its snapshot.
#[derive(Clone, Debug)]
pub struct Recorded<T> {
    /// The point.
    pub point: RecoveryPoint,
    /// What it cost.
    pub cut: Cut,
    /// What the caller read from the snapshot.
    pub known_good: T,
}

/// Why no recovery point was recorded.
#[derive(Debug, thiserror::Error)]
pub enum PointError {
    /// The server could not be asked.
    #[error(transparent)]
    Observe(#[from] ObserveError),
    /// A statement of the cut failed.
    #[error("recovery point {name}: {step}: {source}")]
    Statement {
        /// The point.
        name: String,
        /// What was being done.
        step: &'static str,
        /// Why it failed.
        source: sqlx::Error,
    },
    /// Long transactions kept the tables busy.
    #[error(
        "recovery point {name}: the tables were not free within {attempts} attempts of {} ms: a long transaction writes to them \
         (see pg_stat_activity); end it or allow more attempts",
        each.as_millis()
    )]
    Busy {
        /// The point.
        name: String,
        /// How often was tried.
        attempts: u32,
        /// How long each time.
        each: Duration,
    },
    /// The clock of the primary does not advance.
    #[error(
        "recovery point {name}: the primary's clock went back between the point ({point}) and the sentinel ({sentinel}); repair its time service"
    )]
    ClockWentBack {
        /// The point.
        name: String,
        /// Its time.
        point: String,
        /// The sentinel's.
        sentinel: String,
    },
    /// What the caller made of the snapshot failed.
    #[error("recovery point {name}: reading the known-good state: {source}")]
    KnownGood {
        /// The point.
        name: String,
        /// Why.
        source: Box<dyn Error + Send + Sync>,
    },
}

const LIST_TABLES: &str = "SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
     WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't' AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_' ORDER BY c.oid";

/// Takes a recovery point of one database. `known_good` is given the exported snapshot's id (for `SET TRANSACTION SNAPSHOT`), which lives until
/// it is done; meanwhile the sentinel is committed and archived.
///
/// # Errors
/// [`PointError`]. Nothing but messages in the WAL and a restore point is left behind, whatever happens.
pub async fn record_point<T, E, F>(
    options: &PgConnectOptions,
    request: &PointRequest,
    known_good: impl FnOnce(String) -> F,
) -> Result<Recorded<T>, PointError>
where
    F: Future<Output = Result<T, E>>,
    E: Error + Send + Sync + 'static,
{
    let failed = |step: &'static str| move |source: sqlx::Error| PointError::Statement { name: request.name.clone(), step, source };
    let (mut a, mut b) = futures::try_join!(connect(options, "take a recovery point"), connect(options, "export a snapshot"))?;

    let asked = Instant::now();
    let (tables, attempts) = lock_tables(&mut a, request).await?;
    let locked = Instant::now();
    let marker = emit(&mut b, &format!("{} marker", request.run)).await.map_err(failed("committing the marker"))?.marker;
    sqlx::raw_sql("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").execute(&mut b).await.map_err(failed("opening the snapshot"))?;
    let snapshot: String =
        sqlx::query_scalar("SELECT pg_export_snapshot()").fetch_one(&mut b).await.map_err(failed("exporting the snapshot"))?;
    let restore_point = request.restore_point();
    let sql = format!("SELECT pg_create_restore_point($1)::text, {CLOCK}");
    let row =
        sqlx::query(sqlx::AssertSqlSafe(sql)).bind(&restore_point).fetch_one(&mut a).await.map_err(failed("writing the restore point"))?;
    sqlx::raw_sql("COMMIT").execute(&mut a).await.map_err(failed("releasing the tables"))?;
    let cut = Cut { tables, attempts, waited: locked - asked, held: locked.elapsed() };

    let lsn: String = row.try_get(0).map_err(failed("reading the restore point"))?;
    let time: String = row.try_get(1).map_err(failed("reading the restore point"))?;
    let lsn = read_lsn(&lsn, "read the restore point")?;
    let time = read_time(&time, "read the restore point")?;

    let archived = async {
        let position = observe_on(&mut a).await?;
        let sentinel = emit(&mut a, &format!("{} sentinel", request.run)).await.map_err(failed("committing the sentinel"))?;
        let sentinel_time = read_time(&sentinel.time, "commit the sentinel")?;
        if sentinel_time <= time {
            return Err(PointError::ClockWentBack {
                name: request.name.clone(),
                point: time.to_string(),
                sentinel: sentinel_time.to_string(),
            });
        }
        let sealed = seal_on(&mut a, request.archive_limit).await?;
        Ok((position, sentinel.marker, sentinel_time, sealed))
    };
    let reading = async {
        known_good(snapshot).await.map_err(|source| PointError::KnownGood { name: request.name.clone(), source: Box::new(source) })
    };
    let ((position, sentinel, sentinel_time, sealed), known_good) = futures::try_join!(archived, reading)?;
    // The snapshot has served; failing to say goodbye changes nothing.
    let _closed = futures::join!(a.close(), b.close());

    let point = RecoveryPoint {
        name: request.name.clone(),
        restore_point,
        time,
        lsn,
        timeline: position.timeline.unwrap_or_default(),
        system_identifier: position.system_identifier,
        marker,
        sentinel,
        sentinel_time,
        segment: sealed.segment,
    };
    Ok(Recorded { point, cut, known_good })
}

/// Locks every user table against writers; returns how many, and after how many attempts.
async fn lock_tables(a: &mut PgConnection, request: &PointRequest) -> Result<(usize, u32), PointError> {
    let failed = |step: &'static str| move |source: sqlx::Error| PointError::Statement { name: request.name.clone(), step, source };
    for attempt in 1..=request.attempts {
        let listed: Vec<String> = sqlx::query_scalar(LIST_TABLES).fetch_all(&mut *a).await.map_err(failed("listing the tables"))?;
        let timeout = request.lock_timeout.as_millis().max(1);
        let mut sql = format!("BEGIN; SET LOCAL lock_timeout = {timeout}; SET LOCAL timezone = 'UTC';");
        if !listed.is_empty() {
            sql += &format!("LOCK TABLE {} IN SHARE MODE;", listed.join(", "));
        }
        match sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut *a).await {
            Ok(_) => {
                // A table created or dropped between the list and the locks would escape them.
                let held: Vec<String> = sqlx::query_scalar(LIST_TABLES).fetch_all(&mut *a).await.map_err(failed("listing the tables"))?;
                if held == listed {
                    return Ok((held.len(), attempt));
                }
            }
            Err(error) if is_passing(&error) => {}
            Err(error) => return Err(failed("locking the tables (IN SHARE MODE)")(error)),
        }
        sqlx::raw_sql("ROLLBACK").execute(&mut *a).await.map_err(failed("giving up the locks"))?;
    }
    Err(PointError::Busy { name: request.name.clone(), attempts: request.attempts, each: request.lock_timeout })
}

/// Lock timeout, deadlock, or a table dropped meanwhile: try again.
fn is_passing(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    matches!(code.as_deref(), Some("55P03" | "40P01" | "42P01" | "3F000"))
}

struct Emitted {
    marker: Marker,
    time: String,
}

/// Commits a transaction that leaves a message in the WAL and nothing in schema or data.
async fn emit(connection: &mut PgConnection, message: &str) -> Result<Emitted, sqlx::Error> {
    let sql = format!("SELECT pg_current_xact_id()::text, pg_logical_emit_message(true, '{MESSAGE_PREFIX}', $1)::text, {CLOCK}");
    let row = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(message).fetch_one(connection).await?;
    let (xid, lsn): (String, String) = (row.try_get(0)?, row.try_get(1)?);
    let xid = xid.parse().map_err(|error| sqlx::Error::Decode(Box::new(error)))?;
    let lsn: Lsn = lsn.parse().map_err(|error| sqlx::Error::Decode(Box::new(error)))?;
    Ok(Emitted { marker: Marker { xid, lsn }, time: row.try_get(2)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restore_points_name_always_fits() {
        let long = PointRequest::new("der Stand vor der Änderung, ".repeat(4), "0199a2b4-0000-7000-8000-000000000000").restore_point();
        assert!(long.len() <= RESTORE_POINT_LIMIT && long.starts_with("turnback 0199"), "{long}");
    }
}
