//! Finding PostgreSQL's server programs and running them, with a deadline, an environment of our own, and as the right account.
//!
//! It knows nothing about what the programs are used for.

use super::Account;
use rustix::process::{Pid, Signal, kill_process_group};
use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The environment variable that names the directory of PostgreSQL's programs.
pub const BIN_VARIABLE: &str = "TURNBACK_PG_BIN";
/// The oldest major version that works.
pub const OLDEST: u32 = 14;
/// The newest major version that was tried.
pub const NEWEST: u32 = 18;
/// Every program that a drill needs.
pub const NEEDED: [&str; 6] = ["postgres", "initdb", "pg_basebackup", "pg_verifybackup", "pg_waldump", "pg_controldata"];

/// A directory with PostgreSQL's server programs of one supported version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Programs {
    /// Where they lie.
    pub bin: PathBuf,
    /// The major version.
    pub major: u32,
    /// The version as `postgres --version` prints it, without the words before it.
    pub version: String,
}

/// Why PostgreSQL's programs cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProgramsError {
    /// There are none.
    #[error(
        "PostgreSQL's server programs were not found ({looked}): install them with `apt-get install postgresql` (any major version \
         {OLDEST}–{NEWEST}), or name their directory in {BIN_VARIABLE}"
    )]
    NotFound {
        /// Where was looked.
        looked: String,
    },
    /// A version that is too old or unknown.
    #[error(
        "PostgreSQL {version} in {bin} is not supported: versions {OLDEST} to {NEWEST} are; install one with `apt-get install postgresql`"
    )]
    Unsupported {
        /// The version found.
        version: String,
        /// Where.
        bin: String,
    },
    /// A program is missing beside the others.
    #[error("{program} is missing in {bin}: install PostgreSQL's server package of the same version")]
    Missing {
        /// Which.
        program: String,
        /// Where.
        bin: String,
    },
    /// A program could not be started at all.
    #[error("{program} could not be run: {source}")]
    NotRun {
        /// Which.
        program: String,
        /// Why.
        source: std::io::Error,
    },
    /// A program did not end in time; it was ended.
    #[error("{program} did not end within {} s and was stopped", limit.as_secs_f32())]
    TimedOut {
        /// Which.
        program: String,
        /// How long it was given.
        limit: Duration,
    },
}

/// How a program ended.
#[derive(Clone, Debug)]
pub struct Ended {
    /// Whether its exit status was 0.
    pub ok: bool,
    /// What it printed, both streams, trimmed.
    pub output: String,
}

