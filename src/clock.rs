//! The one place that reads the wall clock. Evidence times are UTC and come from here; durations are monotonic and do not.

use jiff::Timestamp;

/// The time now, to the microsecond, in UTC.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the clock that the rest uses")]
pub fn now() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now)
}
