Feature: Data rollback
  Reverting code does not bring data back. Only a tested restore does.

  Scenario: A migration corrupts a table, and the database is restored to the moment before
    Given a platform with the sample application running
    And recovery may take at most 5 minutes

    # The known-good state
    And the last backup is verified
    And a fresh backup is taken
    And the known-good state is recorded as "before the release"

    # The change and its damage
    When the application keeps taking orders
    And the migration "corrupt_dummy" is deployed
    Then the migration history contains "corrupt_dummy"
    And schema or data differ from "before the release"
    And table "dummy" has changed rows
    And the application reports database errors

    # The code goes back, the data does not
    When the change is reverted in Git
    Then exactly the reverting revision is applied
    And the application runs the known-good version
    But the data is still damaged

    # The data goes back
    When the database is restored to "before the release" by time
    Then replay stopped exactly there
    And the restored server is the same system on a new timeline
    When the application is pointed at the restored database

    # Proof
    Then schema and data equal "before the release", exactly
    And the migration history does not contain "corrupt_dummy"
    And the application is healthy
