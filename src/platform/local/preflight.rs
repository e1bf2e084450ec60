//! Is everything there that a local drill needs: programs, versions, account, space, ports, permissions; and what to do where it is not.
//!
//! It looks and tries; it leaves nothing behind.

use super::{Account, Programs, workdir};
use crate::evidence;
use serde::Serialize;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::time::Duration;

/// What is to be looked at.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// The directory of PostgreSQL's programs, where one is named.
    pub programs: Option<&'a Path>,
    /// Where platforms would live.
    pub work: &'a Path,
    /// Where evidence would go.
    pub evidence: &'a Path,
    /// The fixed port of the sample application; 0 for any.
    pub port: u16,
}

/// One thing looked at.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// What.
    pub subject: &'static str,
    /// What was seen.
    pub seen: String,
    /// What to do; `None` where all is well.
    pub fix: Option<String>,
}

/// A drill on the shipped fixture needs this much space, in bytes.
pub const SPACE: u64 = 512 * 1024 * 1024;
/// How long PostgreSQL's programs may take to say their version.
const VERSION_LIMIT: Duration = Duration::from_secs(10);

/// Looks at everything.
pub async fn examine(question: &Question<'_>) -> Vec<Finding> {
    let well = |subject, seen: String| Finding { subject, seen, fix: None };
    let ill = |subject, seen: String, fix: &str| Finding { subject, seen, fix: Some(fix.to_owned()) };
    let mut findings = Vec::new();

    let programs = Programs::find(question.programs);
    let account = Account::find();
    match &programs {
        Ok(programs) => findings.push(well("PostgreSQL", format!("{} in {}", programs.version, programs.bin.display()))),
        Err(error) => findings.push(ill("PostgreSQL", error.to_string(), "install the server programs of a version from 14 to 18 (Debian, Ubuntu: apt-get install postgresql), or name them with --pg-bin")),
    }
    match &account {
        Ok(account) => findings.push(well("account", format!("servers run as {}", account.name))),
        Err(error) => findings.push(ill("account", error.to_string(), "run Turnback as an ordinary user")),
    }
    if let (Ok(programs), Ok(account)) = (&programs, &account) {
        let asked = programs.run(account, "postgres", &[std::ffi::OsString::from("--version")], VERSION_LIMIT).await;
        match asked {
            Ok(ended) if ended.ok => findings.push(well("run", format!("{} answers as {}", ended.output, account.name))),
            Ok(ended) => findings.push(ill("run", ended.output, "make the programs executable for that account")),
            Err(error) => findings.push(ill("run", error.to_string(), "make the programs executable for that account")),
        }
    }
    let nearest = question.work.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    match workdir::free_bytes(nearest) {
        Ok(free) if free >= SPACE => findings.push(well("space", format!("{} MB free below {}", free >> 20, nearest.display()))),
        Ok(free) => findings.push(ill(
            "space",
            format!("{} MB free below {}, {} MB are needed", free >> 20, nearest.display(), SPACE >> 20),
            "make room, or choose another --work directory",
        )),
        Err(error) => findings.push(ill("space", error.to_string(), "choose another --work directory")),
    }
    if let Ok(account) = &account {
        findings.push(match account.reach(nearest) {
            Ok(()) => well("work", format!("{} can be reached by {}", nearest.display(), account.name)),
            Err(error) => ill("work", error.to_string(), "choose another --work directory, for example below /var/tmp"),
        });
    }
    match super::leftovers(question.work) {
        Ok(left) if left.is_empty() => findings.push(well("leftovers", "none".into())),
        Ok(left) => findings.push(ill(
            "leftovers",
            format!("{} of interrupted or kept drills in {}", left.len(), question.work.display()),
            "turnback clean",
        )),
        Err(error) => findings.push(ill("leftovers", error.to_string(), "choose another --work directory")),
    }
    let there = question.evidence.exists();
    match evidence::preflight(question.evidence) {
        Ok(()) => findings.push(well("evidence", format!("{} is writable", question.evidence.display()))),
        Err(error) => findings.push(ill("evidence", error.to_string(), "choose another --evidence directory")),
    }
    if !there {
        // Trying made it. It is empty, or somebody else's by now and then not removed.
        let _somebody_elses = std::fs::remove_dir(question.evidence);
    }
    match port(question.port) {
        Ok(()) if question.port == 0 => {
            findings.push(well("ports", "servers listen on sockets only; the application takes any free port".into()))
        }
        Ok(()) => findings.push(well("ports", format!("port {} is free", question.port))),
        Err(error) => {
            findings.push(ill("ports", format!("port {}: {error}", question.port), "stop what listens there, or choose another --port"))
        }
    }
    findings
}

/// Whether a port is free on the loopback address; 0 always is.
///
/// # Errors
/// What the operating system says.
pub fn port(port: u16) -> std::io::Result<()> {
    if port == 0 {
        return Ok(());
    }
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map(drop)
}
