-- Those that wait for their turn would wait for ever.
UPDATE executions SET due_at = created_at WHERE waits_turn = 1 AND finished_at IS NULL AND worker IS NULL;
DROP INDEX executions_turn;
ALTER TABLE executions DROP COLUMN place;
ALTER TABLE executions DROP COLUMN waits_turn;
ALTER TABLE conversations DROP COLUMN turn;
ALTER TABLE conversations DROP COLUMN turn_place;
ALTER TABLE conversations DROP COLUMN places;
ALTER TABLE conversations DROP COLUMN version;
ALTER TABLE conversations DROP COLUMN state_data;
ALTER TABLE conversations DROP COLUMN metadata;
