//! `turnback run`: lint everything, then drill every scenario, one at a time.

use super::features::{self, Scenario, Source};
use super::lint::{self, Finding};
use super::refused::Refused;
use super::view::View;
use super::{Place, exit, runner, signals::Signals};
use crate::steps::DrillWorld;
use cucumber::step::Collection;
use std::ffi::OsString;
use std::path::PathBuf;
use turnback::platform::kind::Kit;
use turnback::platform::local::{Account, Programs, preflight};
use turnback::workflow::{Config, Drill, Finished, KindSettings, LocalSettings, On, Settings};
use turnback_core::drill::{Decision, ReasonCode};

/// Arguments of `turnback run`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Feature files, directories of them, or shipped features by name (default: data_rollback, or what turnback.yaml names)
    #[arg(value_name = "FEATURE")]
    features: Vec<PathBuf>,
    /// The platform to drill on
    #[arg(long, value_enum, default_value = "local")]
    on: Platform,
    /// Where evidence packages go
    #[arg(long, value_name = "DIR", default_value = "turnback-evidence")]
    evidence: PathBuf,
    /// Keep the platform afterwards, to look at it (`turnback clean` removes it)
    #[arg(long)]
    keep: bool,
    /// Print one JSON document instead of lines for people
    #[arg(long)]
    json: bool,
    /// One's own database and migration (default: turnback.yaml, where there is one and no feature is named)
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A fixed port for the sample application (default: any free one)
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    port: u16,
    #[command(flatten)]
    place: Place,
}

/// Platforms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Platform {
    /// Real PostgreSQL servers on this machine; a rehearsal of Flux
    Local,
    /// A kind cluster with Flux and CloudNativePG: the real thing (needs the kit: scripts/offline/kit)
    Kind,
}

/// What a run works on.
struct Prepared {
    scenarios: Vec<Scenario>,
    warnings: Vec<Finding>,
    collection: Collection<DrillWorld>,
    settings: Settings,
}

/// Runs the drills and returns the exit code.
pub async fn run(args: Args) -> u8 {
    let json = args.json;
    let Prepared { scenarios, warnings, collection, settings } = match prepare(args) {
        Ok(prepared) => prepared,
        Err(refused) => return refused.tell(json),
    };
    let view = View::new(json);
    let mut listening = match Signals::listen() {
        Ok(listening) => listening,
        Err(error) => return Refused { exit: exit::INCONCLUSIVE, ..Refused::new("preflight", &error) }.tell(json),
    };
    if !json {
        for warning in &warnings {
            anstream::eprintln!("{warning}");
        }
    }
    let mut all = Vec::new();
    for scenario in &scenarios {
        let record = turnback_core::evidence::Scenario {
            feature: scenario.feature.clone(),
            file: scenario.file.clone(),
            name: scenario.name.clone(),
            steps: Vec::new(),
        };
        let drill = match Drill::begin(settings.clone(), record).await {
            Ok(drill) => drill,
            Err(error) => {
                let refused = Refused::start(&error);
                if json && !all.is_empty() {
                    // What the drills before it showed is not lost with it.
                    let mut document = document(&all, &warnings);
                    document["exit"] = refused.exit.into();
                    document["refused"] = refused.value();
                    anstream::println!("{document}");
                    return refused.exit;
                }
                return refused.tell(json);
            }
        };
        view.scenario(&scenario.feature, &scenario.name, &settings.on.headline());
        view.phase(drill.phase());
        let finished = runner::run(scenario, drill, &collection, &view, &mut listening).await;
        view.verdict(&finished);
        if let Some(error) = &finished.unsealed {
            anstream::eprintln!("error: the evidence could not be sealed: {error}");
        }
        if !json {
            for line in &finished.kept {
                anstream::println!("  kept      {line}");
            }
        }
        let stop = interrupted(&finished);
        all.push(finished);
        if stop {
            break;
        }
    }
    if json {
        anstream::println!("{}", document(&all, &warnings));
    }
    code(&all)
}

