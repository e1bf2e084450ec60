//! The local platform: real PostgreSQL servers on this machine, a real Git repository, and a small reconciler.

pub mod application;
pub mod reconciler;
