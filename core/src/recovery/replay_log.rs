//! What PostgreSQL's own log says about a recovery: where it began, why it stopped, how far it came.
//!
//! It reads text and knows nothing about where the text comes from: a file of this machine or the log of a Kubernetes Job.

use super::{Lsn, parse_time};
use jiff::Timestamp;

/// A recovery as its log tells it. What the log does not say is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplayLog {
    /// “recovery stopping before commit of transaction 742, time …”: only a target that was reached makes PostgreSQL say so.
    pub stopping: Option<String>,
    /// Where the last replayed record begins (“redo done at 0/40001A8”).
    pub last_record: Option<Lsn>,
    /// When the last replayed transaction was committed.
    pub last_completed: Option<Timestamp>,
    /// The timeline that the promotion began.
    pub new_timeline: Option<u32>,
    /// The first fatal line, without those that only say that the server is starting.
    pub fatal: Option<String>,
}

impl ReplayLog {
    /// Reads a log in PostgreSQL's usual form, with any prefix before `LOG:` and `FATAL:`.
    #[must_use]
    pub fn read(log: &str) -> Self {
        let mut seen = Self::default();
        for line in log.lines() {
            let text = ["LOG:", "FATAL:", "PANIC:"].iter().find_map(|level| line.split_once(level)).map_or(line, |(_, text)| text).trim();
            if text.starts_with("recovery stopping") {
                seen.stopping = Some(text.to_owned());
            } else if let Some(rest) = text.strip_prefix("redo done at ") {
                seen.last_record = first_word(rest).parse().ok().or(seen.last_record);
            } else if let Some(rest) = text.strip_prefix("last completed transaction was at log time ") {
                seen.last_completed = parse_time(rest).ok();
            } else if let Some(rest) = text.strip_prefix("selected new timeline ID: ") {
                seen.new_timeline = first_word(rest).parse().ok();
            } else if (line.contains("FATAL:") || line.contains("PANIC:")) && seen.fatal.is_none() && !passing(text) {
                seen.fatal = Some(text.to_owned());
            }
        }
        seen
    }
}

fn first_word(text: &str) -> &str {
    text.split_whitespace().next().unwrap_or_default()
}

/// What every server says to those who knock too early or too late.
fn passing(text: &str) -> bool {
    ["the database system is starting up", "the database system is not yet accepting connections", "the database system is shutting down"]
        .iter()
        .any(|known| text.starts_with(known))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recovery_to_its_target_tells_where_it_stopped() {
        let log = "\
2026-11-21 00:25:33.981 UTC [1] LOG:  starting point-in-time recovery to 2026-11-21 00:25:31+00
2026-11-21 00:25:33.982 UTC [2] FATAL:  the database system is starting up
2026-11-21 00:25:33.985 UTC [1] LOG:  recovery stopping before commit of transaction 742, time 2026-11-21 00:25:31.5+00
2026-11-21 00:25:33.985 UTC [1] LOG:  redo done at 0/40001A8 system usage: CPU: user: 0.00 s
2026-11-21 00:25:33.985 UTC [1] LOG:  last completed transaction was at log time 2026-11-21 00:25:30.1+00
2026-11-21 00:25:33.986 UTC [1] LOG:  selected new timeline ID: 2
";
        let seen = ReplayLog::read(log);
        assert_eq!(seen.stopping.unwrap(), "recovery stopping before commit of transaction 742, time 2026-11-21 00:25:31.5+00");
        assert_eq!(seen.last_record.unwrap().to_string(), "0/40001A8");
        assert_eq!(seen.last_completed.unwrap().to_string(), "2026-11-21T00:25:30.1Z");
        assert_eq!((seen.new_timeline, seen.fatal), (Some(2), None));
    }

    #[test]
    fn a_recovery_that_ran_out_of_wal_tells_why() {
        let log = "\
redo done at 0/40001A8 system usage: CPU: user: 0.00 s
last completed transaction was at log time 2026-11-21 00:25:30.1+00
FATAL:  recovery ended before configured recovery target was reached
FATAL:  something later
";
        let seen = ReplayLog::read(log);
        assert_eq!(seen.fatal.as_deref(), Some("recovery ended before configured recovery target was reached"));
        assert_eq!((seen.stopping, seen.new_timeline), (None, None));
    }

    #[test]
    fn an_empty_log_says_nothing() {
        assert_eq!(ReplayLog::read(""), ReplayLog::default());
    }
}