fn prepare(args: Args) -> Result<Prepared, Refused> {
    let collection = crate::steps::vocabulary::self_test().map_err(|message| Refused::said("preflight", message))?;
    let beside = PathBuf::from("turnback.yaml");
    let config_path = args.config.clone().or_else(|| (args.features.is_empty() && beside.is_file()).then_some(beside));
    let config = config_path.map(|path| Config::load(&path)).transpose().map_err(|error| Refused::new("configuration", &error))?;
    let sources: Vec<Source> = if args.features.is_empty() {
        let name = if config.is_some() { "own_database" } else { "data_rollback" };
        features::shipped(name).into_iter().collect()
    } else {
        features::load(&args.features).map_err(|error| Refused::new("feature", &error))?
    };
    let lint::Linted { scenarios, errors, warnings } = lint::lint_all(&sources, &collection);
    if !errors.is_empty() {
        return Err(Refused::lint(errors));
    }
    if scenarios.is_empty() {
        return Err(Refused { exit: exit::NO_SCENARIO, ..Refused::said("no-scenario", "there is no scenario to run") });
    }
    let configured = scenarios.iter().flat_map(|scenario| &scenario.steps).find(|step| step.value.contains("configured "));
    if let (None, Some(step)) = (&config, configured) {
        let step = &step.value;
        let message =
            format!("the step “{step}” needs a turnback.yaml: write one with `database:` and `migration:`, or name it with --config");
        return Err(Refused::said("configuration", message));
    }
    let settings = Settings {
        on: platform(&args)?,
        evidence: args.evidence,
        work: args.place.root(),
        keep: args.keep,
        command: super::again(),
        config,
    };
    Ok(Prepared { scenarios, warnings, collection, settings })
}

fn platform(args: &Args) -> Result<On, Refused> {
    let refused = |error: &(dyn std::error::Error + 'static)| Refused::new("preflight", error);
    let account = Account::find().map_err(|error| refused(&error))?;
    let executable = std::env::current_exe().map_err(|error| refused(&error))?;
    if args.on == Platform::Kind {
        let kit = Kit::find().map_err(|error| refused(&error))?;
        return Ok(On::Kind(Box::new(KindSettings { kit, executable, account })));
    }
    let programs = Programs::find(args.place.pg_bin.as_deref()).map_err(|error| refused(&error))?;
    preflight::port(args.port).map_err(|error| {
        let port = args.port;
        let message = format!("port {port} on 127.0.0.1 cannot be used: {error}; stop what listens there, or choose another --port");
        Refused::said("preflight", message)
    })?;
    let launcher = vec![executable.into_os_string(), OsString::from("orders")];
    Ok(On::Local(LocalSettings { programs, account, launcher, port: args.port }))
}

fn interrupted(finished: &Finished) -> bool {
    finished.record.incidents.iter().any(|reason| reason.code == ReasonCode::Interrupted)
}

fn decision(finished: &Finished) -> Decision {
    // Evidence that could not be written down proves nothing.
    if finished.unsealed.is_some() {
        return Decision::Inconclusive;
    }
    finished.record.verdict.as_ref().map_or(Decision::Inconclusive, |verdict| verdict.decision)
}

fn code(all: &[Finished]) -> u8 {
    if all.iter().any(interrupted) {
        return exit::INTERRUPTED;
    }
    all.iter().map(decision).max().map_or(exit::NO_SCENARIO, Decision::exit_code)
}

fn document(all: &[Finished], warnings: &[Finding]) -> serde_json::Value {
    let drills: Vec<_> = all
        .iter()
        .map(|finished| {
            serde_json::json!({
                "scenario": finished.record.scenario.name,
                "feature": finished.record.scenario.feature,
                "decision": decision(finished),
                "reasons": finished.record.verdict.as_ref().map(|verdict| verdict.reasons.clone()),
                "objectives": finished.record.objectives,
                "evidence": finished.package,
                "kept": finished.kept,
                "unsealed": finished.unsealed,
            })
        })
        .collect();
    serde_json::json!({ "exit": code(all), "drills": drills, "warnings": warnings })
}
