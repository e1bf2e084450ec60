//! Positions in time and in the WAL, read and written the way PostgreSQL does.

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;

/// PostgreSQL's default size of a WAL segment.
pub const SEGMENT_BYTES_DEFAULT: u64 = 16 * 1024 * 1024;

/// A position in the WAL (`pg_lsn`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

/// What can be wrong with a position that a person wrote.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PositionError {
    /// Not `X/X` in hexadecimal.
    #[error("“{0}” is not an LSN: write it as PostgreSQL prints it, for example 0/3000148")]
    Lsn(String),
    /// A time that could be read only with an offset.
    #[error(
        "the time “{0}” has no offset from UTC: write it out, for example “{0}+00”, because PostgreSQL and CloudNativePG read a bare time differently"
    )]
    OffsetMissing(String),
    /// Not a time at all.
    #[error("“{0}” is not a time: write it as 2026-11-20 21:04:05.123456+00")]
    Time(String),
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

impl FromStr for Lsn {
    type Err = PositionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let part = |half: &str| {
            let plain = !half.is_empty() && half.len() <= 8 && half.bytes().all(|b| b.is_ascii_hexdigit());
            plain.then(|| u64::from_str_radix(half, 16).ok()).flatten()
        };
        text.split_once('/')
            .and_then(|(high, low)| Some(Self(part(high)? << 32 | part(low)?)))
            .ok_or_else(|| PositionError::Lsn(text.to_owned()))
    }
}

impl Serialize for Lsn {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Lsn {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The file name of the segment that holds the byte at `lsn`.
#[must_use]
pub fn segment_name(timeline: u32, lsn: Lsn, segment_bytes: u64) -> String {
    let number = lsn.0 / segment_bytes;
    let per_id = 0x1_0000_0000 / segment_bytes;
    format!("{timeline:08X}{:08X}{:08X}", number / per_id, number % per_id)
}

pub(super) fn parse_time(text: &str) -> Result<Timestamp, PositionError> {
    let text = text.trim();
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    if text.parse::<jiff::civil::DateTime>().is_ok() {
        return Err(PositionError::OffsetMissing(text.to_owned()));
    }
    Err(PositionError::Time(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_lsn_reads_as_it_prints() {
        for text in ["0/0", "0/3000148", "16/B374D848", "FFFFFFFF/FFFFFFFF"] {
            assert_eq!(text.parse::<Lsn>().unwrap().to_string(), text);
        }
        for text in ["", "/", "0", "0/", "0/G", "0/+1", "123456789/0", "0/0/0"] {
            assert!(text.parse::<Lsn>().is_err(), "{text}");
        }
    }

    #[test]
    fn segments_are_named_as_postgresql_names_them() {
        let at = |lsn: &str| segment_name(1, lsn.parse().unwrap(), SEGMENT_BYTES_DEFAULT);
        assert_eq!(at("0/3000148"), "000000010000000000000003");
        assert_eq!(at("1/FF000000"), "0000000100000001000000FF");
        assert_eq!(segment_name(2, "0/300000".parse().unwrap(), 1 << 20), "000000020000000000000003");
    }

    #[test]
    fn a_time_must_name_its_offset() {
        let instant = parse_time("2026-11-20 21:04:05.123456+00").unwrap();
        assert_eq!(parse_time("2026-11-20T23:04:05.123456+02:00").unwrap(), instant);
        assert_eq!(parse_time("2026-11-20T21:04:05.123456Z").unwrap(), instant);
        assert!(matches!(parse_time("2026-11-20 21:04:05"), Err(PositionError::OffsetMissing(_))));
        assert!(matches!(parse_time("yesterday"), Err(PositionError::Time(_))));
    }

    #[test]
    fn the_hour_that_occurs_twice_is_told_apart_by_its_offset() {
        let summer = parse_time("2026-10-25 02:30:00+02").unwrap();
        let winter = parse_time("2026-10-25 02:30:00+01").unwrap();
        assert_eq!(winter.as_second() - summer.as_second(), 3600);
    }
}
