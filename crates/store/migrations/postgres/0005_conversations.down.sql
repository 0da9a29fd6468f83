-- Those that wait for their turn would wait for ever.
UPDATE executions SET due_at = created_at WHERE waits_turn AND finished_at IS NULL AND worker IS NULL;
DROP INDEX executions_turn;
ALTER TABLE executions DROP COLUMN place, DROP COLUMN waits_turn;
ALTER TABLE conversations DROP COLUMN turn, DROP COLUMN turn_place, DROP COLUMN places, DROP COLUMN version,
    DROP COLUMN state_data, DROP COLUMN metadata;
