//! The sample application as a process of its own on this machine: start it, look at it, use it, stop it.
//!
//! It returns what it saw and judges nothing. It knows nothing about Git and about how its database came to be.

mod log;
mod traffic;

pub use crate::platform::observation::Observation;
pub use traffic::{Acknowledged, Traffic, TrafficSummary, place};

use crate::platform::observation;
use crate::wait::{Poll, Wait, WaitError};
use log::LogFile;
use rustix::process::{Pid, Signal, kill_process};
use std::ffi::OsString;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

const STARTED: Duration = Duration::from_secs(10);
const STOPPED: Duration = Duration::from_secs(5);
const KILLED: Duration = Duration::from_secs(5);

/// How programs of the application are started.
#[derive(Clone, Debug)]
pub struct Launcher {
    /// The program and its first arguments: the `orders` executable, or an executable that carries it and the name of its sub-command.
    pub command: Vec<OsString>,
    /// User and group id of the process; `None` keeps the caller's. Only root can set others.
    pub account: Option<(u32, u32)>,
}

/// What a start of the application needs to know.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How it is started.
    pub launcher: Launcher,
    /// Where its log goes.
    pub run_directory: PathBuf,
    /// A port of one's own choice; `None` takes any free one.
    pub port: Option<u16>,
    /// Whether the application runs at all; a database of one's own has none.
    pub serve: bool,
}

