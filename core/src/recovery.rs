//! Recovery points, recovery targets, and which backup and WAL a restore needs.
//!
//! Pure decisions over facts that adapters gathered. It knows nothing about servers, files or clusters.

mod plan;
mod position;
mod target;

pub use plan::{ArchiveFacts, Refusal, RestorePlan, plan};
pub use position::{Lsn, PositionError, SEGMENT_BYTES_DEFAULT, segment_name};
pub use target::{TargetError, parse_target};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::fmt;

/// A transaction that leaves no trace in schema or data (`pg_logical_emit_message`), so that its presence on a restored server proves how far
/// replay went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marker {
    /// The full 64-bit transaction id, as `pg_current_xact_id()` gives it.
    pub xid: u64,
    /// Where the WAL stood after the marker's message was written.
    pub lsn: Lsn,
}

/// The moment that a drill promises to be able to go back to, taken on the primary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecoveryPoint {
    /// What the scenario calls it.
    pub name: String,
    /// The named restore point (`pg_create_restore_point`) written at this moment.
    pub restore_point: String,
    /// The primary's clock, to the microsecond.
    pub time: Timestamp,
    /// The end of the WAL at that moment: everything before it is wanted, nothing after it.
    pub lsn: Lsn,
    /// The timeline of the primary.
    pub timeline: u32,
    /// `pg_control_system().system_identifier`, as text because it exceeds what JSON numbers hold.
    pub system_identifier: String,
    /// The last transaction that must be there after a restore.
    pub marker: Marker,
    /// The first transaction that must not be there after a restore. Its commit record also lets a time target be reached at all.
    pub sentinel: Marker,
    /// When the sentinel was committed, on the primary's clock.
    pub sentinel_time: Timestamp,
    /// The WAL segment that holds the sentinel; archived before the point counts as recorded.
    pub segment: String,
}

/// The five kinds of recovery target that PostgreSQL knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TargetKind {
    /// `recovery_target_time`
    Time,
    /// `recovery_target_lsn`
    Lsn,
    /// `recovery_target_xid`
    Xid,
    /// `recovery_target_name`
    Name,
    /// `recovery_target = 'immediate'`
    Immediate,
}

/// Where replay shall stop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind", content = "value")]
pub enum Target {
    /// At a commit time.
    Time(Timestamp),
    /// At a position in the WAL.
    Lsn(Lsn),
    /// At the end of a transaction.
    Xid(u64),
    /// At a named restore point.
    Name(String),
    /// As soon as the base backup is consistent.
    Immediate,
}

/// A [`Target`] and which side of it replay stops on (`recovery_target_inclusive`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecoveryTarget {
    /// Where.
    #[serde(flatten)]
    pub target: Target,
    /// Whether the record exactly at the target is replayed. PostgreSQL's default is `true`; it has no meaning for a name or `immediate`.
    pub inclusive: bool,
}

/// A completed base backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaseBackup {
    /// Its label, unique within the drill.
    pub id: String,
    /// Where the backup began (`START WAL LOCATION`).
    pub begin_lsn: Lsn,
    /// Where the backup ended: no target may lie before it.
    pub end_lsn: Lsn,
    /// When it began, on the primary's clock.
    pub begin_time: Timestamp,
    /// When it ended, on the primary's clock.
    pub end_time: Timestamp,
    /// The timeline it was taken on.
    pub timeline: u32,
    /// The system identifier of the server that it was taken from.
    pub system_identifier: String,
    /// Size of its files, in bytes.
    pub bytes: u64,
}

impl RecoveryTarget {
    /// Whether replay that stopped here stopped on the right side of the target, as far as time and position tell: a transaction or a name do
    /// not say where they lie, and an exclusive position may lie within a record.
    #[must_use]
    pub fn fits(&self, lsn: Lsn, last_commit: Option<Timestamp>) -> bool {
        match &self.target {
            Target::Time(time) => last_commit.is_none_or(|last| last < *time || (self.inclusive && last == *time)),
            Target::Lsn(at) => !self.inclusive || lsn > *at,
            Target::Xid(_) | Target::Name(_) | Target::Immediate => true,
        }
    }
}

impl TargetKind {
    /// The target of this kind that stands for a recovery point, and the side on which replay stops exactly there.
    ///
    /// A position is taken exclusively: an inclusive one replays the record that *starts* at it, which is the first one too many. A
    /// transaction is the marker's, inclusively. For a time both sides are the same here, because the recovery point is taken when no commit
    /// has exactly its time.
    #[must_use]
    pub fn of(self, point: &RecoveryPoint) -> RecoveryTarget {
        let (target, inclusive) = match self {
            Self::Time => (Target::Time(point.time), true),
            Self::Lsn => (Target::Lsn(point.lsn), false),
            Self::Xid => (Target::Xid(point.marker.xid), true),
            Self::Name => (Target::Name(point.restore_point.clone()), true),
            Self::Immediate => (Target::Immediate, true),
        };
        RecoveryTarget { target, inclusive }
    }
}

/// A time the way PostgreSQL and CNPG both read it without doubt: UTC, microseconds, the offset spelled out.
#[must_use]
pub fn pg_time(time: Timestamp) -> String {
    format!("{}+00", time.strftime("%Y-%m-%d %H:%M:%S%.6f"))
}

/// Reads a time that names its offset (`2026-11-20 21:04:05.123456+00`, `…T…Z`, `…+02:00`); one without an offset is refused, because
/// PostgreSQL, CNPG and people each read it as another instant.
///
/// # Errors
/// [`PositionError::OffsetMissing`] or [`PositionError::Time`].
pub fn parse_time(text: &str) -> Result<Timestamp, PositionError> {
    position::parse_time(text)
}

impl fmt::Display for RecoveryTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = if self.inclusive { "inclusive" } else { "exclusive" };
        match &self.target {
            Target::Time(time) => write!(f, "time {}, {side}", pg_time(*time)),
            Target::Lsn(lsn) => write!(f, "LSN {lsn}, {side}"),
            Target::Xid(xid) => write!(f, "transaction {xid}, {side}"),
            Target::Name(name) => write!(f, "restore point {name}"),
            Target::Immediate => write!(f, "the end of the base backup"),
        }
    }
}
