//! `turnback vocabulary`: every step, with an example.

use super::exit;
use super::refused::Refused;
use crate::steps::vocabulary::{SENTENCES, self_test};
use owo_colors::OwoColorize;

/// Arguments of `turnback vocabulary`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

/// Prints the vocabulary.
pub fn run(args: &Args) -> u8 {
    if let Err(message) = self_test() {
        return Refused::said("preflight", message).tell(args.json);
    }
    if args.json {
        anstream::println!("{}", serde_json::json!(SENTENCES));
        return exit::OK;
    }
    let mut phase = "";
    for sentence in SENTENCES {
        if sentence.phase != phase {
            phase = sentence.phase;
            anstream::println!("{}{}", if phase == "platform" { "" } else { "\n" }, phase.cyan());
        }
        anstream::println!("  {:<5} {}", sentence.keyword.dimmed(), sentence.example);
        anstream::println!("        {}", sentence.says.dimmed());
        for example in sentence.also {
            anstream::println!("  {:<5} {}", "or".dimmed(), example);
        }
    }
    exit::OK
}
