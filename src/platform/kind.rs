//! The kind platform: a real Kubernetes cluster with Flux, CloudNativePG, the Barman Cloud plugin, an S3 and a Git server, thrown away after the
//! drill.
//!
//! These adapters start kind and docker, talk to the cluster's API and observe; they know nothing about scenarios and never judge. They touch only
//! what they made themselves: a cluster that carries this project's marker, and files in the drill's own directory.

pub mod application;
mod apply;
pub mod bucket;
mod client;
pub mod cluster;
pub mod cnpg;
pub mod diagnostics;
mod error;
pub mod flux;
mod flux_state;
pub mod forward;
pub mod image;
pub mod install;
pub mod kit;
mod oci;
pub mod push;
pub mod recovery;
mod recovery_log;
pub mod secrets;

pub use apply::{Applied, apply, documents};
pub use client::{Condition, Kind, KubeClient, Object, condition, conditions, kinds, text};
pub use cluster::{KindCluster, Wanted};
pub use error::KindError;
pub use forward::{Forward, Target};
pub use kit::Kit;
pub use secrets::Secrets;

use std::time::Instant;

/// Milliseconds since a moment.
fn ms(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}
