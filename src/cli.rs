//! The commands: arguments in, a typed outcome and its text out. Only this module and `main` print.

pub mod compare;
pub mod snapshot;
