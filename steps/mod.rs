//! The Gherkin vocabulary, compiled into the executable.
//!
//! Steps translate sentences into calls of the workflow and nothing else: no logic, no client, no wait. They live in the executable, not in a
//! library crate, because step definitions register themselves at link time and a linker may drop them from a library it thinks unused.

mod faults;
mod given;
pub mod parameters;
mod then;
pub mod vocabulary;
mod when;
mod world;

pub use world::DrillWorld;
