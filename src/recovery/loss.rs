//! What a restore to a recovery point would lose, asked of the primary itself: the commits after it, by their commit timestamps.
//!
//! It needs `track_commit_timestamp`; without it nothing is known, and nothing is guessed.

use super::observe::{ObserveError, connect, read_time};
use jiff::Timestamp;
use sqlx::Row;
use sqlx::postgres::PgConnectOptions;
use turnback_core::recovery::RecoveryPoint;

/// The commits between two moments.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// How many.
    pub commits: u64,
    /// When the last of them was committed, on the primary's clock.
    pub last_commit: Option<Timestamp>,
}

/// The most transactions that are looked at one by one.
const MOST: i64 = 5_000_000;

/// Counts the commits after a recovery point, leaving out the point's own sentinel. `None` where the server keeps no commit timestamps, or
/// more transactions than can be looked at came after the point.
///
/// # Errors
/// [`ObserveError`].
pub async fn commits_after(options: &PgConnectOptions, point: &RecoveryPoint) -> Result<Option<Lost>, ObserveError> {
    const PURPOSE: &str = "count the commits after the recovery point";
    let query = |source| ObserveError::Query { purpose: PURPOSE, source };
    let mut connection = connect(options, PURPOSE).await?;
    let sql = "SELECT current_setting('track_commit_timestamp') = 'on', pg_snapshot_xmax(pg_current_snapshot())::text::bigint";
    let row = sqlx::query(sql).fetch_one(&mut connection).await.map_err(query)?;
    let (kept, next): (bool, i64) = (row.try_get(0).map_err(query)?, row.try_get(1).map_err(query)?);
    let (marker, sentinel) = (xid(point.marker.xid), xid(point.sentinel.xid));
    if !kept || next.saturating_sub(marker) > MOST {
        return Ok(None);
    }
    // The timestamp's function takes the low half of the 64-bit id.
    let sql = "SELECT count(*), to_char(max(at) AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US') || '+00' FROM (\
                 SELECT pg_xact_commit_timestamp(((x % 4294967296)::text)::xid) AS at FROM generate_series($1::bigint, $2::bigint - 1) x \
                 WHERE x <> $3 AND pg_xact_status(x::text::xid8) = 'committed') commits WHERE at IS NOT NULL";
    let row = sqlx::query(sql).bind(marker + 1).bind(next).bind(sentinel).fetch_one(&mut connection).await.map_err(query)?;
    let commits: i64 = row.try_get(0).map_err(query)?;
    let last: Option<String> = row.try_get(1).map_err(query)?;
    Ok(Some(Lost {
        commits: u64::try_from(commits).unwrap_or_default(),
        last_commit: last.map(|text| read_time(&text, PURPOSE)).transpose()?,
    }))
}

/// A transaction id is a 64-bit number that no server will ever exhaust the sign of.
fn xid(xid: u64) -> i64 {
    i64::try_from(xid).unwrap_or(i64::MAX)
}
