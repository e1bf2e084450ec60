//! Turnback's adapters and workflow. `core` decides; these observe and act.

pub mod clock;
pub mod platform;
pub mod recovery;
pub mod wait;
