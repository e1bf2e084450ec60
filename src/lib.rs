//! Turnback's adapters and workflow. `core` decides; these observe and act.

pub mod clock;
pub mod database;
pub mod evidence;
pub mod gitops;
pub mod platform;
pub mod recovery;
pub mod wait;
pub mod workflow;
