//! `turnback clean`: removes what an interrupted drill left, and nothing else.

use super::exit;
use super::refused::Refused;
use std::path::PathBuf;
use turnback::platform::local::workdir;

/// Arguments of `turnback clean`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where the platform kept its servers (default: below the system's temporary directory)
    #[arg(long, value_name = "DIR", env = "TURNBACK_WORK")]
    work: Option<PathBuf>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// Cleans and reports.
pub async fn run(args: &Args) -> u8 {
    let root = args.work.clone().unwrap_or_else(workdir::default_root);
    match turnback::workflow::clean(&root).await {
        Ok(report) => {
            let code = if report.left.is_empty() { exit::OK } else { exit::INCONCLUSIVE };
            if args.json {
                anstream::println!("{}", serde_json::json!(report));
                return code;
            }
            for line in &report.removed {
                anstream::println!("removed   {line}");
            }
            for line in &report.untouched {
                anstream::println!("untouched {}", line.display());
            }
            for line in &report.left {
                anstream::println!("left      {line}");
            }
            if report.removed.is_empty() && report.left.is_empty() {
                anstream::println!("nothing to remove in {}", root.display());
            }
            code
        }
        Err(error) => Refused::new("work-directory", &error).tell(args.json),
    }
}