/// Why the application cannot be started, looked at or stopped.
#[derive(Debug, thiserror::Error)]
pub enum ApplicationError {
    /// Something else listens there.
    #[error("port {0} is in use on 127.0.0.1; choose another, or none to take any free one")]
    PortInUse(u16),
    /// The program cannot be started.
    #[error("cannot start the application with {}: {source}", program.display())]
    Start {
        /// The program.
        program: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The process ended before it answered.
    #[error("the application ended before it answered ({status}); its log {} ends with: {last}", log.display())]
    Ended {
        /// How it ended.
        status: String,
        /// Its log.
        log: PathBuf,
        /// The last line of its log.
        last: String,
    },
    /// Its log cannot be written or read.
    #[error("cannot use the application's log {}: {source}", log.display())]
    Log {
        /// The log.
        log: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The HTTP client cannot be made.
    #[error("cannot make an HTTP client: {0}")]
    Client(reqwest::Error),
    /// A deadline passed.
    #[error(transparent)]
    TimedOut(Box<WaitError<ApplicationError>>),
    /// The order was refused, or not answered in time.
    #[error("the application did not take the order: {0}")]
    Order(String),
}

/// A running application.
pub struct Application {
    handle: duct::Handle,
    pid: Pid,
    start_ticks: u64,
    address: String,
    version: String,
    database: String,
    log: LogFile,
    client: reqwest::Client,
    /// Whether the process may outlive this value.
    detached: bool,
}

impl Drop for Application {
    fn drop(&mut self) {
        // Only an interrupted start or a broken drill gets here with the process still running.
        if !self.detached && matches!(self.handle.try_wait(), Ok(None)) {
            let _ = self.handle.kill();
        }
    }
}

impl Application {
    /// Starts `version` against a database and waits until it answers. `database` is the Cluster's name, `url` its connection URL, which is
    /// handed over in the environment and never repeated.
    ///
    /// # Errors
    /// When the port is taken, the program cannot be started, or it ends or stays silent.
    pub async fn start(settings: &Settings, version: &str, database: &str, url: &str) -> Result<Self, ApplicationError> {
        let port = settings.port.unwrap_or(0);
        if port != 0 && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_err_and(|e| e.kind() == std::io::ErrorKind::AddrInUse) {
            return Err(ApplicationError::PortInUse(port));
        }
        let log = LogFile::create(&settings.run_directory)?;
        let expression = settings
            .launcher
            .expression(&["serve"], url)
            .env("LISTEN", format!("127.0.0.1:{port}"))
            .env("ORDERS_VERSION", version)
            // Its directory tells `turnback clean` whose it is, also before it is recorded.
            .dir(&settings.run_directory)
            .stdin_null()
            // The outer redirection comes first: standard error must follow standard output into the log, not the caller's.
            .stderr_to_stdout()
            .stdout_path(log.path())
            .unchecked();
        let handle = expression.start().map_err(|source| ApplicationError::Start { program: settings.launcher.program(), source })?;
        let pid = handle.pids().first().and_then(|pid| Pid::from_raw(i32::try_from(*pid).ok()?));
        let Some(pid) = pid else {
            let source = std::io::Error::other("the system named no process");
            return Err(ApplicationError::Start { program: settings.launcher.program(), source });
        };
        let client = observation::http_client(true).map_err(ApplicationError::Client)?;
        let start_ticks = start_ticks(pid).unwrap_or(0);
        let (version, database) = (version.to_owned(), database.to_owned());
        let mut this = Self { handle, pid, start_ticks, address: String::new(), version, database, log, client, detached: false };
        match this.answering().await {
            Ok(address) => this.address = address,
            Err(error) => {
                // The reason is the error that is returned; a process that cannot be ended either is named in the run directory's records.
                let _ = this.stop().await;
                return Err(error);
            }
        }
        Ok(this)
    }

    async fn answering(&self) -> Result<String, ApplicationError> {
        let look = async || {
            if let Ok(Some(output)) = self.handle.try_wait() {
                let (status, last) = (output.status.to_string(), self.log.last_line());
                return Err(ApplicationError::Ended { status, log: self.log.path().to_owned(), last });
            }
            Ok(match self.log.listening() {
                None => Poll::NotYet("its log names no address yet".to_owned()),
                Some(address) => match self.client.get(format!("http://{address}/metrics")).send().await {
                    Ok(_) => Poll::Ready(address),
                    Err(error) => Poll::NotYet(error.without_url().to_string()),
                },
            })
        };
        Wait::new("the application answers", STARTED).until(look).await.map_err(ended)
    }

    /// Lets the process outlive this value.
    pub const fn detach(&mut self) {
        self.detached = true;
    }

    /// Its process id, for the record that `turnback clean` reads.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// When its process started, in clock ticks since boot as /proc/PID/stat has it: together with the pid it names one process for ever.
    #[must_use]
    pub const fn start_ticks(&self) -> u64 {
        self.start_ticks
    }

    /// Where it listens: `127.0.0.1:port`.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The release that was started.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The name of the database Cluster that it was started against.
    #[must_use]
    pub fn database(&self) -> &str {
        &self.database
    }

    /// Its log.
    #[must_use]
    pub fn log(&self) -> &std::path::Path {
        self.log.path()
    }

    /// Looks at health, metrics and log, once.
    pub async fn observe(&self) -> Observation {
        let mut seen = observation::look(&self.client, &self.address).await;
        // Looking may itself make the application write an error line.
        seen.log_errors = self.log.new_errors();
        seen
    }

    /// Places an order for a catalogue entry and returns its id once the application says that it is committed.
    ///
    /// # Errors
    /// When it is refused or not answered in time.
    pub async fn place_order(&self, product: i64) -> Result<i64, ApplicationError> {
        traffic::place(&self.client, &self.address, product).await.map_err(ApplicationError::Order)
    }

    /// Ends the process: asks it to (SIGTERM), and kills it when it does not within five seconds. A process that ended before is fine.
    ///
    /// # Errors
    /// When it does not even end after SIGKILL.
    pub async fn stop(&self) -> Result<(), ApplicationError> {
        // The pid stays the child's own until `gone` reaps it, so no other process can be hit; one that has ended needs no signal.
        if self.gone() {
            return Ok(());
        }
        let _ = kill_process(self.pid, Signal::TERM);
        if self.wait_gone("the application ends after SIGTERM", STOPPED).await.is_ok() {
            return Ok(());
        }
        let _ = kill_process(self.pid, Signal::KILL);
        self.wait_gone("the application ends after SIGKILL", KILLED).await.map_err(ended)
    }

    async fn wait_gone(&self, name: &str, limit: Duration) -> Result<(), WaitError<ApplicationError>> {
        let status = || Poll::NotYet(format!("process {} runs", self.pid()));
        Wait::new(name, limit).until(async || Ok(if self.gone() { Poll::Ready(()) } else { status() })).await
    }

    fn gone(&self) -> bool {
        !matches!(self.handle.try_wait(), Ok(None))
    }
}

impl Launcher {
    /// The program itself.
    #[must_use]
    pub fn program(&self) -> PathBuf {
        self.command.first().map(PathBuf::from).unwrap_or_default()
    }

    /// The command with further arguments and its database. Variables of PostgreSQL's clients do not reach it: the URL alone counts.
    pub(super) fn expression(&self, arguments: &[&str], url: &str) -> duct::Expression {
        let rest = self.command.iter().skip(1).cloned().chain(arguments.iter().map(OsString::from));
        let mut expression = duct::cmd(self.program(), rest).env("DATABASE_URL", url);
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PG")) {
            expression = expression.env_remove(name);
        }
        // In a process group of its own: Ctrl-C reaches Turnback alone, which then stops everything in order.
        let expression = expression.before_spawn(|command| {
            command.process_group(0);
            Ok(())
        });
        match self.account {
            None => expression,
            Some((uid, gid)) => expression.before_spawn(move |command| {
                command.gid(gid).uid(uid);
                Ok(())
            }),
        }
    }
}

fn ended(error: WaitError<ApplicationError>) -> ApplicationError {
    match error {
        WaitError::Failed { source, .. } => source,
        timed_out @ WaitError::TimedOut { .. } => ApplicationError::TimedOut(Box::new(timed_out)),
    }
}

/// The process's start time: field 22 of its stat line, counted after the name in parentheses, which may hold anything.
fn start_ticks(pid: Pid) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

/// Numbers the logs of one process of ours, so that a restart writes another file.
fn next_number() -> u32 {
    static NUMBER: AtomicU32 = AtomicU32::new(1);
    NUMBER.fetch_add(1, Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_a_start_time() {
        assert!(start_ticks(rustix::process::getpid()).is_some_and(|ticks| ticks > 0));
    }
}
