//! Runs one scenario: step after step on the caller's own task, until one does not hold or someone interrupts.
//!
//! cucumber reads, matches and types the sentences; the loop is ours, because its runner replaces the process's panic hook, knows no
//! interruption, and would run the next scenario on a platform that the last one broke.

use super::features::Scenario;
use super::view::View;
use crate::steps::DrillWorld;
use cucumber::gherkin::Step;
use cucumber::step::Collection;
use futures::FutureExt;
use std::panic::AssertUnwindSafe;
use std::time::Instant;
use turnback::workflow::{Drill, Failure, Finished};
use turnback_core::drill::{Reason, ReasonCode};
use turnback_core::evidence::{StepRecord, StepStatus};

/// Runs the scenario on the drill and draws the verdict.
pub async fn run(
    scenario: &Scenario,
    drill: Drill,
    collection: &Collection<DrillWorld>,
    view: &View,
    signals: &mut super::signals::Signals,
) -> Finished {
    let mut world = DrillWorld::new(drill, scenario.base.clone());
    let mut ended = false;
    for step in &scenario.steps {
        let text = said(step);
        if ended {
            world.drill.record_step(record(step, &world, StepStatus::Skipped, Instant::now(), None, None));
            continue;
        }
        view.step_started(&step.keyword, &text);
        let begun = Instant::now();
        world.drill.step_began(&step.keyword, &text);
        let outcome = tokio::select! {
            biased;
            signal = signals.next() => Err(Failure::new(Reason::new(ReasonCode::Interrupted, format!("{signal} during the step “{text}”")))),
            outcome = perform(&mut world, step, collection) => outcome,
        };
        view.phase(world.drill.phase());
        match outcome {
            Ok(seen) => {
                view.step_passed(&step.keyword, &text, begun.elapsed(), &seen);
                world.drill.record_step(record(step, &world, StepStatus::Passed, begun, Some(seen), None));
            }
            Err(failure) => {
                view.step_failed(&step.keyword, &text, begun.elapsed(), &failure);
                world.drill.record_step(record(step, &world, StepStatus::Failed, begun, None, Some(failure.to_string())));
                world.drill.fail(failure);
                ended = true;
            }
        }
    }
    view.finishing();
    world.drill.end_platform().await;
    // Whoever interrupts while everything is being stopped does not get a GO.
    if let Some(signal) = signals.next().now_or_never() {
        world.drill.fail(Failure::new(Reason::new(ReasonCode::Interrupted, format!("{signal} while the platform was being stopped"))));
    }
    world.drill.finish().await
}

async fn perform(world: &mut DrillWorld, step: &Step, collection: &Collection<DrillWorld>) -> Result<String, Failure> {
    world.outcome = None;
    let broken = |message: String| Failure::new(Reason::new(ReasonCode::PlatformFailed, message));
    let Ok(Some((run, _, _, context))) = collection.find(step) else {
        return Err(Failure::new(Reason::new(ReasonCode::StepSkipped, format!("no single definition for the step “{}”", step.value))));
    };
    if AssertUnwindSafe(run(world, context)).catch_unwind().await.is_err() {
        return Err(broken(format!("the step “{}” ended in a bug of Turnback's: please report it", step.value)));
    }
    world.outcome.take().unwrap_or_else(|| Err(broken(format!("the step “{}” did nothing: please report it", step.value))))
}

fn said(step: &Step) -> String {
    step.value.clone()
}

fn record(step: &Step, world: &DrillWorld, status: StepStatus, begun: Instant, seen: Option<String>, error: Option<String>) -> StepRecord {
    let ms = if status == StepStatus::Skipped { 0 } else { u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX) };
    StepRecord { keyword: step.keyword.trim().to_owned(), text: said(step), phase: world.drill.phase(), status, ms, seen, error }
}
