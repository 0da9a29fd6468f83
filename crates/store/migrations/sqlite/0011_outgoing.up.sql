-- What is sent out until it has arrived: the ends of executions to the addresses that came with their tasks, and alerts.

ALTER TABLE executions ADD COLUMN has_callback INTEGER NOT NULL DEFAULT 0;  -- somebody is to be told how it ends

CREATE TABLE deliveries (
    id            BLOB PRIMARY KEY NOT NULL,    -- of an execution's end: the execution's
    execution_id  BLOB REFERENCES executions (id) ON DELETE CASCADE,  -- whose end it is; NULL for an alert
    agent_name    TEXT,
    receiver      TEXT,                         -- of an alert, as alerts.yml calls them
    message       TEXT,                         -- of an alert, as JSON; that of an end is read from the execution
    event         TEXT NOT NULL,
    state         TEXT NOT NULL,                -- pending, delivered or failed
    attempts      INTEGER NOT NULL DEFAULT 0,
    claims        INTEGER NOT NULL DEFAULT 0,   -- how often it was taken: a sender that is late changes nothing
    claimed_until INTEGER,                      -- until when a sender has it to itself
    created_at    INTEGER NOT NULL,
    next_at       INTEGER,                      -- when it is tried next; NULL when it is not
    settled_at    INTEGER,                      -- when it arrived or was given up
    last_at       INTEGER,                      -- of the latest try: when it was over,
    last_status   INTEGER,                      -- what was answered,
    last_detail   TEXT                          -- and in words
) WITHOUT ROWID;
CREATE INDEX deliveries_due ON deliveries (next_at) WHERE next_at IS NOT NULL;
CREATE INDEX deliveries_time ON deliveries (created_at, id);
CREATE INDEX deliveries_execution ON deliveries (execution_id) WHERE execution_id IS NOT NULL;

-- Whatever ends an execution: the row is written in the transaction that does.
CREATE TRIGGER executions_callback AFTER UPDATE OF finished_at ON executions
    WHEN NEW.has_callback AND OLD.finished_at IS NULL AND NEW.finished_at IS NOT NULL BEGIN
    INSERT INTO deliveries (id, execution_id, agent_name, event, state, created_at, next_at)
        VALUES (NEW.id, NEW.id, NEW.agent_name, 'execution.' || NEW.status, 'pending', NEW.finished_at, NEW.finished_at)
        ON CONFLICT DO NOTHING;
END;

-- What fires and what was said about it. One row, changed only by whoever has seen its version: however many processes
-- look, one acts.
CREATE TABLE alert_state (
    id         INTEGER PRIMARY KEY CHECK (id = 1),
    version    INTEGER NOT NULL,
    state      TEXT NOT NULL,                   -- as JSON
    updated_at INTEGER NOT NULL
);
