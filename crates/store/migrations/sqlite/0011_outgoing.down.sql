DROP TABLE alert_state;
DROP TRIGGER executions_callback;
DROP TABLE deliveries;
ALTER TABLE executions DROP COLUMN has_callback;
