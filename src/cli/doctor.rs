//! `turnback doctor`: is everything there that a drill needs, and if not, what to do.

use super::{Place, exit};
use owo_colors::OwoColorize;
use serde::Serialize;
use std::path::PathBuf;
use turnback::platform::local::preflight;

/// Arguments of `turnback doctor`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where evidence packages would go
    #[arg(long, value_name = "DIR", default_value = "turnback-evidence")]
    evidence: PathBuf,
    /// The fixed port that the sample application would use
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    port: u16,
    /// Print the findings as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Place,
}

#[derive(Debug, Serialize)]
struct Report {
    healthy: bool,
    findings: Vec<preflight::Finding>,
}

/// Looks at everything and reports.
pub async fn run(args: &Args) -> u8 {
    let work = args.place.root();
    let findings = preflight::examine(&preflight::Question {
        programs: args.place.pg_bin.as_deref(),
        work: &work,
        evidence: &args.evidence,
        port: args.port,
    })
    .await;
    let healthy = findings.iter().all(|finding| finding.fix.is_none());
    let code = if healthy { exit::OK } else { exit::USAGE };
    if args.json {
        anstream::println!("{}", serde_json::json!(Report { healthy, findings }));
        return code;
    }
    for finding in &findings {
        match &finding.fix {
            None => anstream::println!("{} {:<12} {}", "✔".green(), finding.subject, finding.seen),
            Some(fix) => {
                anstream::println!("{} {:<12} {}", "✘".red(), finding.subject, finding.seen);
                anstream::println!("               {} {fix}", "→".dimmed());
            }
        }
    }
    if healthy {
        anstream::println!("\nready: `turnback run`");
    }
    code
}
