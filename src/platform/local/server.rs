//! One PostgreSQL server on this machine: initialise, start, look, stop.
//!
//! It touches its own directory and its socket, listens on no network address, and is thrown away with the drill: `fsync` is off, so it
//! survives everything but a crash of the machine. It knows nothing about backups or recovery.

use super::programs::args;
use super::{Account, AccountError, Archive, Programs, ProgramsError};
use crate::wait::{Poll, Wait, WaitError};
use rustix::process::{Pid, Signal, kill_process};
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use std::fmt::Write as _;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The longest path of a Unix socket that every system takes, in bytes.
const SOCKET_PATH_LIMIT: usize = 100;
/// How long `initdb` may take.
const INITDB_LIMIT: Duration = Duration::from_secs(60);
/// How long a server may take to accept connections.
const START_LIMIT: Duration = Duration::from_secs(60);
/// How long an interruption waits for a server that was told to end at once.
const DROP_LIMIT: Duration = Duration::from_secs(6);
/// How long a server may take to stop.
const STOP_LIMIT: Duration = Duration::from_secs(30);
/// The database superuser of every server that a drill makes.
pub const SUPERUSER: &str = "postgres";
/// The database to connect to for what concerns the whole server; every one has it, whatever else was renamed or dropped.
pub const MAINTENANCE: &str = "template1";

/// Where a server listens and what it is set to.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// The directory of its socket, open to the application's account.
    pub socket_dir: PathBuf,
    /// Its port: part of the socket's name, never a network port.
    pub port: u16,
    /// Further settings, after Turnback's own.
    pub settings: Vec<(String, String)>,
}

/// How to stop a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    /// Sessions are ended, a checkpoint is written.
    Fast,
    /// At once, as in a crash: for servers that are thrown away.
    Immediate,
}

/// A server in a directory of its own; running or not.
pub struct Server {
    programs: Programs,
    account: Account,
    data: PathBuf,
    log: PathBuf,
    log_start: u64,
    options: ServerOptions,
    superuser: String,
    running: Option<duct::Handle>,
    /// Whether the process may outlive this value.
    detached: bool,
}

impl Drop for Server {
    fn drop(&mut self) {
        // Only an interrupted start or a broken drill gets here with the server still running; it is thrown away, so it ends as in a crash.
        if self.detached {
            return;
        }
        if let Some(pid) = self.pid().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?)) {
            let _ = kill_process(pid, Signal::QUIT);
            // Its directory is removed next: nothing may still write there.
            if let Some(handle) = &self.running {
                let _ = handle.wait_timeout(DROP_LIMIT);
            }
        }
    }
}

/// What can go wrong with a server.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// A program could not be run.
    #[error(transparent)]
    Programs(#[from] ProgramsError),
    /// The account is of no use here.
    #[error(transparent)]
    Account(#[from] AccountError),
    /// The path of the socket is too long for the operating system.
    #[error(
        "the socket's path {path} has {length} bytes, and at most {SOCKET_PATH_LIMIT} work everywhere: choose a shorter --work directory"
    )]
    SocketPathTooLong {
        /// The path.
        path: PathBuf,
        /// Its length.
        length: usize,
    },
    /// Someone listens there already.
    #[error("port {port} in {dir} is in use by another server: stop that one or choose another port")]
    PortInUse {
        /// The port.
        port: u16,
        /// The directory of the socket.
        dir: PathBuf,
    },
    /// `initdb` failed.
    #[error("initdb failed in {dir}: {output}")]
    Initdb {
        /// Where.
        dir: PathBuf,
        /// What it printed.
        output: String,
    },
    /// A file could not be read or written.
    #[error("{operation} {path}: {source}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The server ended while it was wanted.
    #[error("the server in {dir} ended: {line}")]
    Ended {
        /// Its data directory.
        dir: PathBuf,
        /// The line of its log that says why.
        line: String,
        /// The end of its log.
        log: String,
    },
    /// It did not get there in time.
    #[error("{wait}; last line of its log: {line}")]
    TimedOut {
        /// The wait with its last status.
        wait: String,
        /// The last line of the server's log.
        line: String,
    },
}

