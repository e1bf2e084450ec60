//! Recovery as PostgreSQL itself shows it over SQL: where a server stands, recovery points, and where a paused replay stopped. The same on every
//! platform.
//!
//! It reads and writes through a database connection only. It knows nothing about files, processes or clusters.

mod loss;
mod observe;
mod paused;
mod point;

pub use loss::{Lost, commits_after};
pub use observe::{ObserveError, Observer, Position, Sealed, seal};
pub use paused::{ReplayStatus, Watch};
pub use point::{Cut, PointError, PointRequest, Recorded, record_point};
