//! `turnback restore`: a restore drill on an existing backup and WAL archive; and its plan alone.

use super::refused::Refused;
use super::view::millis;
use super::{Place, exit, signals::Signals};
use owo_colors::{OwoColorize, Style};
use std::fmt::Write as _;
use std::path::PathBuf;
use turnback::platform::local::{Account, Programs};
use turnback::workflow::{Prepared, RestoreDrill, RestoreFinished, RestoreSettings, Sources, prepare};
use turnback_core::drill::{Decision, ReasonCode};
use turnback_core::evidence::plain;
use turnback_core::recovery::{parse_target, pg_time};

/// Restore an existing base backup on a scratch server, prove where replay stopped, promote it, and compare every row with a baseline.
///
/// Backup and archive are only read. Exit code 0 GO, 1 NO-GO, 2 when the target cannot be reached or something given cannot be used (nothing
/// was started), 3 when nothing was compared or the machine failed, 130 when interrupted.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A base backup in plain format, with its manifest, as pg_basebackup writes it
    #[arg(long, value_name = "DIR")]
    backup: PathBuf,
    /// The directory that archive_command copies WAL segments to
    #[arg(long, value_name = "DIR")]
    wal_archive: PathBuf,
    /// Where replay stops: time=…, lsn=…, xid=…, name=… or immediate (default: where the baseline was recorded)
    #[arg(long, value_name = "TARGET")]
    target: Option<String>,
    /// Stop just before the target instead of just after it
    #[arg(long, requires = "target")]
    exclusive: bool,
    /// The known-good state: a directory that `turnback snapshot` wrote; without one there is no GO
    #[arg(long, value_name = "SNAPSHOT_DIR")]
    baseline: Option<PathBuf>,
    /// The database to compare (default: the baseline's)
    #[arg(long, value_name = "NAME")]
    database: Option<String>,
    /// A superuser of the backed up server
    #[arg(long, value_name = "NAME", default_value = "postgres")]
    user: String,
    /// Write an evidence package below this directory
    #[arg(long, value_name = "DIR")]
    evidence: Option<PathBuf>,
    /// Keep the restored server afterwards, to look at it (`turnback clean` removes it)
    #[arg(long)]
    keep: bool,
    /// Print one JSON document instead of lines for people
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Place,
}

/// The arguments of `turnback plan` for a restore.
#[derive(Clone, Debug, clap::Args)]
pub struct PlanArgs {
    /// Plan the restore of this base backup instead of a drill
    #[arg(long, value_name = "DIR", requires = "wal_archive", conflicts_with = "features")]
    backup: Option<PathBuf>,
    /// The directory of archived WAL segments
    #[arg(long, value_name = "DIR", requires = "backup")]
    wal_archive: Option<PathBuf>,
    /// Where replay would stop: time=…, lsn=…, xid=…, name=… or immediate
    #[arg(long, value_name = "TARGET", requires = "backup")]
    target: Option<String>,
    /// Stop just before the target
    #[arg(long, requires = "target")]
    exclusive: bool,
    /// A snapshot's directory, whose position is the target where none is named
    #[arg(long, value_name = "SNAPSHOT_DIR", requires = "backup")]
    baseline: Option<PathBuf>,
    /// The directory of PostgreSQL's server programs (default: the newest supported one found)
    #[arg(long, value_name = "DIR", env = "TURNBACK_PG_BIN")]
    pg_bin: Option<PathBuf>,
}

/// What is to be restored, as given on the command line.
#[derive(Clone, Debug)]
pub struct Given {
    backup: PathBuf,
    wal_archive: PathBuf,
    target: Option<String>,
    exclusive: bool,
    baseline: Option<PathBuf>,
    pg_bin: Option<PathBuf>,
    json: bool,
}

impl PlanArgs {
    /// The restore asked for, where it is one.
    pub fn given(&self, json: bool) -> Option<Given> {
        let Self { backup, wal_archive, target, exclusive, baseline, pg_bin } = self.clone();
        let (backup, wal_archive) = (backup?, wal_archive?);
        Some(Given { backup, wal_archive, target, exclusive, baseline, pg_bin, json })
    }
}

