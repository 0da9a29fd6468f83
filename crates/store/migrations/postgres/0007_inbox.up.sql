-- What waits for a person is found without a look at what was answered.
CREATE INDEX inputs_open ON inputs (execution_id, request) WHERE answer IS NULL AND NOT consumed;
