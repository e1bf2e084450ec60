//! Turnback's adapters and workflow. `core` decides; these observe and act.

pub mod clock;
pub mod evidence;
pub mod wait;