impl Server {
    /// Makes a new database cluster in `dir` (`dir/data`, log in `dir/server.log`), with data checksums, UTF-8 and, where an archive is given,
    /// continuous archiving into it.
    ///
    /// # Errors
    /// [`ServerError`] naming the directory.
    pub async fn init(
        programs: &Programs,
        account: &Account,
        dir: &Path,
        options: ServerOptions,
        archive: Option<&Archive>,
    ) -> Result<Self, ServerError> {
        let server = Self::in_dir(programs, account, dir, options)?;
        account.make_dir(dir, 0o755)?;
        account.reach(dir)?;
        let initdb = args([
            &"-D",
            &server.data,
            &"-U",
            &SUPERUSER,
            &"--auth=trust",
            &"--data-checksums",
            &"--no-sync",
            &"--encoding=UTF8",
            &"--locale=C",
            &"--text-search-config=english",
            &"--no-instructions",
        ]);
        let ended = programs.run(account, "initdb", &initdb, INITDB_LIMIT).await?;
        if !ended.ok {
            // Its chatter comes first; the line that matters says so.
            let line = ended.output.lines().find(|line| line.contains("error:")).unwrap_or(&ended.output).to_owned();
            return Err(ServerError::Initdb { dir: dir.to_owned(), output: line });
        }
        let archiving = match archive {
            Some(archive) => vec![("archive_mode".to_owned(), "on".to_owned()), ("archive_command".to_owned(), archive.archive_command())],
            None => Vec::new(),
        };
        let own = PRIMARY_SETTINGS.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let settings: Vec<_> = own.chain(server.place()).chain(archiving).chain(server.options.settings.clone()).collect();
        append(&server.data.join("postgresql.conf"), &render_settings(&settings))?;
        Ok(server)
    }

    /// A server whose data directory is made by someone else (a restore).
    pub(super) fn in_dir(programs: &Programs, account: &Account, dir: &Path, options: ServerOptions) -> Result<Self, ServerError> {
        let socket = options.socket_dir.join(format!(".s.PGSQL.{}", options.port));
        let length = socket.as_os_str().len();
        if length > SOCKET_PATH_LIMIT {
            return Err(ServerError::SocketPathTooLong { path: socket, length });
        }
        Ok(Self {
            programs: programs.clone(),
            account: account.clone(),
            data: dir.join("data"),
            log: dir.join("server.log"),
            log_start: 0,
            options,
            superuser: SUPERUSER.to_owned(),
            running: None,
            detached: false,
        })
    }

    /// Connects as this role from now on: a restored server has the source's roles.
    pub(super) fn connect_as(&mut self, superuser: &str) {
        superuser.clone_into(&mut self.superuser);
    }

    /// Where it listens, as settings.
    pub(super) fn place(&self) -> Vec<(String, String)> {
        vec![
            ("listen_addresses".to_owned(), String::new()),
            ("unix_socket_directories".to_owned(), self.options.socket_dir.display().to_string()),
            ("port".to_owned(), self.options.port.to_string()),
        ]
    }

    /// Starts the server and returns when it accepts connections.
    ///
    /// # Errors
    /// [`ServerError::Ended`] with the FATAL line of its log as soon as it has ended, [`ServerError::TimedOut`] at the deadline.
    pub async fn start(&mut self) -> Result<(), ServerError> {
        self.spawn()?;
        let wait =
            Wait::new(format!("the server in {} accepts connections", self.data.display()), START_LIMIT).every(Duration::from_millis(10));
        let ready = wait
            .until(async || {
                self.alive()?;
                Ok(match self.postmaster_status() {
                    Some(status) if status == "ready" => Poll::Ready(()),
                    Some(status) => Poll::NotYet(format!("postmaster.pid says “{status}”")),
                    None => Poll::NotYet("no postmaster.pid yet".to_owned()),
                })
            })
            .await;
        ready.map_err(|error| self.wait_error(error))
    }

