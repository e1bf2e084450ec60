//! A recovery target as a person writes it: `time=…`, `lsn=…`, `xid=…`, `name=…` or `immediate`.

use super::{PositionError, RecoveryTarget, Target, parse_time};

/// The longest name of a restore point, in bytes.
const NAME_LIMIT: usize = 63;

/// What is wrong with a target.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// No kind of target begins so.
    #[error("“{0}” is not a recovery target: write time=…, lsn=…, xid=…, name=… or immediate")]
    Kind(String),
    /// The time or the position cannot be read.
    #[error(transparent)]
    Position(#[from] PositionError),
    /// Not a transaction id.
    #[error("“{0}” is not a transaction id: write the number that pg_current_xact_id() gives")]
    Xid(String),
    /// Not the name of a restore point.
    #[error("“{0}” cannot be the name of a restore point: it has 1 to {NAME_LIMIT} bytes and no control characters")]
    Name(String),
    /// The two sides are the same there.
    #[error("“exclusive” means nothing for a restore point or the end of the backup: leave it out")]
    NoSides,
}

/// Reads a target; an exclusive one stops just before what it names.
///
/// # Errors
/// [`TargetError`], which says how to write it.
pub fn parse_target(text: &str, exclusive: bool) -> Result<RecoveryTarget, TargetError> {
    let target = match text.split_once('=') {
        None if text == "immediate" => Target::Immediate,
        Some(("time", time)) => Target::Time(parse_time(time)?),
        Some(("lsn", lsn)) => Target::Lsn(lsn.parse()?),
        Some(("xid", xid)) => match xid.parse() {
            Ok(id) if id >= 3 => Target::Xid(id),
            _ => return Err(TargetError::Xid(xid.escape_debug().to_string())),
        },
        Some(("name", name)) if name.is_empty() || name.len() > NAME_LIMIT || name.contains(char::is_control) => {
            return Err(TargetError::Name(name.escape_debug().to_string()));
        }
        Some(("name", name)) => Target::Name(name.to_owned()),
        _ => return Err(TargetError::Kind(text.escape_debug().to_string())),
    };
    if exclusive && matches!(target, Target::Name(_) | Target::Immediate) {
        return Err(TargetError::NoSides);
    }
    Ok(RecoveryTarget { target, inclusive: !exclusive })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_read() {
        let read = |text: &str| parse_target(text, false).unwrap().to_string();
        assert_eq!(read("time=2026-11-20 21:04:05.5+02"), "time 2026-11-20 19:04:05.500000+00, inclusive");
        assert_eq!(read("lsn=0/3000148"), "LSN 0/3000148, inclusive");
        assert_eq!(read("xid=4294967999"), "transaction 4294967999, inclusive");
        assert_eq!(read("name=before = 2.0"), "restore point before = 2.0");
        assert_eq!(read("immediate"), "the end of the base backup");
        assert!(!parse_target("lsn=0/1", true).unwrap().inclusive);
    }

    #[test]
    fn a_stop_on_the_wrong_side_is_seen() {
        let fits = |text: &str, exclusive: bool, lsn: u64, last: &str| {
            parse_target(text, exclusive).unwrap().fits(crate::recovery::Lsn(lsn), parse_time(last).ok())
        };
        let at = "time=2026-11-20 21:04:05+00";
        assert!(fits(at, false, 0, "2026-11-20 21:04:05+00") && !fits(at, true, 0, "2026-11-20 21:04:05+00"));
        assert!(fits(at, true, 0, "2026-11-20 21:04:04+00") && !fits(at, false, 0, "2026-11-20 21:04:06+00"));
        assert!(fits(at, false, 0, "no commit"));
        assert!(fits("lsn=0/10", false, 0x11, "") && !fits("lsn=0/10", false, 0x10, ""));
        assert!(fits("lsn=0/10", true, 0x10, ""));
    }

    #[test]
    fn what_is_no_target_is_refused_with_how_to_write_it() {
        for text in
            ["", "latest", "time", "Time=x", "lsn=3000", "xid=-1", "xid=2", "xid=1e3", "name=", "name=a\nb", "time=2026-11-20 21:04:05"]
        {
            assert!(parse_target(text, false).is_err(), "{text:?}");
        }
        assert!(parse_target(&format!("name={}", "ü".repeat(32)), false).is_err(), "64 bytes");
        assert_eq!(parse_target("immediate", true), Err(TargetError::NoSides));
        assert_eq!(parse_target("name=x", true), Err(TargetError::NoSides));
    }
}