/// Refuses: nothing was started.
fn refuse(json: bool, refused: &Refused) -> u8 {
    if !json {
        return refused.tell(false);
    }
    anstream::println!("{}", serde_json::json!({ "exit": refused.exit, "reachable": false, "refused": refused.value() }));
    refused.exit
}

async fn prepared(given: &Given) -> Result<(Programs, Prepared), u8> {
    let target = given.target.as_deref().map(|text| parse_target(text, given.exclusive)).transpose();
    let target = target.map_err(|error| refuse(given.json, &Refused::new("usage", &error)))?;
    let programs = Programs::find(given.pg_bin.as_deref()).map_err(|error| refuse(given.json, &Refused::new("preflight", &error)))?;
    let sources = Sources { backup: given.backup.clone(), archive: given.wal_archive.clone(), target, baseline: given.baseline.clone() };
    match prepare(&programs, &sources).await {
        Ok(prepared) => Ok((programs, prepared)),
        Err(error) => Err(refuse(given.json, &Refused::new(error.code(), &error))),
    }
}

/// Prints the plan of a restore; exit code 0 where the target can be reached, 2 where not.
pub async fn plan(given: Given) -> u8 {
    let prepared = match prepared(&given).await {
        Ok((_, prepared)) => prepared,
        Err(code) => return code,
    };
    if given.json {
        anstream::println!("{}", serde_json::json!({ "exit": exit::OK, "reachable": true, "restore": prepared }));
    } else {
        anstream::print!("{}\nNothing was touched.\n", described(&prepared));
    }
    exit::OK
}

fn described(prepared: &Prepared) -> String {
    let plan = &prepared.plan;
    let backup = &plan.backup;
    let last = plan.last_segment.as_deref().unwrap_or("the end of the archive");
    let mut out = format!("{}\n", "restore plan".bold());
    let mut line = |label: &str, text: String| {
        // Writing to a String does not fail.
        let _ = writeln!(out, "  {label:<10}{}", plain(&text));
    };
    line("backup", format!("{} in {}", backup.id, prepared.backup_dir.display()));
    line("", format!("LSN {} to {}, timeline {}, system {}", backup.begin_lsn, backup.end_lsn, backup.timeline, backup.system_identifier));
    line("", format!("ended {} or later, {} MB", pg_time(backup.end_time), backup.bytes / 1_000_000));
    line("WAL", format!("{} to {last} in {}", plan.first_segment, prepared.archive_dir.display()));
    line("target", plan.target.to_string());
    line("reachable", "as far as backup and archive tell".to_owned());
    out
}

/// Carries out the drill.
pub async fn run(args: Args) -> u8 {
    let json = args.json;
    let given = Given {
        backup: args.backup,
        wal_archive: args.wal_archive,
        target: args.target,
        exclusive: args.exclusive,
        baseline: args.baseline,
        pg_bin: args.place.pg_bin.clone(),
        json,
    };
    let mut signals = match Signals::listen() {
        Ok(signals) => signals,
        Err(error) => return refuse(json, &Refused { exit: exit::INCONCLUSIVE, ..Refused::new("preflight", &error) }),
    };
    let ready = tokio::select! {
        biased;
        signal = signals.next() => {
            let refused = Refused::said("interrupted", format!("{signal} while backup and archive were being read"));
            return refuse(json, &Refused { exit: exit::INTERRUPTED, ..refused });
        }
        ready = prepared(&given) => ready,
    };
    let (programs, prepared) = match ready {
        Ok(ready) => ready,
        Err(code) => return code,
    };
    let account = match Account::find() {
        Ok(account) => account,
        Err(error) => return refuse(json, &Refused::new("preflight", &error)),
    };
    let settings = RestoreSettings {
        programs,
        account,
        user: args.user,
        database: args.database,
        evidence: args.evidence,
        work: args.place.root(),
        keep: args.keep,
        command: super::again(),
    };
    let plan = serde_json::json!(prepared.plan);
    let mut drill = match RestoreDrill::begin(settings, prepared) {
        Ok(drill) => drill,
        Err(error) => return refuse(json, &Refused::start(&error)),
    };
    let signal = tokio::select! {
        biased;
        signal = signals.next() => Some(signal),
        () = drill.carry_out() => None,
    };
    if let Some(signal) = signal {
        drill.interrupted(signal);
    }
    let finished = drill.finish().await;
    let code = code(&finished);
    if json {
        anstream::println!("{}", document(&finished, &plan, code));
    } else {
        anstream::print!("{}", shown(&finished));
    }
    if let Some(error) = &finished.unsealed {
        anstream::eprintln!("{} the evidence could not be sealed: {error}", "error:".red().bold());
    }
    code
}

