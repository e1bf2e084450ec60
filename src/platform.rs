//! Where a drill runs.

pub mod local;
