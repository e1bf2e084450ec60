Feature: A deleted half of a table
  The way back is a restore point that was named before the release.

  Scenario: A migration deletes every second row, and the database is restored to a named restore point
    Given a platform with the sample application running
    And the last backup is verified
    And a fresh backup is taken
    And the known-good state is recorded as "all rows there"

    When the migration "delete_half_of_dummy" is deployed
    Then the migration history contains "delete_half_of_dummy"
    And schema or data differ from "all rows there"
    And table "dummy" has 500 deleted rows
    And the application reports database errors

    When the change is reverted in Git
    Then exactly the reverting revision is applied
    And the application runs the known-good version
    But the data is still damaged

    When the database is restored to "all rows there" by restore point
    Then replay stopped exactly there
    And the restored server is the same system on a new timeline
    When the application is pointed at the restored database

    Then schema and data equal "all rows there", exactly
    And the migration history does not contain "delete_half_of_dummy"
    And the application is healthy
