//! Faults to inject on purpose, so that a drill shows that it would notice. Evidence lists every one of them.

use super::DrillWorld;
use cucumber::{Parameter, given, when};
use std::str::FromStr;
use turnback::workflow::{Harm, Misstep};

/// What is done to a file.
#[derive(Clone, Copy, Debug, Parameter)]
#[param(name = "harm", regex = "missing|truncated|altered by one byte")]
pub struct HarmName(pub Harm);

impl FromStr for HarmName {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(match text {
            "missing" => Harm::Missing,
            "truncated" => Harm::Truncated,
            _ => Harm::Flipped,
        }))
    }
}

/// A wrong target that someone might choose.
#[derive(Clone, Copy, Debug, Parameter)]
#[param(name = "misstep", regex = "one transaction too early|one transaction too late")]
pub struct MisstepName(pub Misstep);

impl FromStr for MisstepName {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(if text.ends_with("early") { Misstep::TooEarly } else { Misstep::TooLate }))
    }
}

#[given(expr = "the fault: the WAL segment that holds the recovery point is {harm}")]
#[when(expr = "the fault: the WAL segment that holds the recovery point is {harm}")]
async fn harm_segment(world: &mut DrillWorld, harm: HarmName) {
    world.outcome = Some(world.drill.harm_segment(harm.0).await);
}

#[given(expr = "the fault: a file of the base backup is {harm}")]
#[when(expr = "the fault: a file of the base backup is {harm}")]
async fn harm_backup(world: &mut DrillWorld, harm: HarmName) {
    world.outcome = Some(world.drill.harm_backup(harm.0).await);
}

#[when(expr = "the fault: the restore stops {misstep}")]
async fn wrong_target(world: &mut DrillWorld, misstep: MisstepName) {
    world.outcome = Some(world.drill.misstep(misstep.0));
}

#[when("the fault: the reconciler is suspended")]
async fn suspended(world: &mut DrillWorld) {
    world.outcome = Some(world.drill.suspend_reconciler().await);
}

#[when("the fault: the migration is applied again after the restore")]
async fn applied_again(world: &mut DrillWorld) {
    world.outcome = Some(world.drill.reapply_change().await);
}

#[when("the fault: someone changes the restored database:")]
async fn tampered(world: &mut DrillWorld, step: &cucumber::gherkin::Step) {
    world.outcome = Some(match turnback::workflow::docstring(step.docstring.as_deref()) {
        Ok(sql) => world.drill.tamper(&sql).await,
        Err(failure) => Err(failure),
    });
}
