//! What must be seen.

use super::DrillWorld;
use super::parameters::{Count, Length, MigrationName, ObjectName, RecoveryPointName, RowChange, TableName};
use cucumber::then;

#[then(expr = "the migration history contains {migration}")]
async fn in_history(world: &mut DrillWorld, migration: MigrationName) {
    world.outcome = Some(world.drill.expect_in_history(&migration.0, true).await);
}

#[then(expr = "the migration history does not contain {migration}")]
async fn not_in_history(world: &mut DrillWorld, migration: MigrationName) {
    world.outcome = Some(world.drill.expect_in_history(&migration.0, false).await);
}

#[then("the change is in the migration history")]
async fn change_in_history(world: &mut DrillWorld) {
    world.outcome = Some(world.drill.expect_change_in_history(true).await);
}

#[then("the change is not in the migration history")]
async fn change_not_in_history(world: &mut DrillWorld) {
    world.outcome = Some(world.drill.expect_change_in_history(false).await);
}

#[then(expr = "schema or data differ from {recovery_point}")]
async fn damaged(world: &mut DrillWorld, point: RecoveryPointName) {
    world.outcome = Some(world.drill.show_damage(&point.0).await);
}

#[then(expr = "table {table} has {difference} rows")]
async fn table_rows(world: &mut DrillWorld, table: TableName, change: RowChange) {
    world.outcome = Some(world.drill.expect_rows(&table.0, change.0, None));
}

#[then(expr = "table {table} has {count} {difference} rows")]
async fn table_row_count(world: &mut DrillWorld, table: TableName, count: Count, change: RowChange) {
    world.outcome = Some(world.drill.expect_rows(&table.0, change.0, Some(count.0)));
}

#[then(expr = "the schema differs in {object}")]
async fn schema_object(world: &mut DrillWorld, object: ObjectName) {
    world.outcome = Some(world.drill.expect_schema_difference(&object.0));
}

#[then("the application reports database errors")]
async fn application_errors(world: &mut DrillWorld) {
    world.outcome = Some(world.drill.expect_application_errors().await);
}

#[then("exactly the reverting revision is applied")]
async fn revision_applied(world: &mut DrillWorld) {
    world.outcome = Some(world.drill.expect_reverting_revision().await);
}

#[then("the application runs the known-good version")]
async fn known_good_version(world: &mut DrillWorld) {
    world.outcome = Some(world.drill.expect_known_good_version().await);
}

#[then("the data is still damaged")]
async fn still_damaged(world: &mut DrillWorld) {
    world.outcome = Some(world.drill.expect_still_damaged().await);
}

#[then("replay stopped exactly there")]
async fn stopped_there(world: &mut DrillWorld) {
    world.outcome = Some(world.drill.expect_proven_stop());
}

#[then("the restored server is the same system on a new timeline")]
async fn new_timeline(world: &mut DrillWorld) {
    world.outcome = Some(world.drill.expect_new_timeline());
}

#[then(expr = "schema and data equal {recovery_point}, exactly")]
async fn recovered(world: &mut DrillWorld, point: RecoveryPointName) {
    world.outcome = Some(world.drill.expect_equal(&point.0).await);
}

#[then("the application is healthy")]
async fn healthy(world: &mut DrillWorld) {
    world.outcome = Some(world.drill.expect_healthy().await);
}

#[then(expr = "recovery took at most {duration}")]
async fn recovery_took(world: &mut DrillWorld, length: Length) {
    world.outcome = Some(world.drill.expect_rto(length.0));
}
