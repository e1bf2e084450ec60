//! Turnback's adapters and workflow. `core` decides; these observe and act.

pub mod cli;
pub mod clock;
pub mod database;
pub mod wait;
