//! Where a transaction or a restore point lies in archived WAL, and what lies near it where it is not there.
//!
//! It reads with `pg_waldump`, line by line, and knows nothing about restores.

use super::programs::args;
use super::{Account, Archive, FoundError, Programs, Reach};
use std::collections::BTreeSet;
use std::time::Duration;
use turnback_core::recovery::{BaseBackup, Lsn, Target};

/// How long reading the archive may take; a target not found by then is left to replay.
const LIMIT: Duration = Duration::from_secs(300);
/// How many names are remembered.
const NAMES: usize = 10_000;
/// How many are told.
const TOLD: usize = 3;

/// What a search found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sought {
    /// It is there.
    At(Lsn),
    /// It is nowhere from the backup's beginning to the end of the archive, or to the first gap in it; these are the nearest that are.
    Nowhere {
        /// In words, the nearest first.
        near: Vec<String>,
    },
    /// Nobody can tell before replay.
    Unknown,
}

/// Looks for a transaction or a restore point from the backup's beginning on; every other kind of target is [`Sought::Unknown`] here.
///
/// # Errors
/// [`FoundError`] where the archive cannot be read.
pub async fn seek(
    programs: &Programs,
    archive: &Archive,
    backup: &BaseBackup,
    reach: &Reach,
    target: &Target,
) -> Result<Sought, FoundError> {
    let (manager, search) = match target {
        Target::Name(name) => ("XLOG", Search::Name { wanted: name.clone(), known: BTreeSet::new(), at: None }),
        // The WAL holds the low half of the id.
        Target::Xid(xid) => ("Transaction", Search::Xid { wanted: *xid as u32, below: None, above: None, at: None }),
        Target::Time(_) | Target::Lsn(_) | Target::Immediate => return Ok(Sought::Unknown),
    };
    let segments = &reach.facts.segments;
    let (Some(first), Some(last)) = (segments.first(), segments.last()) else { return Ok(Sought::Unknown) };
    // Segments of a later timeline have other names, and pg_waldump does not go from one timeline to the next.
    if segments.iter().any(|name| !archive.dir().join(name).is_file()) {
        return Ok(Sought::Unknown);
    }
    let account = Account::current();
    let call = args([&format!("--rmgr={manager}"), &archive.dir().join(first), &archive.dir().join(last)]);
    let Ok(search) = programs.scan(&account, "pg_waldump", &call, LIMIT, search, Search::next).await else { return Ok(Sought::Unknown) };
    if let Some(at) = search.at() {
        return Ok(Sought::At(at));
    }
    if reach.gap.is_some() {
        return Ok(Sought::Nowhere { near: search.near() });
    }
    // Behind damage there may be more: replay says which segment it is.
    let fault = archive.check(programs, &account, backup.timeline, backup.begin_lsn, None, LIMIT).await;
    Ok(if matches!(fault, Ok(None)) { Sought::Nowhere { near: search.near() } } else { Sought::Unknown })
}

enum Search {
    Name { wanted: String, known: BTreeSet<String>, at: Option<Lsn> },
    Xid { wanted: u32, below: Option<u32>, above: Option<u32>, at: Option<Lsn> },
}

