//! The record of one drill, and the documents rendered from it: evidence.json, report.md, report.html, junit.xml and the terminal's last lines.
//!
//! One run model, many renderers, all of them to strings. It knows nothing about files, signatures' keys or the terminal's colours.

mod html;
mod junit;
mod markdown;
mod record;
pub mod redact;
#[cfg(test)]
mod samples;
mod statement;
mod terminal;
mod text;

pub use html::html;
pub use junit::junit;
pub use markdown::markdown;
pub use record::*;
pub use statement::{PREDICATE_TYPE, STATEMENT_TYPE, Subject, statement};
pub use terminal::{Line, LineKind, terminal_summary};
pub use text::{duration, plain};