fn code(finished: &RestoreFinished) -> u8 {
    if finished.record.incidents.iter().any(|reason| reason.code == ReasonCode::Interrupted) {
        return exit::INTERRUPTED;
    }
    // Evidence that could not be written down proves nothing.
    if finished.unsealed.is_some() { exit::INCONCLUSIVE } else { finished.record.decided().decision.exit_code() }
}

fn document(finished: &RestoreFinished, plan: &serde_json::Value, code: u8) -> serde_json::Value {
    let record = &finished.record;
    let verdict = record.decided();
    serde_json::json!({
        "exit": code,
        "decision": verdict.decision,
        "reasons": verdict.reasons,
        "plan": plan,
        "restore": record.restores.first(),
        "checks": record.checks,
        "comparison": record.final_comparison().map(|made| serde_json::json!({ "equal": made.result.equal(), "summary": made.result.summary(), "result": made.result })),
        "restored_in_ms": record.objectives.rto_ms,
        "took_ms": record.run.wall_ms,
        "evidence": finished.package,
        "kept": finished.kept,
        "cleanup": record.cleanup,
        "unsealed": finished.unsealed,
    })
}

fn shown(finished: &RestoreFinished) -> String {
    let record = &finished.record;
    let verdict = record.decided();
    let mut out = String::new();
    for check in &record.checks {
        let mark = if check.passed() { "✔".green().to_string() } else { "✘".red().to_string() };
        let _ = writeln!(out, "  {mark} {}\n      {}", check.id.title(), plain(check.actual.lines().next().unwrap_or_default()).dimmed());
    }
    if record.comparisons.is_empty() {
        let _ = writeln!(out, "  {} nothing was compared", "○".yellow());
    }
    let style = match verdict.decision {
        Decision::Go => Style::new().black().on_green().bold(),
        Decision::NoGo => Style::new().white().on_red().bold(),
        Decision::Inconclusive => Style::new().black().on_yellow().bold(),
    };
    let _ = write!(out, "\n  {}", format!(" {} ", verdict.decision).style(style));
    for (index, reason) in verdict.reasons.iter().enumerate() {
        let indent = if index == 0 { "  " } else { "\n       " };
        let _ = write!(out, "{indent}{} {}", reason.code.code().bold(), plain(&reason.message));
        if verdict.decision != Decision::Go {
            let _ = write!(out, "\n       {} {}", "→".dimmed(), reason.remedy);
        }
    }
    let _ = writeln!(out, "\n");
    let mut line = |label: &str, text: String| {
        let _ = writeln!(out, "  {label:<10}{text}");
    };
    if let Some(restore) = record.restores.first() {
        let parts: Vec<_> = restore.parts.iter().map(|(name, ms)| format!("{name} {}", millis(*ms))).collect();
        if !parts.is_empty() {
            line("parts", parts.join(" · "));
        }
    }
    if let Some(ms) = record.objectives.rto_ms {
        line("restored", format!("after {}", millis(ms)));
    }
    line("took", millis(record.run.wall_ms));
    if let Some(comparison) = record.comparisons.last() {
        line("compared", plain(&comparison.result.summary()));
    }
    if let Some(package) = &finished.package {
        line("evidence", package.display().to_string());
    }
    for kept in &finished.kept {
        line("kept", kept.clone());
    }
    if !record.cleanup.complete {
        line("left", record.cleanup.left.join("; "));
    }
    out
}