impl Search {
    /// Takes in a line of `pg_waldump`; `false` once there is nothing more to look for.
    fn next(&mut self, line: &str) -> bool {
        let Some((record, description)) = line.split_once("desc: ") else { return true };
        let lsn = || record.split_once("lsn: ")?.1.split(',').next()?.trim().parse::<Lsn>().ok();
        match self {
            Self::Name { wanted, known, at } => {
                let Some(name) = description.strip_prefix("RESTORE_POINT ") else { return true };
                if name == wanted.as_str() {
                    *at = lsn();
                } else if known.len() < NAMES {
                    known.insert(name.to_owned());
                }
                at.is_none()
            }
            Self::Xid { wanted, below, above, at } => {
                // Replay stops at commits and aborts, prepared ones included.
                if !description.starts_with("COMMIT") && !description.starts_with("ABORT") {
                    return true;
                }
                let own = record.split_once("tx:").and_then(|(_, rest)| rest.split(',').next()?.trim().parse::<u32>().ok());
                let prepared =
                    description.split_once("_PREPARED ").and_then(|(_, rest)| rest.split(':').next()?.trim().parse::<u32>().ok());
                if let Some(xid) = prepared.or(own).filter(|xid| *xid >= 3) {
                    if xid == *wanted {
                        *at = lsn();
                    } else if (xid.wrapping_sub(*wanted) as i32) < 0 {
                        *below = Some(below.map_or(xid, |known| if (xid.wrapping_sub(known) as i32) > 0 { xid } else { known }));
                    } else {
                        *above = Some(above.map_or(xid, |known| if (xid.wrapping_sub(known) as i32) < 0 { xid } else { known }));
                    }
                }
                at.is_none()
            }
        }
    }

    fn at(&self) -> Option<Lsn> {
        match self {
            Self::Name { at, .. } | Self::Xid { at, .. } => *at,
        }
    }

    fn near(&self) -> Vec<String> {
        match self {
            Self::Name { wanted, known, .. } => {
                let mut near: Vec<_> = known.iter().map(|name| (strsim::damerau_levenshtein(name, wanted), name)).collect();
                near.sort();
                near.into_iter().take(TOLD).map(|(_, name)| format!("“{name}”")).collect()
            }
            Self::Xid { below, above, .. } => [below, above].into_iter().flatten().map(u32::to_string).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DUMP: &str = "\
rmgr: XLOG        len (rec/tot):     98/    98, tx:          0, lsn: 0/03000110, prev 0/030000A0, desc: RESTORE_POINT before the release
rmgr: XLOG        len (rec/tot):     98/    98, tx:          0, lsn: 0/03000120, prev 0/030000A0, desc: RESTORE_POINT nightly
rmgr: Transaction len (rec/tot):     46/    46, tx:        735, lsn: 0/030001D8, prev 0/030001A0, desc: COMMIT 2026-11-21 00:25:34.123456 UTC
rmgr: Transaction len (rec/tot):     34/    34, tx:        736, lsn: 0/03000210, prev 0/030001D8, desc: ABORT 2026-11-21 00:25:34.223456 UTC
rmgr: Transaction len (rec/tot):     82/    82, tx:          0, lsn: 0/03000340, prev 0/03000240, desc: COMMIT_PREPARED 740: 2026-11-21 00:25:36.25 UTC
rmgr: Transaction len (rec/tot):     82/    82, tx:        750, lsn: 0/03000380, prev 0/03000240, desc: PREPARE gid x: 2026-11-21 00:25:36.25 UTC
";

    fn sought(mut search: Search) -> Search {
        let _all_read = DUMP.lines().all(|line| search.next(line));
        search
    }

    fn xid(wanted: u64) -> Search {
        sought(Search::Xid { wanted: wanted as u32, below: None, above: None, at: None })
    }

    fn name(wanted: &str) -> Search {
        sought(Search::Name { wanted: wanted.into(), known: BTreeSet::new(), at: None })
    }

    #[test]
    fn what_is_there_is_found_where_it_is() {
        for (search, at) in
            [(name("nightly"), "0/3000120"), (xid(735), "0/30001D8"), (xid(736 + (7 << 32)), "0/3000210"), (xid(740), "0/3000340")]
        {
            assert_eq!(search.at().unwrap().to_string(), at);
        }
    }

    #[test]
    fn what_is_not_there_has_neighbours() {
        assert_eq!((name("before the relaese").at(), name("before the relaese").near()[0].as_str()), (None, "“before the release”"));
        assert_eq!((xid(738).at(), xid(738).near()), (None, vec!["736".to_owned(), "740".to_owned()]));
        // Prepared is not committed.
        assert_eq!((xid(750).at(), xid(750).near()), (None, vec!["740".to_owned()]));
    }
}
