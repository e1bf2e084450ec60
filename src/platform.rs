//! Where drills run. Each platform returns observations, never verdicts.

pub mod local;
