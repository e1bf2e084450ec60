//! The command line: arguments in, text and exit codes out. It prints; nothing below it does.

mod clean;
mod compare;
mod doctor;
mod features;
mod lint;
mod plan;
mod refused;
mod restore;
mod run;
mod runner;
mod signals;
mod snapshot;
mod view;
mod vocabulary;

use clap::{Parser, Subcommand};
use owo_colors::OwoColorize;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

/// The exit codes, as documented in the README.
pub mod exit {
    /// GO, equal, or nothing found.
    pub const OK: u8 = 0;
    /// Usage or preflight: nothing was started.
    pub const USAGE: u8 = 2;
    /// It was not shown either way.
    pub const INCONCLUSIVE: u8 = 3;
    /// No scenario to run.
    pub const NO_SCENARIO: u8 = 4;
    /// Ended by SIGINT or SIGTERM.
    pub const INTERRUPTED: u8 = 130;
}

/// Proves that a PostgreSQL release can be turned back, in code and in data, before anyone needs it.
#[derive(Debug, Parser)]
#[command(
    name = "turnback",
    version,
    max_term_width = 100,
    after_help = "Exit codes: 0 GO · 1 NO-GO · 2 usage or preflight · 3 inconclusive · 4 no scenario · 5 evidence invalid · 130 interrupted"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run drills: the shipped data rollback, or the feature files named
    Run(run::Args),
    /// Print the plan of a rollback, or of a restore (--backup), touching nothing
    Plan(plan::Args),
    /// Restore an existing backup and WAL archive on a scratch server, prove where replay stopped, and compare
    Restore(restore::Args),
    /// Record a database's schema and every row, to compare with later
    Snapshot(snapshot::Args),
    /// Compare two databases or snapshots: exit 0 equal, 1 different
    Compare(compare::Args),
    /// Check feature files without running them
    Lint(lint_command::Args),
    /// Print every step that a scenario may use, with an example
    Vocabulary(vocabulary::Args),
    /// Check this machine: programs, versions, space, ports, permissions
    Doctor(doctor::Args),
    /// Remove what an interrupted drill left
    Clean(clean::Args),
    /// The sample application, in a process of its own
    #[command(hide = true, name = "orders")]
    Orders {
        /// Handed on to the application.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
}

/// Options that say where a local platform lives.
#[derive(Clone, Debug, clap::Args)]
pub struct Place {
    /// Where the platform keeps its servers while it runs (default: below the system's temporary directory)
    #[arg(long, value_name = "DIR", env = "TURNBACK_WORK")]
    pub work: Option<PathBuf>,
    /// The directory of PostgreSQL's server programs (default: the newest supported one found)
    #[arg(long, value_name = "DIR", env = "TURNBACK_PG_BIN")]
    pub pg_bin: Option<PathBuf>,
}

impl Place {
    /// The work root, absolute: PostgreSQL's programs run in a directory of their own.
    pub fn root(&self) -> PathBuf {
        let root = self.work.clone().unwrap_or_else(turnback::platform::local::workdir::default_root);
        std::path::absolute(&root).unwrap_or(root)
    }
}

/// An error as people see it: what happened and what to do next.
pub fn complain(error: &(dyn std::error::Error + 'static)) {
    say_error(&turnback::workflow::chain(error));
}

/// The same for what is no error value.
pub fn say_error(message: &str) {
    anstream::eprintln!("{} {message}", "error:".red().bold());
}

/// The command line that does the same again: from where, with the settings that came from the environment, and what was typed.
pub fn again() -> String {
    let quoted = |text: std::borrow::Cow<'_, str>| {
        let plain = !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_./=:,@+".contains(c));
        if plain { text.into_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
    };
    let mut parts = Vec::new();
    if let Ok(directory) = std::env::current_dir() {
        parts.push(format!("cd {} &&", quoted(directory.to_string_lossy())));
    }
    for name in ["TURNBACK_WORK", "TURNBACK_PG_BIN"] {
        if let Some(value) = std::env::var_os(name).filter(|value| !value.is_empty()) {
            parts.push(format!("{name}={}", quoted(value.to_string_lossy())));
        }
    }
    parts.extend(std::env::args_os().map(|argument| quoted(argument.to_string_lossy())));
    parts.join(" ")
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()
}

fn tell(json: bool, outcome: Result<(String, u8), turnback::database::DatabaseError>) -> u8 {
    match outcome {
        Ok((text, code)) => {
            anstream::print!("{text}");
            code
        }
        Err(error) => {
            if json {
                return refused::Refused::new("database", &error).tell(true);
            }
            complain(&error);
            exit::USAGE
        }
    }
}

/// Reads the arguments, runs the command and turns its outcome into an exit code.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Command::Orders { args } = cli.command {
        return orders::main_from(std::iter::once(OsString::from("orders")).chain(args));
    }
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(&error);
            return ExitCode::from(exit::INCONCLUSIVE);
        }
    };
    let code = runtime.block_on(async {
        match cli.command {
            Command::Run(args) => run::run(args).await,
            Command::Restore(args) => restore::run(args).await,
            Command::Plan(args) => match args.restore() {
                Some(given) => restore::plan(given).await,
                None => plan::run(&args),
            },
            Command::Snapshot(args) => tell(args.json, snapshot::run(&args).await.map(|(_, text)| (text, exit::OK))),
            Command::Compare(args) => tell(args.json, compare::run(&args).await.map(|outcome| (outcome.text.clone(), outcome.exit_code()))),
            Command::Lint(args) => lint_command::run(&args),
            Command::Vocabulary(args) => vocabulary::run(&args),
            Command::Doctor(args) => doctor::run(&args).await,
            Command::Clean(args) => clean::run(&args).await,
            Command::Orders { .. } => exit::USAGE,
        }
    });
    // Nothing that still runs in the background may hold up the end.
    runtime.shutdown_background();
    ExitCode::from(code)
}

mod lint_command {
    //! `turnback lint`.

    use super::refused::Refused;
    use super::{exit, features, lint};
    use owo_colors::OwoColorize;
    use std::path::PathBuf;

    #[derive(Debug, clap::Args)]
    pub struct Args {
        /// Feature files, directories of them, or shipped features by name
        #[arg(required = true, value_name = "FEATURE")]
        features: Vec<PathBuf>,
        /// Print findings as JSON
        #[arg(long)]
        json: bool,
    }

    pub fn run(args: &Args) -> u8 {
        let (sources, collection) = match (features::load(&args.features), crate::steps::vocabulary::self_test()) {
            (Ok(sources), Ok(collection)) => (sources, collection),
            (Err(error), _) => return Refused::new("feature", &error).tell(args.json),
            (_, Err(message)) => return Refused::said("preflight", message).tell(args.json),
        };
        let linted = lint::lint_all(&sources, &collection);
        let scenarios = linted.scenarios.len();
        let code = if linted.errors.is_empty() { exit::OK } else { exit::USAGE };
        let mut findings = linted.errors;
        findings.extend(linted.warnings);
        if args.json {
            anstream::println!("{}", serde_json::json!({ "exit": code, "scenarios": scenarios, "findings": findings }));
        } else {
            for finding in &findings {
                anstream::println!("{finding}");
            }
            if code == exit::OK {
                let (files, s) = (sources.len(), if sources.len() == 1 { "" } else { "s" });
                anstream::println!(
                    "{} {scenarios} scenario{} in {files} file{s}, every step defined",
                    "✔".green(),
                    if scenarios == 1 { "" } else { "s" }
                );
            }
        }
        code
    }
}
