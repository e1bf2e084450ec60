//! Turnback's adapters and workflow. `core` decides; these observe and act.

pub mod clock;
pub mod gitops;
pub mod platform;
pub mod wait;
