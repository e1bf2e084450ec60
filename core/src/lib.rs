//! The pure heart of Turnback: what a drill is, when a recovery target can be reached, when two databases are equal, what a verdict follows
//! from, and how evidence reads.
//!
//! It knows nothing about tokio, Kubernetes, sqlx, Git, files, sockets, the clock or randomness: whatever it needs to know is handed to it,
//! and whatever it decides is a value.

pub mod comparison;
pub mod drill;
pub mod evidence;
pub mod fingerprint;
pub mod recovery;
pub mod schema;
