//! Where drills run. Each platform returns observations, never verdicts.

pub mod kind;
pub mod local;
pub mod observation;