impl Programs {
    /// Finds the programs: in `explicit`, else in the directory that `TURNBACK_PG_BIN` names, else the newest supported version in the usual
    /// places and on `PATH`.
    ///
    /// # Errors
    /// [`ProgramsError`] naming what is missing or which version was found.
    pub fn find(explicit: Option<&Path>) -> Result<Self, ProgramsError> {
        let named =
            explicit.map(Path::to_owned).or_else(|| std::env::var_os(BIN_VARIABLE).filter(|dir| !dir.is_empty()).map(PathBuf::from));
        if let Some(bin) = named {
            return Self::at(&bin);
        }
        let mut candidates = versions("/usr/lib/postgresql", "", "bin");
        candidates.extend(versions("/usr", "pgsql-", "bin"));
        candidates.sort_by_key(|(major, _)| std::cmp::Reverse(*major));
        let mut bins: Vec<PathBuf> = candidates.into_iter().map(|(_, bin)| bin).collect();
        bins.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).filter(|dir| dir.is_absolute()));
        bins.retain(|bin| bin.join("postgres").is_file());

        let mut first_error = None;
        for bin in &bins {
            match Self::at(bin) {
                Ok(found) => return Ok(found),
                Err(error) => first_error = first_error.or(Some(error)),
            }
        }
        Err(first_error.unwrap_or_else(|| ProgramsError::NotFound {
            looked: "looked in /usr/lib/postgresql/*/bin, /usr/pgsql-*/bin and PATH".to_owned(),
        }))
    }

    fn at(bin: &Path) -> Result<Self, ProgramsError> {
        let shown = bin.display().to_string();
        if !bin.join("postgres").is_file() {
            return Err(ProgramsError::NotFound { looked: format!("no `postgres` in {shown}") });
        }
        let said = duct::cmd(bin.join("postgres"), ["--version"])
            .stderr_null()
            .read()
            .map_err(|source| ProgramsError::NotRun { program: bin.join("postgres").display().to_string(), source })?;
        let (major, version) =
            parse_version(&said).ok_or_else(|| ProgramsError::Unsupported { version: said.trim().to_owned(), bin: shown.clone() })?;
        if !(OLDEST..=NEWEST).contains(&major) {
            return Err(ProgramsError::Unsupported { version, bin: shown });
        }
        if let Some(program) = NEEDED.iter().find(|program| !bin.join(program).is_file()) {
            return Err(ProgramsError::Missing { program: (*program).to_owned(), bin: shown });
        }
        Ok(Self { bin: bin.to_owned(), major, version })
    }

    /// An expression that runs `program` as `account`, in a process group of its own (so that Ctrl-C reaches Turnback alone, which then stops
    /// its servers in order), with English messages, UTC, and none of the caller's `PG*` variables.
    pub(crate) fn command(&self, account: &Account, program: &str, args: &[OsString]) -> duct::Expression {
        self.without_input(account, program, args).stdin_null()
    }

    /// The same, with standard input still to be decided: in duct the innermost redirection wins.
    fn without_input(&self, account: &Account, program: &str, args: &[OsString]) -> duct::Expression {
        let ids = account.switch_to();
        let environment = std::env::vars_os().filter(|(name, _)| {
            let name = name.to_string_lossy();
            !name.starts_with("PG") && !name.starts_with("LC_") && name != "LANG" && name != "LANGUAGE"
        });
        let ours = [("LC_ALL", "C"), ("TZ", "UTC")].map(|(name, value)| (OsString::from(name), OsString::from(value)));
        duct::cmd(self.bin.join(program), args)
            .full_env(environment.chain(ours))
            // The caller's directory may not be open to the account.
            .dir("/")
            .before_spawn(move |command| {
                command.process_group(0);
                if let Some((uid, gid)) = ids {
                    command.uid(uid).gid(gid);
                }
                Ok(())
            })
    }

    /// Runs a program to its end and returns what it printed, whatever its exit status.
    pub(crate) async fn run(&self, account: &Account, program: &str, args: &[OsString], limit: Duration) -> Result<Ended, ProgramsError> {
        let name = program.to_owned();
        Self::ended(name, self.command(account, program, args).stderr_to_stdout().stdout_capture().unchecked(), limit).await
    }

    /// The same, with something to read on standard input.
    ///
    /// # Errors
    /// [`ProgramsError`] where it cannot be started or does not end in time.
    pub(crate) async fn run_with_input(
        &self,
        account: &Account,
        program: &str,
        args: &[OsString],
        input: Vec<u8>,
        limit: Duration,
    ) -> Result<Ended, ProgramsError> {
        let expression = self.without_input(account, program, args).stdin_bytes(input).stderr_to_stdout().stdout_capture().unchecked();
        Self::ended(program.to_owned(), expression, limit).await
    }

    /// Runs a program and hands over what it prints line by line, until `line` returns `false` or the program ends; its output is never held
    /// as a whole. Its complaints and its exit status are not looked at. Dropping the future ends it.
    ///
    /// # Errors
    /// [`ProgramsError`] where it cannot be started or does not end in time.
    pub(crate) async fn scan<T: Send + 'static>(
        &self,
        account: &Account,
        program: &str,
        args: &[OsString],
        limit: Duration,
        mut state: T,
        line: impl Fn(&mut T, &str) -> bool + Send + 'static,
    ) -> Result<T, ProgramsError> {
        let name = program.to_owned();
        let failed = |program: &str| {
            let program = program.to_owned();
            move |source| ProgramsError::NotRun { program, source }
        };
        let expression = self.command(account, program, args).stderr_null().unchecked();
        let reader = Arc::new(expression.reader().map_err(failed(program))?);
        let _guard = ReaderKilledOnDrop(Arc::clone(&reader));
        let work = move || {
            let begun = Instant::now();
            let mut lines = BufReader::new(&*reader);
            let mut text = Vec::new();
            loop {
                text.clear();
                if lines.read_until(b'\n', &mut text).map_err(failed(&name))? == 0
                    || !line(&mut state, String::from_utf8_lossy(&text).trim_end_matches('\n'))
                {
                    break;
                }
                if begun.elapsed() > limit {
                    return Err(ProgramsError::TimedOut { program: name, limit });
                }
            }
            Ok(state)
        };
        match tokio::task::spawn_blocking(work).await {
            Ok(ended) => ended,
            Err(join) => Err(failed(program)(std::io::Error::other(join))),
        }
    }

    async fn ended(program: String, expression: duct::Expression, limit: Duration) -> Result<Ended, ProgramsError> {
        let name = program.clone();
        let failed = |source| ProgramsError::NotRun { program: program.clone(), source };
        let handle = Arc::new(expression.start().map_err(failed)?);
        let _guard = KilledOnDrop(Arc::clone(&handle));
        let work = move || {
            let failed = |source| ProgramsError::NotRun { program: name.clone(), source };
            match handle.wait_timeout(limit).map_err(failed)? {
                Some(output) => {
                    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
                    // A program that crashed has judged nothing: its silence must not read as an answer.
                    if output.status.code().is_none() {
                        return Err(failed(std::io::Error::other(format!("it was ended ({}); is the installation whole?", output.status))));
                    }
                    Ok(Ended { ok: output.status.success(), output: text })
                }
                None => {
                    handle.kill().map_err(failed)?;
                    Err(ProgramsError::TimedOut { program: name, limit })
                }
            }
        };
        match tokio::task::spawn_blocking(work).await {
            Ok(ended) => ended,
            Err(join) => Err(ProgramsError::NotRun { program, source: std::io::Error::other(join) }),
        }
    }
}

