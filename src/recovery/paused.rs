//! What a server that paused at its recovery target says about where replay stopped, before it is promoted.

use super::observe::{ObserveError, Position, connect, observe_on, read_lsn, read_time};
use sqlx::Row;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use turnback_core::evidence::Reached;
use turnback_core::recovery::{Lsn, Marker, RecoveryPoint};

const PROVE: &str = "prove where replay stopped";

/// How far replay has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplayStatus {
    /// Whether the server still replays (and is no primary yet).
    pub in_recovery: bool,
    /// `pg_get_wal_replay_pause_state()`; `None` once it is a primary.
    pub pause_state: Option<String>,
    /// `pg_last_wal_replay_lsn()`.
    pub lsn: Option<Lsn>,
}

/// A server in recovery, watched over one connection: asking every few milliseconds must not cost it a new process each time.
#[derive(Debug)]
pub struct Watch {
    options: PgConnectOptions,
    connection: Option<PgConnection>,
}

impl Watch {
    /// Watches the server there; nothing is connected yet.
    #[must_use]
    pub fn new(options: PgConnectOptions) -> Self {
        Self { options, connection: None }
    }

    async fn connection(&mut self, purpose: &'static str) -> Result<&mut PgConnection, ObserveError> {
        match &mut self.connection {
            Some(connection) => Ok(connection),
            empty => Ok(empty.insert(connect(&self.options, purpose).await?)),
        }
    }

    /// Asks how far replay has come.
    ///
    /// # Errors
    /// [`ObserveError`]; the next question connects anew.
    pub async fn status(&mut self) -> Result<ReplayStatus, ObserveError> {
        const PURPOSE: &str = "see how far replay is";
        let answer = replay_status(self.connection(PURPOSE).await?, PURPOSE).await;
        if answer.is_err() {
            self.connection = None;
        }
        answer
    }

    /// Ends the recovery of a server that has paused at its target; it goes on as a primary on a new timeline.
    ///
    /// # Errors
    /// [`ObserveError`].
    pub async fn end_recovery(&mut self) -> Result<(), ObserveError> {
        const PURPOSE: &str = "end recovery at the target";
        let resumed = sqlx::query("SELECT pg_wal_replay_resume()").execute(self.connection(PURPOSE).await?).await;
        resumed.map(drop).map_err(|source| ObserveError::Query { purpose: PURPOSE, source })
    }

    /// Holds a paused server against a recovery point: the marker must be committed there, the sentinel must not.
    ///
    /// # Errors
    /// [`ObserveError`].
    pub async fn prove(&mut self, point: &RecoveryPoint) -> Result<Reached, ObserveError> {
        prove(self.connection(PROVE).await?, point).await
    }

    /// Says where a paused server stands, without a recovery point to hold it against.
    ///
    /// # Errors
    /// [`ObserveError`].
    pub async fn reached(&mut self) -> Result<Reached, ObserveError> {
        reached_on(self.connection(PROVE).await?).await
    }

    /// Asks the server where it stands.
    ///
    /// # Errors
    /// [`ObserveError`].
    pub async fn position(&mut self) -> Result<Position, ObserveError> {
        observe_on(self.connection("see where it stands").await?).await
    }
}

async fn replay_status(connection: &mut PgConnection, purpose: &'static str) -> Result<ReplayStatus, ObserveError> {
    let query = |source| ObserveError::Query { purpose, source };
    let sql = "SELECT pg_is_in_recovery(), CASE WHEN pg_is_in_recovery() THEN pg_get_wal_replay_pause_state() END, pg_last_wal_replay_lsn()::text";
    let row = sqlx::query(sql).fetch_one(connection).await.map_err(query)?;
    let lsn: Option<String> = row.try_get(2).map_err(query)?;
    Ok(ReplayStatus {
        in_recovery: row.try_get(0).map_err(query)?,
        pause_state: row.try_get(1).map_err(query)?,
        lsn: lsn.map(|text| read_lsn(&text, purpose)).transpose()?,
    })
}

/// What became of a transaction on a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Committed,
    /// In progress, aborted, or never seen.
    NotCommitted,
    /// So old that the server has forgotten.
    Forgotten,
}

async fn prove(connection: &mut PgConnection, point: &RecoveryPoint) -> Result<Reached, ObserveError> {
    let query = |source| ObserveError::Query { purpose: PROVE, source };
    let mut reached = reached_on(connection).await?;
    let marker = fate(connection, &point.marker).await.map_err(query)?;
    let sentinel = fate(connection, &point.sentinel).await.map_err(query)?;
    reached.marker_present = Some(marker != Fate::NotCommitted && reached.lsn > point.marker.lsn);
    // The sentinel's message lies before its commit record, so replay may have read the one and stopped before the other.
    reached.sentinel_absent = Some(sentinel == Fate::NotCommitted && reached.lsn <= point.sentinel.lsn);
    Ok(reached)
}

async fn reached_on(connection: &mut PgConnection) -> Result<Reached, ObserveError> {
    let query = |source| ObserveError::Query { purpose: PROVE, source };
    let sql = "SELECT pg_get_wal_replay_pause_state(), pg_last_wal_replay_lsn()::text, \
               to_char(pg_last_xact_replay_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US') || '+00'";
    let row = sqlx::query(sql).fetch_one(connection).await.map_err(query)?;
    let (pause_state, lsn): (String, String) = (row.try_get(0).map_err(query)?, row.try_get(1).map_err(query)?);
    let last_commit: Option<String> = row.try_get(2).map_err(query)?;
    Ok(Reached {
        pause_state,
        lsn: read_lsn(&lsn, PROVE)?,
        last_commit: last_commit.map(|text| read_time(&text, PROVE)).transpose()?,
        marker_present: None,
        sentinel_absent: None,
    })
}

async fn fate(connection: &mut PgConnection, marker: &Marker) -> Result<Fate, sqlx::Error> {
    let status = sqlx::query_scalar::<_, Option<String>>("SELECT pg_xact_status($1::text::xid8)").bind(marker.xid.to_string());
    match status.fetch_one(connection).await {
        Ok(Some(status)) if status == "committed" => Ok(Fate::Committed),
        Ok(Some(_)) => Ok(Fate::NotCommitted),
        Ok(None) => Ok(Fate::Forgotten),
        // “transaction ID … is in the future”: this server never saw it.
        Err(error) if error.as_database_error().is_some_and(|error| error.code().as_deref() == Some("22023")) => Ok(Fate::NotCommitted),
        Err(error) => Err(error),
    }
}
