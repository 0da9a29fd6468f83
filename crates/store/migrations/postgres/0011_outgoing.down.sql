DROP TABLE alert_state;
DROP TRIGGER executions_callback ON executions;
DROP FUNCTION executions_tell_end();
DROP TABLE deliveries;
ALTER TABLE executions DROP COLUMN has_callback;
