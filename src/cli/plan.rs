//! `turnback plan`: what a drill would do, as a value, before anything is touched.

use super::features::{self, Scenario};
use super::refused::Refused;
use super::{exit, lint};
use crate::steps::DrillWorld;
use crate::steps::vocabulary::{self_test, sentence_of};
use cucumber::gherkin::StepType;
use cucumber::step::Collection;
use owo_colors::OwoColorize;
use serde::Serialize;
use std::path::PathBuf;
use turnback_core::drill::CheckId;

/// Arguments of `turnback plan`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Feature files, directories of them, or shipped features by name (default: data_rollback, or what turnback.yaml names)
    #[arg(value_name = "FEATURE")]
    features: Vec<PathBuf>,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    restore: super::restore::PlanArgs,
}

impl Args {
    /// The restore whose plan is asked for, where it is one.
    pub fn restore(&self) -> Option<super::restore::Given> {
        self.restore.given(self.json)
    }
}

/// What one scenario would do.
#[derive(Debug, Serialize)]
struct Plan {
    feature: String,
    scenario: String,
    file: String,
    actions: Vec<Action>,
    /// Everything outside the evidence that would be created, and removed again.
    creates: Vec<&'static str>,
    /// Without each of these passed there is no GO.
    checks_for_go: Vec<&'static str>,
}

#[derive(Debug, Serialize)]
struct Action {
    phase: &'static str,
    step: String,
    does: &'static str,
    changes_something: bool,
}

const CREATES: [&str; 5] = [
    "a PostgreSQL server with its WAL archive and base backups, in a directory of the drill's own",
    "a bare Git repository with the flux/ tree",
    "the sample application as a process of its own, where the scenario asks for it",
    "a second PostgreSQL server, restored from backup and WAL",
    "nothing else: no existing server, repository or cluster is touched",
];

/// Prints the plan.
pub fn run(args: &Args) -> u8 {
    let plans = match plans(args) {
        Ok(plans) => plans,
        Err(refused) => return refused.tell(args.json),
    };
    if args.json {
        anstream::println!("{}", serde_json::json!(plans));
        return exit::OK;
    }
    for plan in &plans {
        print(plan);
    }
    exit::OK
}

fn plans(args: &Args) -> Result<Vec<Plan>, Refused> {
    let collection = self_test().map_err(|message| Refused::said("preflight", message))?;
    let configured = args.features.is_empty() && PathBuf::from("turnback.yaml").is_file();
    let default = if configured { "own_database" } else { "data_rollback" };
    let sources = if args.features.is_empty() {
        features::shipped(default).into_iter().collect()
    } else {
        features::load(&args.features).map_err(|error| Refused::new("feature", &error))?
    };
    let linted = lint::lint_all(&sources, &collection);
    if !linted.errors.is_empty() {
        return Err(Refused::lint(linted.errors));
    }
    if !args.json {
        for warning in &linted.warnings {
            anstream::eprintln!("{warning}");
        }
    }
    Ok(linted.scenarios.iter().map(|scenario| plan(scenario, &collection)).collect())
}

fn plan(scenario: &Scenario, collection: &Collection<DrillWorld>) -> Plan {
    let actions = scenario
        .steps
        .iter()
        .map(|step| {
            let sentence = sentence_of(step, collection);
            Action {
                phase: sentence.map_or("", |sentence| sentence.phase),
                step: step.value.clone(),
                does: sentence.map_or("", |sentence| sentence.says),
                changes_something: step.ty != StepType::Then,
            }
        })
        .collect();
    Plan {
        feature: scenario.feature.clone(),
        scenario: scenario.name.clone(),
        file: scenario.file.clone(),
        actions,
        creates: CREATES.to_vec(),
        checks_for_go: CheckId::CRITICAL.iter().map(|id| id.title()).collect(),
    }
}

fn print(plan: &Plan) {
    anstream::println!("{}  {}", plan.feature.bold(), plan.scenario);
    let mut phase = "";
    for action in &plan.actions {
        if action.phase != phase {
            phase = action.phase;
            anstream::println!("\n  {}", phase.cyan());
        }
        let mark = if action.changes_something { "●" } else { "○" };
        anstream::println!("    {mark} {}", action.step);
        anstream::println!("      {}", action.does.dimmed());
    }
    anstream::println!("\n  {}  ● does something  ○ only looks", "legend".cyan());
    anstream::println!("\n  {}", "creates, and removes again".cyan());
    for line in &plan.creates {
        anstream::println!("    {line}");
    }
    anstream::println!("\n  {}", "GO only if".cyan());
    for line in &plan.checks_for_go {
        anstream::println!("    {line}");
    }
    anstream::println!("\nNothing was touched.");
}
