//! The record of one drill, and the documents rendered from it: evidence.json, report.md, junit.xml.
//!
//! One run model, many renderers, all of them to strings. It knows nothing about files, signatures' keys or the terminal.

mod record;

pub use record::*;
