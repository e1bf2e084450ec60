//! What a person sees while a drill runs: a line a step, a moving line for what is being waited for, the verdict at the end.
//!
//! On a terminal the current step is animated; elsewhere lines are plain and nothing moves. It decides nothing.

use indicatif::{ProgressBar, ProgressStyle};
use owo_colors::{OwoColorize, Style};
use std::cell::Cell;
use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use turnback::wait::{self, Waiting};
use turnback::workflow::{Failure, Finished};
use turnback_core::drill::{Decision, Phase};

/// The view of a run.
pub struct View {
    quiet: bool,
    animated: bool,
    moving: Arc<Mutex<Moving>>,
    phase: Cell<Option<Phase>>,
}

/// What moves while a step runs; waits report from wherever they are.
#[derive(Default)]
struct Moving {
    bar: Option<ProgressBar>,
    /// The step, without what it waits for.
    step: String,
    /// When a wait was told last, or the step began, where nothing can move.
    told: Option<Instant>,
}

/// Waits that are over sooner than this are not worth a word.
const WORTH_A_WORD: Duration = Duration::from_secs(1);
/// How often a wait is told where nothing can move.
const TOLD_EVERY: Duration = Duration::from_secs(10);

impl View {
    /// A view; a quiet one prints nothing (`--json`).
    pub fn new(quiet: bool) -> Self {
        let animated = !quiet && std::io::stderr().is_terminal();
        let moving = Arc::new(Mutex::new(Moving::default()));
        if !quiet {
            let shared = Arc::clone(&moving);
            wait::listen(move |waiting| lock(&shared).hear(waiting, animated));
        }
        Self { quiet, animated, moving, phase: Cell::new(None) }
    }

    fn line(&self, line: &str) {
        if self.quiet {
            return;
        }
        match lock(&self.moving).bar.as_ref() {
            Some(bar) => bar.suspend(|| anstream::println!("{line}")),
            None => anstream::println!("{line}"),
        }
        let _ = std::io::stdout().flush();
    }

    /// The head of a scenario.
    pub fn scenario(&self, feature: &str, name: &str, note: &str) {
        self.phase.set(None);
        self.line(&format!("{}  {}", feature.bold(), note.dimmed()));
        self.line(name);
    }

    /// A heading when the drill enters another phase.
    pub fn phase(&self, phase: Phase) {
        if self.phase.replace(Some(phase)) != Some(phase) {
            self.clear();
            self.line(&format!("\n  {}", phase.name().cyan()));
        }
    }

    /// A step begins.
    pub fn step_started(&self, keyword: &str, text: &str) {
        let step = format!("{} {text}", keyword.trim());
        let mut moving = lock(&self.moving);
        moving.told = Some(Instant::now());
        moving.step.clone_from(&step);
        if !self.animated {
            return;
        }
        let style =
            ProgressStyle::with_template("    {spinner:.cyan} {msg} {elapsed:.dim}").unwrap_or_else(|_| ProgressStyle::default_spinner());
        let bar = ProgressBar::new_spinner().with_style(style).with_message(step);
        bar.enable_steady_tick(Duration::from_millis(80));
        moving.bar = Some(bar);
    }

    fn clear(&self) {
        let bar = lock(&self.moving).bar.take();
        if let Some(bar) = bar {
            bar.finish_and_clear();
        }
    }

    /// A step held.
    pub fn step_passed(&self, keyword: &str, text: &str, took: Duration, seen: &str) {
        self.clear();
        self.line(&format!("    {} {} {text}  {}", "✔".green(), keyword.trim().dimmed(), elapsed(took).dimmed()));
        for line in seen.lines() {
            self.line(&format!("        {}", line.dimmed()));
        }
    }

    /// A step did not hold.
    pub fn step_failed(&self, keyword: &str, text: &str, took: Duration, failure: &Failure) {
        self.clear();
        self.line(&format!("    {} {} {text}  {}", "✘".red(), keyword.trim().dimmed(), elapsed(took).dimmed()));
        for line in failure.to_string().lines() {
            self.line(&format!("        {}", line.red()));
        }
    }

    /// What is left to do after the last step.
    pub fn finishing(&self) {
        self.clear();
    }

