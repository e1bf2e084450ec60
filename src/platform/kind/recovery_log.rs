//! The log of CNPG's recovery Job, read line by line: where replay stopped, and what ended it. Pure: lines in, facts out.

use jiff::Timestamp;
use serde_json::Value;
use turnback_core::recovery::{Lsn, parse_time};

/// No more of the log is kept than this: replay of a long archive writes a line for each segment.
const LONGEST: usize = 2 * 1024 * 1024;

/// What the log has said so far.
#[derive(Clone, Debug, Default)]
pub struct RecoveryLog {
    /// Its lines, PostgreSQL's unwrapped.
    pub text: String,
    /// “starting point-in-time recovery to …”.
    pub starting: Option<String>,
    /// “recovery stopping before commit of transaction …”.
    pub stopping: Option<String>,
    /// “last completed transaction was at log time …”: the line and the time in it.
    pub last_completed: Option<(String, Option<Timestamp>)>,
    /// “redo done at …”.
    pub redo_done: Option<Lsn>,
    /// What PostgreSQL ended with.
    pub fatal: Option<String>,
    /// The last error of CNPG's or the plugin's own.
    pub last_error: Option<String>,
    /// When the first line came, by the node's clock.
    pub began: Option<Timestamp>,
    /// When PostgreSQL started, with the backup in place.
    pub started: Option<Timestamp>,
    /// When replay was over.
    pub replayed: Option<Timestamp>,
}

impl RecoveryLog {
    /// Takes a line with the time when it was written. A line that was read before must not come again.
    pub fn take(&mut self, at: Timestamp, line: &str) {
        self.began.get_or_insert(at);
        let parsed: Value = serde_json::from_str(line).unwrap_or(Value::Null);
        let of = |pointer: &str| parsed.pointer(pointer).and_then(Value::as_str);
        if let Some(message) = of("/record/message") {
            let severity = of("/record/error_severity").unwrap_or("LOG");
            let detail = of("/record/detail").filter(|detail| !detail.is_empty()).map(|detail| format!(" ({detail})")).unwrap_or_default();
            let own = !matches!(of("/record/backend_type"), Some("client backend"));
            self.push(at, &format!("{severity}:  {message}{detail}"));
            self.postgres(at, severity, &format!("{message}{detail}"), own);
        } else if let Some(message) = of("/msg") {
            let error = ["/error", "/err"].iter().find_map(|pointer| of(pointer)).map(|error| format!(": {error}")).unwrap_or_default();
            self.push(at, &format!("{}: {message}{error}", of("/level").unwrap_or("info")));
            if of("/level") == Some("error") {
                self.last_error = Some(format!("{message}{error}"));
            }
        } else {
            self.push(at, line);
        }
    }

    fn postgres(&mut self, at: Timestamp, severity: &str, message: &str, own: bool) {
        if message.starts_with("starting ") && message.contains("recovery") {
            self.started.get_or_insert(at);
            self.starting = Some(message.to_owned());
        } else if message.starts_with("recovery stopping") {
            self.stopping = Some(message.to_owned());
        } else if let Some(time) = message.strip_prefix("last completed transaction was at log time ") {
            self.last_completed = Some((message.to_owned(), parse_time(time).ok()));
        } else if let Some(rest) = message.strip_prefix("redo done at ") {
            self.redo_done = rest.split_whitespace().next().and_then(|lsn| lsn.parse().ok());
            self.replayed = Some(at);
        } else if message.starts_with("archive recovery complete") {
            self.replayed = Some(at);
        }
        // A client that comes too early is told so with a FATAL; only the server's own ends the recovery.
        let passing = message.contains("the database system is") || message.contains("terminating connection");
        if own && matches!(severity, "FATAL" | "PANIC") && !passing {
            self.fatal.get_or_insert_with(|| format!("{severity}:  {message}"));
        }
    }

    fn push(&mut self, at: Timestamp, line: &str) {
        if self.text.len() < LONGEST {
            self.text += &format!("{at} {line}\n");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_763_700_000 + second).unwrap()
    }

    fn record(severity: &str, backend: &str, message: &str) -> String {
        serde_json::json!({ "level": "info", "logger": "postgres", "msg": "record",
            "record": { "error_severity": severity, "backend_type": backend, "message": message } })
        .to_string()
    }

    #[test]
    fn the_place_where_replay_stopped_is_read() {
        let mut log = RecoveryLog::default();
        log.take(at(0), r#"{"level":"info","msg":"Restore through plugin detected, proceeding..."}"#);
        log.take(at(3), &record("LOG", "startup", "starting point-in-time recovery to 2026-11-21 03:04:05.123456+00"));
        log.take(at(4), &record("FATAL", "client backend", "the database system is starting up"));
        log.take(at(5), &record("LOG", "startup", "recovery stopping before commit of transaction 745, time 2026-11-21 03:04:05.2+00"));
        log.take(at(5), &record("LOG", "startup", "redo done at 0/5000110 system usage: CPU: user: 0.00 s"));
        log.take(at(5), &record("LOG", "startup", "last completed transaction was at log time 2026-11-21 03:04:05.100001+00"));
        log.take(at(6), &record("LOG", "startup", "archive recovery complete"));
        assert!(log.fatal.is_none() && log.stopping.as_deref().is_some_and(|line| line.contains("745")));
        assert_eq!(log.last_completed.clone().unwrap().1.unwrap().to_string(), "2026-11-21T03:04:05.100001Z");
        assert_eq!(log.redo_done.unwrap().to_string(), "0/5000110");
        assert_eq!((log.began, log.started, log.replayed), (Some(at(0)), Some(at(3)), Some(at(6))));
        assert!(log.text.contains("LOG:  recovery stopping"));
    }

    #[test]
    fn the_servers_own_fatal_is_the_end_and_nobody_elses() {
        let mut log = RecoveryLog::default();
        log.take(at(0), &record("FATAL", "not initialized", "the database system is not yet accepting connections"));
        assert!(log.fatal.is_none());
        log.take(at(1), &record("FATAL", "startup", "recovery ended before configured recovery target was reached"));
        assert_eq!(log.fatal.as_deref(), Some("FATAL:  recovery ended before configured recovery target was reached"));
        log.take(at(2), r#"{"level":"error","msg":"while restoring","error":"exit status 1"}"#);
        assert_eq!(log.last_error.as_deref(), Some("while restoring: exit status 1"));
    }
}