    /// Starts the process and does not wait for anything.
    pub(super) fn spawn(&mut self) -> Result<(), ServerError> {
        self.account.make_dir(&self.options.socket_dir, 0o755)?;
        let socket = self.options.socket_dir.join(format!(".s.PGSQL.{}", self.options.port));
        if std::os::unix::net::UnixStream::connect(&socket).is_ok() {
            return Err(ServerError::PortInUse { port: self.options.port, dir: self.options.socket_dir.clone() });
        }
        let io = |operation, source| ServerError::Io { operation, path: self.log.clone(), source };
        let log = std::fs::OpenOptions::new().append(true).create(true).open(&self.log).map_err(|source| io("open", source))?;
        self.log_start = log.metadata().map_err(|source| io("look at", source))?.len();
        let handle = self
            .programs
            .command(&self.account, "postgres", &args([&"-D", &self.data]))
            .stderr_to_stdout()
            .stdout_file(log)
            .unchecked()
            .start()
            .map_err(|source| ProgramsError::NotRun { program: "postgres".to_owned(), source })?;
        self.running = Some(handle);
        Ok(())
    }

    /// An error as soon as the process has ended.
    pub(super) fn alive(&self) -> Result<(), ServerError> {
        let ended = match &self.running {
            Some(handle) => !matches!(handle.try_wait(), Ok(None)),
            None => true,
        };
        if ended {
            let log = self.log_since_start();
            return Err(ServerError::Ended { dir: self.data.clone(), line: telling_line(&log), log: tail(&log, 40) });
        }
        Ok(())
    }

    pub(super) fn wait_error(&self, error: WaitError<ServerError>) -> ServerError {
        match error {
            WaitError::Failed { source, .. } => source,
            timed_out @ WaitError::TimedOut { .. } => {
                let log = self.log_since_start();
                ServerError::TimedOut { wait: timed_out.to_string(), line: log.lines().last().unwrap_or("(empty)").to_owned() }
            }
        }
    }

    /// The status line of `postmaster.pid` (`starting`, `stopping`, `ready`, `standby`), where that file is our process's.
    pub(super) fn postmaster_status(&self) -> Option<String> {
        let text = std::fs::read_to_string(self.data.join("postmaster.pid")).ok()?;
        let mut lines = text.lines();
        let pid: u32 = lines.next()?.trim().parse().ok()?;
        (Some(pid) == self.pid()).then_some(())?;
        Some(lines.nth(6)?.trim().to_owned())
    }

    /// Stops the server and returns when it has ended; a server that does not run is left as it is.
    ///
    /// # Errors
    /// [`ServerError::TimedOut`] where it goes on running.
    pub async fn stop(&mut self, how: Shutdown) -> Result<(), ServerError> {
        let Some(pid) = self.pid().filter(|_| self.alive().is_ok()).and_then(|pid| Pid::from_raw(pid.cast_signed())) else {
            self.running = None;
            return Ok(());
        };
        let signal = match how {
            Shutdown::Fast => Signal::INT,
            Shutdown::Immediate => Signal::QUIT,
        };
        // Between the look and the signal it may have ended by itself; our handle keeps the pid from being given to anyone else.
        let _ended_meanwhile = kill_process(pid, signal);
        let wait = Wait::new(format!("the server in {} stops", self.data.display()), STOP_LIMIT).every(Duration::from_millis(10));
        let stopped = wait
            .until(async || Ok(if self.alive().is_err() { Poll::Ready(()) } else { Poll::NotYet(format!("process {pid:?} runs")) }))
            .await;
        stopped.map_err(|error| self.wait_error(error))?;
        self.running = None;
        Ok(())
    }

    /// How to connect to one of its databases as superuser; carries no secret.
    #[must_use]
    pub fn connect_options(&self, database: &str) -> PgConnectOptions {
        PgConnectOptions::new_without_pgpass()
            .socket(&self.options.socket_dir)
            .port(self.options.port)
            .username(&self.superuser)
            .database(database)
            .ssl_mode(PgSslMode::Disable)
            .application_name("turnback")
    }

