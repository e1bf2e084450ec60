//! What the steps of one scenario share: the drill, and how the last step ended.

use cucumber::World;
use std::path::PathBuf;
use turnback::workflow::{Drill, Outcome};

/// One scenario's drill. Created by the runner, one for each scenario.
#[derive(Debug, World)]
#[world(init = Self::unattached)]
pub struct DrillWorld {
    /// The drill.
    pub drill: Drill,
    /// Where files named in the scenario are looked up: beside the feature file.
    pub base: PathBuf,
    /// How the step ended; a step that leaves nothing here did nothing, and counts as failed.
    pub outcome: Option<Outcome>,
}

impl DrillWorld {
    /// A world around a drill.
    pub fn new(drill: Drill, base: PathBuf) -> Self {
        Self { drill, base, outcome: None }
    }

    fn unattached() -> Result<Self, std::io::Error> {
        Err(std::io::Error::other("a world is made by the runner, around a drill"))
    }
}
