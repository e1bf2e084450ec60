Feature: A dropped column
  Structure and data are lost together. The way back is a position in the WAL instead of a time.

  Scenario: A migration drops a column, and the database is restored by LSN
    Given a platform with the sample application running
    And the last backup is verified
    And a fresh backup is taken
    And the known-good state is recorded as "with the column"

    When the migration "drop_dummy_column" is deployed
    Then the migration history contains "drop_dummy_column"
    And schema or data differ from "with the column"
    And the schema differs in "public.dummy.quantity"
    And the application reports database errors

    When the change is reverted in Git
    Then exactly the reverting revision is applied
    And the application runs the known-good version
    But the data is still damaged

    When the database is restored to "with the column" by LSN
    Then replay stopped exactly there
    And the restored server is the same system on a new timeline
    When the application is pointed at the restored database

    Then schema and data equal "with the column", exactly
    And the migration history does not contain "drop_dummy_column"
    And the application is healthy
