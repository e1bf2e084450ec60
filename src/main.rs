//! The `turnback` executable: it only wires the command line to the library and the steps.

mod cli;
#[path = "../steps/mod.rs"]
mod steps;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