    /// The verdict, its reasons, and where the evidence lies.
    pub fn verdict(&self, finished: &Finished) {
        self.clear();
        let record = &finished.record;
        let Some(verdict) = &record.verdict else { return };
        let style = match verdict.decision {
            Decision::Go => Style::new().black().on_green().bold(),
            Decision::NoGo => Style::new().white().on_red().bold(),
            Decision::Inconclusive => Style::new().black().on_yellow().bold(),
        };
        let mut out = format!("\n  {}", format!(" {} ", verdict.decision).style(style));
        for (index, reason) in verdict.reasons.iter().enumerate() {
            let _ =
                write!(out, "{}{} {}", if index == 0 { "  " } else { "\n       " }, reason.code.code().bold(), first_line(&reason.message));
            if verdict.decision != Decision::Go {
                let _ = write!(out, "\n       {} {}", "→".dimmed(), reason.remedy);
            }
        }
        let objectives = &record.objectives;
        if let Some(rto) = objectives.rto_ms {
            let parts: Vec<_> = objectives.rto_parts.iter().map(|(name, ms)| format!("{name} {}", millis(*ms))).collect();
            let _ = write!(
                out,
                "\n\n  {:<10}{}{}  {}",
                "RTO",
                millis(rto),
                promised(objectives.rto_target_ms),
                format!("= {}", parts.join(" + ")).dimmed()
            );
        }
        if let Some(rpo) = objectives.rpo_ms {
            let mut lost = Vec::new();
            if let Some(commits) = objectives.lost_commits {
                lost.push(format!("{commits} commits"));
            }
            if let Some(writes) = objectives.lost_writes {
                lost.push(format!("{writes} of them orders that the application had accepted"));
            }
            let _ = write!(
                out,
                "\n  {:<10}{}{}  {}",
                "RPO",
                millis(rpo),
                promised(objectives.rpo_target_ms),
                format!("lost: {}", lost.join(", ")).dimmed()
            );
        }
        if let Some(comparison) = record.comparisons.last() {
            let _ = write!(out, "\n  {:<10}{}: {}", "compared", comparison.name.replace('-', " "), comparison.result.summary());
        }
        let passed = record.checks.iter().filter(|check| check.passed()).count();
        let _ = write!(out, "\n  {:<10}{passed} of {} passed", "checks", record.checks.len());
        let _ = write!(out, "\n  {:<10}{}", "evidence", finished.package.display());
        let _ = write!(out, "\n  {:<10}{}", "report", finished.package.join("report.md").display());
        if !record.cleanup.complete {
            let _ = write!(out, "\n  {:<10}{}", "left", record.cleanup.left.join("; "));
        }
        self.line(&out);
    }
}

impl Moving {
    fn hear(&mut self, waiting: Waiting<'_>, animated: bool) {
        if waiting.elapsed < WORTH_A_WORD {
            return;
        }
        let status = first_line(waiting.status);
        if animated {
            if let Some(bar) = &self.bar {
                bar.set_message(format!("{} · {}: {status}", self.step, waiting.name));
            }
            return;
        }
        // Several waits may go on side by side: one of them at a time is word enough.
        if self.told.is_none_or(|told| told.elapsed() >= TOLD_EVERY) {
            anstream::eprintln!("      … {} ({} s): {status}", waiting.name, waiting.elapsed.as_secs());
            self.told = Some(Instant::now());
        }
    }
}

/// A poisoned lock means that a wait's listener panicked; what it shows is still right.
fn lock(moving: &Mutex<Moving>) -> MutexGuard<'_, Moving> {
    moving.lock().unwrap_or_else(PoisonError::into_inner)
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

fn promised(target: Option<u64>) -> String {
    target.map_or_else(String::new, |ms| format!(" of {} allowed", millis(ms)))
}

/// Milliseconds the way people read them.
pub fn millis(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..60_000 => format!("{:.1} s", ms as f64 / 1000.0),
        _ => format!("{} min {} s", ms / 60_000, ms / 1000 % 60),
    }
}

fn elapsed(took: Duration) -> String {
    millis(u64::try_from(took.as_millis()).unwrap_or(u64::MAX))
}