/// Nobody waits for the program any more: it and its children, which share its process group, end at once.
struct KilledOnDrop(Arc<duct::Handle>);

impl Drop for KilledOnDrop {
    fn drop(&mut self) {
        if !matches!(self.0.try_wait(), Ok(None)) {
            return;
        }
        for pid in self.0.pids() {
            if let Some(group) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
                let _ended_meanwhile = kill_process_group(group, Signal::KILL);
            }
        }
    }
}

/// Nobody reads on: the program ends.
struct ReaderKilledOnDrop(Arc<duct::ReaderHandle>);

impl Drop for ReaderKilledOnDrop {
    fn drop(&mut self) {
        let _ended_already = self.0.kill();
    }
}

/// The arguments of a program from anything that is one.
pub(crate) fn args<const N: usize>(args: [&dyn AsRef<std::ffi::OsStr>; N]) -> Vec<OsString> {
    args.iter().map(|arg| arg.as_ref().to_owned()).collect()
}

fn versions(parent: &str, prefix: &str, below: &str) -> Vec<(u32, PathBuf)> {
    let entries = std::fs::read_dir(parent).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let major = entry.file_name().to_str()?.strip_prefix(prefix)?.parse().ok()?;
            Some((major, entry.path().join(below)))
        })
        .collect()
}

/// `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)` → 15 and the rest.
fn parse_version(said: &str) -> Option<(u32, String)> {
    let version = said.trim().strip_prefix("postgres (PostgreSQL) ")?;
    let digits: String = version.chars().take_while(char::is_ascii_digit).collect();
    Some((digits.parse().ok()?, version.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn fake(version: &str, programs: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for program in programs {
            let path = dir.path().join(program);
            std::fs::write(&path, format!("#!/bin/sh\necho 'postgres (PostgreSQL) {version}'\n")).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        dir
    }

    #[test]
    fn an_empty_directory_names_the_package_to_install() {
        let dir = tempfile::tempdir().unwrap();
        let error = Programs::find(Some(dir.path())).unwrap_err().to_string();
        assert!(error.contains("apt-get install postgresql") && error.contains(BIN_VARIABLE), "{error}");
    }

    #[test]
    fn an_unsupported_major_is_named_with_the_supported_ones() {
        for version in ["12.3", "19beta1", "9.6.24"] {
            let dir = fake(version, &NEEDED);
            let error = Programs::find(Some(dir.path())).unwrap_err();
            assert!(matches!(&error, ProgramsError::Unsupported { version: found, .. } if found == version), "{error}");
            assert!(error.to_string().contains("14 to 18"));
        }
    }

    #[test]
    fn a_missing_program_is_named() {
        let dir = fake("17.2", &["postgres", "initdb", "pg_basebackup", "pg_waldump", "pg_controldata"]);
        assert!(
            matches!(Programs::find(Some(dir.path())).unwrap_err(), ProgramsError::Missing { program, .. } if program == "pg_verifybackup")
        );
    }

    #[test]
    fn beta_and_distribution_versions_are_read() {
        assert_eq!(parse_version("postgres (PostgreSQL) 18beta1\n").unwrap().0, 18);
        assert_eq!(
            parse_version("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)").unwrap(),
            (15, "15.18 (Debian 15.18-0+deb12u1)".to_owned())
        );
        assert!(parse_version("EDB Postgres 15").is_none());
    }
}
