//! Joins the adapters to core's drill: what is done in each phase, what is checked, what is recorded.
//!
//! It emits events and prints nothing. It is the only place that knows the platform, Git, the database and the evidence at once; adapters hand
//! it observations, core draws the verdict.

mod change;
mod clean;
mod config;
mod damage;
mod drill;
mod faults;
mod finish;
mod known_good;
mod outcome;
mod platform;
mod restore;
mod restore_drill;
mod revert;
mod verification;

pub use clean::clean;
pub use config::{Config, ConfigError};
pub use drill::{Drill, Settings, StartError};
pub use faults::{Harm, Misstep};
pub use finish::Finished;
pub use outcome::{Failure, Outcome, chain, docstring};
pub use platform::{DatabaseSource, KindSettings, LocalSettings, On, check_database_name, shipped_migrations};
pub use restore_drill::{PrepareError, Prepared, RestoreDrill, RestoreFinished, RestoreSettings, Sources, prepare};

pub use change::Migration;
