//! The fault lane: the real executable, a fault on purpose, and the verdict, code and message that must follow; nothing may be left.
//!
//! A drill that has only ever been green proves nothing.

#[path = "drill/refusals.rs"]
mod refusals;
#[path = "drill/restores.rs"]
mod restores;
#[path = "drill/signals.rs"]
mod signals;
#[path = "drill/support.rs"]
mod support;
#[path = "drill/verdicts.rs"]
mod verdicts;
