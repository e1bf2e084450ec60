//! What is done: the change, its revert, the restore.

use super::DrillWorld;
use super::parameters::{FileName, Instant, MigrationName, RecoveryPointName, Side, TargetName};
use cucumber::{gherkin::Step, when};
use turnback::workflow::{Migration, docstring};

#[when("the application keeps taking orders")]
async fn traffic(world: &mut DrillWorld) {
    world.outcome = Some(world.drill.start_traffic().await);
}

#[when(expr = "the migration {migration} is deployed")]
async fn shipped_migration(world: &mut DrillWorld, migration: MigrationName) {
    world.outcome = Some(world.drill.deploy(Migration::Shipped(migration.0)).await);
}

#[when("the configured migration is deployed")]
async fn configured_migration(world: &mut DrillWorld) {
    world.outcome = Some(world.drill.deploy(Migration::Configured).await);
}

#[when(expr = "the migration from {file} is deployed")]
async fn migration_from_file(world: &mut DrillWorld, file: FileName) {
    let path = world.base.join(file.0);
    world.outcome = Some(world.drill.deploy(Migration::File(path)).await);
}

#[when(expr = "the migration {migration} is deployed:")]
async fn migration_from_text(world: &mut DrillWorld, migration: MigrationName, step: &Step) {
    world.outcome = Some(match docstring(step.docstring.as_deref()) {
        Ok(sql) => world.drill.deploy(Migration::Sql { name: migration.0, sql }).await,
        Err(failure) => Err(failure),
    });
}

#[when("the change is reverted in Git")]
async fn reverted(world: &mut DrillWorld) {
    world.outcome = Some(world.drill.revert().await);
}

#[when(expr = "the database is restored to {recovery_point} by {target}")]
async fn restored(world: &mut DrillWorld, point: RecoveryPointName, target: TargetName) {
    world.outcome = Some(world.drill.restore(&point.0, target.0, None).await);
}

#[when(expr = "the database is restored to {recovery_point} by {target}, {side}")]
async fn restored_on_a_side(world: &mut DrillWorld, point: RecoveryPointName, target: TargetName, side: Side) {
    world.outcome = Some(world.drill.restore(&point.0, target.0, Some(side.0)).await);
}

#[when(expr = "the database is restored to {recovery_point} by the configured target")]
async fn restored_as_configured(world: &mut DrillWorld, point: RecoveryPointName) {
    let kind = world.drill.configured_target();
    world.outcome = Some(world.drill.restore(&point.0, kind, None).await);
}

#[when(expr = "the database is restored to the time {instant}")]
async fn restored_to_instant(world: &mut DrillWorld, instant: Instant) {
    world.outcome = Some(world.drill.restore_to(instant.0).await);
}

#[when("the application is pointed at the restored database")]
async fn switched(world: &mut DrillWorld) {
    world.outcome = Some(world.drill.switch().await);
}
