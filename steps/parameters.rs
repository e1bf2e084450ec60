//! The typed parameters of the vocabulary. What a sentence may say is decided here, before anything starts.

use cucumber::Parameter;
use std::str::FromStr;
use std::time::Duration;
use turnback_core::recovery::{RecoveryTarget, Target, TargetKind, parse_time};

macro_rules! quoted {
    ($($(#[$doc:meta])* $name:ident = $parameter:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, Parameter)]
        #[param(name = $parameter, regex = r#""(?:[^"\\]|\\.)+""#)]
        pub struct $name(pub String);

        impl FromStr for $name {
            type Err = std::convert::Infallible;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Ok(Self(unquoted(text)))
            }
        }
    )*};
}

/// What stands between quotes: `\"` is a quote and `\\` a backslash; any other backslash is itself.
pub fn unquoted(text: &str) -> String {
    let inner = text.strip_prefix('"').unwrap_or(text);
    let inner = inner.strip_suffix('"').unwrap_or(inner);
    let mut out = String::with_capacity(inner.len());
    let mut rest = inner.chars().peekable();
    while let Some(c) = rest.next() {
        match (c, rest.peek()) {
            ('\\', Some(next @ ('"' | '\\'))) => {
                out.push(*next);
                rest.next();
            }
            _ => out.push(c),
        }
    }
    out
}

/// The first thing between quotes in a step, with its quotes.
pub fn first_quoted(text: &str) -> Option<&str> {
    let from = text.find('"')?;
    let mut escaped = false;
    for (at, c) in text.char_indices().skip_while(|(at, _)| *at <= from) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return text.get(from..=at),
            _ => {}
        }
    }
    None
}

quoted! {
    /// What a scenario calls a known-good state.
    RecoveryPointName = "recovery_point";
    /// A migration's name.
    MigrationName = "migration";
    /// A table, optionally schema-qualified.
    TableName = "table";
    /// A schema object.
    ObjectName = "object";
    /// A file beside the feature file.
    FileName = "file";
    /// A database.
    DatabaseName = "database";
}

/// By what a restore finds its way back.
#[derive(Clone, Copy, Debug, Parameter)]
#[param(name = "target", regex = "time|LSN|transaction|restore point|immediate target")]
pub struct TargetName(pub TargetKind);

impl FromStr for TargetName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(match text {
            "time" => TargetKind::Time,
            "LSN" => TargetKind::Lsn,
            "transaction" => TargetKind::Xid,
            "restore point" => TargetKind::Name,
            "immediate target" => TargetKind::Immediate,
            other => return Err(format!("{other} is no kind of recovery target")),
        }))
    }
}

/// On which side of the target replay stops.
#[derive(Clone, Copy, Debug, Parameter)]
#[param(name = "side", regex = "inclusive|exclusive")]
pub struct Side(pub bool);

impl FromStr for Side {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text == "inclusive"))
    }
}

/// An instant, with its offset from UTC.
#[derive(Clone, Debug, Parameter)]
#[param(name = "instant", regex = r#""\d{4}-\d{2}-\d{2}[^"]*""#)]
pub struct Instant(pub RecoveryTarget);

impl FromStr for Instant {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let time = parse_time(text.trim_matches('"')).map_err(|error| error.to_string())?;
        Ok(Self(RecoveryTarget { target: Target::Time(time), inclusive: true }))
    }
}

/// A length of time: `90 seconds`, `5 minutes`, `250 ms`.
#[derive(Clone, Copy, Debug, Parameter)]
#[param(name = "duration", regex = r"\d+ (?:ms|milliseconds?|seconds?|minutes?|hours?)")]
pub struct Length(pub Duration);

impl FromStr for Length {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (number, unit) = text.split_once(' ').ok_or("a duration is a number and a unit")?;
        let number: u64 = number.parse().map_err(|_| format!("{number} is too long a time"))?;
        let ms = match unit.trim_end_matches('s') {
            "m" | "millisecond" => 1,
            "second" => 1000,
            "minute" => 60_000,
            _ => 3_600_000,
        };
        number.checked_mul(ms).map(|ms| Self(Duration::from_millis(ms))).ok_or_else(|| format!("{text} is too long a time"))
    }
}

/// A number of rows or objects.
#[derive(Clone, Copy, Debug, Parameter)]
#[param(name = "count", regex = r"\d{1,18}")]
pub struct Count(pub u64);

impl FromStr for Count {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

/// How rows differ.
#[derive(Clone, Copy, Debug, Parameter)]
#[param(name = "difference", regex = "inserted|deleted|changed")]
pub struct RowChange(pub turnback_core::comparison::Change);

impl FromStr for RowChange {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        use turnback_core::comparison::Change;
        Ok(Self(match text {
            "inserted" => Change::Added,
            "deleted" => Change::Removed,
            _ => Change::Changed,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_between_quotes_may_hold_quotes() {
        for (text, wanted) in [
            (r#""good""#, "good"),
            (r#""My \"own\" database""#, r#"My "own" database"#),
            (r#""\"all quoted\"""#, r#""all quoted""#),
            (r#""C:\temp""#, r"C:\temp"),
            (r#""a\\""#, r"a\"),
        ] {
            assert_eq!(unquoted(text), wanted);
            assert_eq!(first_quoted(&format!("x {text} and \"more\"")), Some(text));
        }
        assert_eq!(first_quoted("nothing"), None);
        assert_eq!(first_quoted("not \"closed"), None);
    }
}
