Feature: A rollback of one's own migration
  What turnback.yaml names: a database, a migration, and how to find the way back.

  Scenario: The configured migration is deployed, reverted, and the database is restored to the moment before
    Given a platform with the configured database
    And the last backup is verified
    And a fresh backup is taken
    And the known-good state is recorded as "before the migration"

    When the configured migration is deployed
    Then the change is in the migration history
    And schema or data differ from "before the migration"

    When the change is reverted in Git
    Then exactly the reverting revision is applied
    But the data is still damaged

    When the database is restored to "before the migration" by the configured target
    Then replay stopped exactly there
    And the restored server is the same system on a new timeline

    Then schema and data equal "before the migration", exactly
    And the change is not in the migration history
