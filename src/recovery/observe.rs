//! Where a server stands: clock, WAL, timeline, identity; and sealing its WAL into the archive.

use crate::wait::{Poll, Wait, WaitError};
use jiff::Timestamp;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions, Row};
use std::time::Duration;
use turnback_core::recovery::{Lsn, parse_time};

/// How long connecting to a server that is up may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// Where a server stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// Its own clock.
    pub time: Timestamp,
    /// The end of its WAL: inserted on a primary, replayed on a standby.
    pub lsn: Lsn,
    /// Its timeline; `None` while it replays, when only the control file's last checkpoint is known.
    pub timeline: Option<u32>,
    /// Its system identifier.
    pub system_identifier: String,
}

/// WAL that is in the archive up to a position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// Everything before this position is archived.
    pub lsn: Lsn,
    /// The last segment that had to be archived for that.
    pub segment: String,
}

/// Why a server could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum ObserveError {
    /// No connection.
    #[error("connecting to database {database} to {purpose}: {source}")]
    Connect {
        /// Which database.
        database: String,
        /// What for.
        purpose: &'static str,
        /// Why.
        source: sqlx::Error,
    },
    /// A statement failed.
    #[error("asking the server to {purpose}: {source}")]
    Query {
        /// What for.
        purpose: &'static str,
        /// Why.
        source: sqlx::Error,
    },
    /// An answer that does not read as what it must be.
    #[error("the server's answer “{answer}”, when asked to {purpose}, cannot be read")]
    Answer {
        /// What for.
        purpose: &'static str,
        /// The answer.
        answer: String,
    },
    /// WAL does not get archived.
    #[error("{0}: see archive_command and the server's log")]
    NotArchived(String),
}

impl ObserveError {
    /// Whether the server refuses this role or database for good, so that asking again is of no use.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        let Self::Connect { source, .. } = self else { return false };
        let code = source.as_database_error().and_then(|error| error.code());
        matches!(code.as_deref(), Some("28000" | "28P01" | "3D000"))
    }
}

/// Connects; the one place in this module that does.
pub(super) async fn connect(options: &PgConnectOptions, purpose: &'static str) -> Result<PgConnection, ObserveError> {
    let database = options.get_database().unwrap_or_default().to_owned();
    let failed = |source| ObserveError::Connect { database, purpose, source };
    match tokio::time::timeout(CONNECT_LIMIT, options.connect()).await {
        Ok(connected) => connected.map_err(failed),
        Err(_) => Err(failed(sqlx::Error::PoolTimedOut)),
    }
}

pub(super) fn read_lsn(text: &str, purpose: &'static str) -> Result<Lsn, ObserveError> {
    text.parse().map_err(|_| ObserveError::Answer { purpose, answer: text.to_owned() })
}

pub(super) fn read_time(text: &str, purpose: &'static str) -> Result<Timestamp, ObserveError> {
    parse_time(text).map_err(|_| ObserveError::Answer { purpose, answer: text.to_owned() })
}

/// The server's clock as text that reads the same in every time zone.
pub(super) const CLOCK: &str = "to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US') || '+00'";

/// Asks one server several times over one connection.
#[derive(Debug)]
pub struct Observer(PgConnection);

impl Observer {
    /// Connects.
    ///
    /// # Errors
    /// [`ObserveError::Connect`].
    pub async fn connect(options: &PgConnectOptions) -> Result<Self, ObserveError> {
        connect(options, "see where it stands").await.map(Self)
    }

    /// Asks the server where it stands.
    ///
    /// # Errors
    /// [`ObserveError`].
    pub async fn position(&mut self) -> Result<Position, ObserveError> {
        observe_on(&mut self.0).await
    }

    /// The size of a WAL segment, in bytes.
    ///
    /// # Errors
    /// [`ObserveError`].
    pub async fn segment_bytes(&mut self) -> Result<u64, ObserveError> {
        const PURPOSE: &str = "tell the size of a WAL segment";
        let query = |source| ObserveError::Query { purpose: PURPOSE, source };
        let sql = "SELECT setting::bigint FROM pg_settings WHERE name = 'wal_segment_size'";
        let bytes: i64 = sqlx::query_scalar(sql).fetch_one(&mut self.0).await.map_err(query)?;
        u64::try_from(bytes).map_err(|_| ObserveError::Answer { purpose: PURPOSE, answer: bytes.to_string() })
    }
}