    /// The URL of one of its databases; carries no secret.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        let dir = percent_encode(&self.options.socket_dir.display().to_string());
        let user = percent_encode(&self.superuser);
        format!("postgresql://{user}@localhost:{}/{}?host={dir}", self.options.port, percent_encode(database))
    }

    /// Lets the server outlive this value.
    pub const fn detach(&mut self) {
        self.detached = true;
    }

    /// Its process id, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.running.as_ref().and_then(|handle| handle.pids().first().copied())
    }

    /// Its data directory.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        &self.data
    }

    /// Its log file.
    #[must_use]
    pub fn log_file(&self) -> &Path {
        &self.log
    }

    /// Where it listens and what it is set to.
    #[must_use]
    pub fn options(&self) -> &ServerOptions {
        &self.options
    }

    /// The last lines of its log.
    #[must_use]
    pub fn log_tail(&self, lines: usize) -> String {
        tail(&self.log_since_start(), lines)
    }

    /// What it logged since it was last started.
    pub(super) fn log_since_start(&self) -> String {
        let mut bytes = Vec::new();
        let read = std::fs::File::open(&self.log).and_then(|mut file| {
            file.seek(SeekFrom::Start(self.log_start))?;
            file.read_to_end(&mut bytes)
        });
        match read {
            Ok(_) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) => format!("{} cannot be read: {error}", self.log.display()),
        }
    }
}

/// What a scratch primary is set to. Archiving, WAL and durability of commits are as in production; only the flush to disk is left out.
const PRIMARY_SETTINGS: [(&str, &str); 17] = [
    ("wal_level", "replica"),
    ("hot_standby", "on"),
    ("fsync", "off"),
    ("synchronous_commit", "on"),
    ("full_page_writes", "on"),
    ("shared_buffers", "64MB"),
    ("max_connections", "50"),
    ("max_locks_per_transaction", "256"),
    ("max_wal_senders", "4"),
    ("max_wal_size", "1GB"),
    ("autovacuum", "on"),
    ("timezone", "UTC"),
    ("log_timezone", "UTC"),
    ("lc_messages", "C"),
    ("logging_collector", "off"),
    ("log_line_prefix", "%m [%p] "),
    ("log_checkpoints", "on"),
];

/// Settings as lines of a configuration file.
pub(super) fn render_settings(settings: &[(String, String)]) -> String {
    settings.iter().fold(String::from("\n# Turnback\n"), |mut text, (name, value)| {
        let quoted = value.replace('\\', "\\\\").replace('\'', "''");
        // Writing to a String does not fail.
        let _ = writeln!(text, "{name} = '{quoted}'");
        text
    })
}

pub(super) fn append(path: &Path, text: &str) -> Result<(), ServerError> {
    use std::io::Write as _;
    std::fs::OpenOptions::new()
        .append(true)
        .create(true)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|source| ServerError::Io { operation: "write", path: path.to_owned(), source })
}

fn tail(text: &str, lines: usize) -> String {
    let all: Vec<_> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// The line that says why a server ended: its first FATAL or PANIC that is not an answer to a client that came too early.
pub(super) fn telling_line(log: &str) -> String {
    let early = |line: &&str| line.contains("the database system is ");
    log.lines()
        .filter(|line| line.contains("PANIC:") || line.contains("FATAL:"))
        .find(|line| !early(line))
        .or_else(|| log.lines().rfind(|line| !line.is_empty()))
        .unwrap_or("its log is empty")
        .to_owned()
}

fn percent_encode(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing to a String does not fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
        encoded
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_quoted_as_postgresql_reads_them() {
        let text = render_settings(&[("archive_command".into(), "cp '%p' '/a b/%f'".into())]);
        assert!(text.ends_with("archive_command = 'cp ''%p'' ''/a b/%f'''\n"), "{text}");
    }

    #[test]
    fn the_line_that_tells_why_is_the_fatal_one() {
        let log =
            "x LOG:  starting\nx FATAL:  the database system is starting up\nx FATAL:  recovery ended before x\nx LOG:  shutting down\n";
        assert_eq!(telling_line(log), "x FATAL:  recovery ended before x");
        assert_eq!(telling_line("a\nb\n"), "b");
    }

    #[test]
    fn a_database_name_survives_the_url() {
        assert_eq!(percent_encode("a b\"ü/?"), "a%20b%22%C3%BC%2F%3F");
    }
}
