//! What holds before the change: the platform and the known-good state.

use super::DrillWorld;
use super::parameters::{DatabaseName, FileName, Length, MigrationName, RecoveryPointName};
use cucumber::{gherkin::Step, given};
use turnback::workflow::{DatabaseSource, docstring};

#[given("a platform with the sample application running")]
async fn platform(world: &mut DrillWorld) {
    world.outcome = Some(world.drill.bring_up(DatabaseSource::SampleApplication).await);
}

#[given("a platform with an empty database")]
async fn empty_platform(world: &mut DrillWorld) {
    world.outcome = Some(world.drill.bring_up(DatabaseSource::Empty).await);
}

#[given("a platform with the configured database")]
async fn configured_platform(world: &mut DrillWorld) {
    world.outcome = Some(world.drill.bring_up(DatabaseSource::Configured).await);
}

#[given(expr = "a platform with the database from {file}")]
async fn platform_from_file(world: &mut DrillWorld, file: FileName) {
    let path = world.base.join(file.0);
    world.outcome = Some(world.drill.bring_up(DatabaseSource::File(path)).await);
}

#[given("a platform with this database:")]
async fn platform_from_text(world: &mut DrillWorld, step: &Step) {
    world.outcome = Some(match docstring(step.docstring.as_deref()) {
        Ok(sql) => world.drill.bring_up(DatabaseSource::Sql(sql)).await,
        Err(failure) => Err(failure),
    });
}

#[given(expr = "the database is named {database}")]
async fn database_name(world: &mut DrillWorld, name: DatabaseName) {
    world.outcome = Some(world.drill.name_database(&name.0));
}

#[given(expr = "the migration {migration} has been deployed:")]
async fn known_good_migration(world: &mut DrillWorld, migration: MigrationName, step: &Step) {
    world.outcome = Some(match docstring(step.docstring.as_deref()) {
        Ok(sql) => world.drill.deploy_known_good(&migration.0, &sql).await,
        Err(failure) => Err(failure),
    });
}

#[given("the last backup is verified")]
async fn backup_verified(world: &mut DrillWorld) {
    world.outcome = Some(world.drill.verify_last_backup().await);
}

#[given("a fresh backup is taken")]
async fn fresh_backup(world: &mut DrillWorld) {
    world.outcome = Some(world.drill.take_backup().await);
}

#[given(expr = "the known-good state is recorded as {recovery_point}")]
async fn known_good(world: &mut DrillWorld, point: RecoveryPointName) {
    world.outcome = Some(world.drill.record_known_good(&point.0).await);
}

#[given(expr = "recovery may take at most {duration}")]
async fn rto(world: &mut DrillWorld, length: Length) {
    world.outcome = Some(world.drill.promise_rto(length.0));
}

#[given(expr = "at most {duration} of writes may be lost")]
async fn rpo(world: &mut DrillWorld, length: Length) {
    world.outcome = Some(world.drill.promise_rpo(length.0));
}