pub(super) async fn observe_on(connection: &mut PgConnection) -> Result<Position, ObserveError> {
    const PURPOSE: &str = "see where it stands";
    // The control file's timeline lags behind a promotion until the next checkpoint; the name of the segment being written does not.
    let sql = format!(
        "SELECT {CLOCK}, system_identifier::text, \
         CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_insert_lsn() END::text, \
         CASE WHEN pg_is_in_recovery() THEN NULL ELSE left(pg_walfile_name(pg_current_wal_insert_lsn()), 8) END \
         FROM pg_control_system()"
    );
    let query = |source| ObserveError::Query { purpose: PURPOSE, source };
    let row = sqlx::query(sqlx::AssertSqlSafe(sql)).fetch_one(connection).await.map_err(query)?;
    let time: String = row.try_get(0).map_err(query)?;
    let lsn: Option<String> = row.try_get(2).map_err(query)?;
    let timeline: Option<String> = row.try_get(3).map_err(query)?;
    Ok(Position {
        time: read_time(&time, PURPOSE)?,
        lsn: read_lsn(lsn.as_deref().unwrap_or("0/0"), PURPOSE)?,
        timeline: timeline
            .map(|text| u32::from_str_radix(&text, 16).map_err(|_| ObserveError::Answer { purpose: PURPOSE, answer: text }))
            .transpose()?,
        system_identifier: row.try_get(1).map_err(query)?,
    })
}

/// Switches to a new WAL segment and waits until everything written so far is archived.
///
/// # Errors
/// [`ObserveError::NotArchived`] with what the archiver says, at the deadline.
pub async fn seal(options: &PgConnectOptions, limit: Duration) -> Result<Sealed, ObserveError> {
    seal_on(&mut connect(options, "archive its WAL").await?, limit).await
}

pub(super) async fn seal_on(connection: &mut PgConnection, limit: Duration) -> Result<Sealed, ObserveError> {
    const PURPOSE: &str = "archive its WAL";
    let query = |source| ObserveError::Query { purpose: PURPOSE, source };
    let row = sqlx::query("SELECT lsn::text, pg_walfile_name(lsn) FROM pg_switch_wal() AS lsn")
        .fetch_one(&mut *connection)
        .await
        .map_err(query)?;
    let lsn: String = row.try_get(0).map_err(query)?;
    let sealed = Sealed { lsn: read_lsn(&lsn, PURPOSE)?, segment: row.try_get(1).map_err(query)? };
    let wait = Wait::new(format!("WAL segment {} is archived", sealed.segment), limit).every(Duration::from_millis(20));
    let archived = wait
        .until(async || {
            let sql = "SELECT last_archived_wal, last_failed_wal, failed_count, coalesce(last_failed_time > last_archived_time, last_failed_time IS NOT NULL) \
                       FROM pg_stat_archiver";
            let row = sqlx::query(sql).fetch_one(&mut *connection).await.map_err(query)?;
            let last: Option<String> = row.try_get(0).map_err(query)?;
            // Names of one timeline sort as their segments do; histories and backup labels carry a suffix that does not matter here.
            if last.as_deref().is_some_and(|last| last.get(..24).is_some_and(|last| last >= sealed.segment.as_str())) {
                return Ok(Poll::Ready(()));
            }
            let failing: bool = row.try_get(3).map_err(query)?;
            let seen = last.as_deref().unwrap_or("none");
            Ok(Poll::NotYet(if failing {
                let (failed, count): (Option<String>, i64) = (row.try_get(1).map_err(query)?, row.try_get(2).map_err(query)?);
                format!("archiving fails at {} ({count} failures so far); last archived: {seen}", failed.unwrap_or_default())
            } else {
                format!("last archived: {seen}")
            }))
        })
        .await;
    match archived {
        Ok(()) => Ok(sealed),
        Err(WaitError::Failed { source, .. }) => Err(source),
        Err(timed_out @ WaitError::TimedOut { .. }) => Err(ObserveError::NotArchived(timed_out.to_string())),
    }
}
