-- What is sent out until it has arrived: the ends of executions to the addresses that came with their tasks, and alerts.

ALTER TABLE executions
    ADD COLUMN has_callback boolean NOT NULL DEFAULT false;  -- somebody is to be told how it ends

CREATE TABLE deliveries (
    id            uuid PRIMARY KEY,          -- of an execution's end: the execution's
    execution_id  uuid,                      -- whose end it is; NULL for an alert
    agent_name    text,
    receiver      text,                      -- of an alert, as alerts.yml calls them
    message       text,                      -- of an alert, as JSON; that of an end is read from the execution
    event         text NOT NULL,
    state         text NOT NULL,             -- pending, delivered or failed
    attempts      integer NOT NULL DEFAULT 0,
    claims        bigint NOT NULL DEFAULT 0, -- how often it was taken: a sender that is late changes nothing
    claimed_until timestamptz,               -- until when a sender has it to itself
    created_at    timestamptz NOT NULL,
    next_at       timestamptz,               -- when it is tried next; NULL when it is not
    settled_at    timestamptz,               -- when it arrived or was given up
    last_at       timestamptz,               -- of the latest try: when it was over,
    last_status   integer,                   -- what was answered,
    last_detail   text                       -- and in words
) WITH (fillfactor = 70);
CREATE INDEX deliveries_due ON deliveries (next_at) WHERE next_at IS NOT NULL;
CREATE INDEX deliveries_time ON deliveries (created_at, id);

-- Whatever ends an execution: the row is written in the transaction that does. A trigger, because there are several
-- such statements, and one that is forgotten would lose callbacks in silence.
CREATE FUNCTION executions_tell_end() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO deliveries (id, execution_id, agent_name, event, state, created_at, next_at)
        VALUES (NEW.id, NEW.id, NEW.agent_name, 'execution.' || NEW.status, 'pending', NEW.finished_at, NEW.finished_at)
        ON CONFLICT (id) DO NOTHING;
    RETURN NULL;
END $$;
CREATE TRIGGER executions_callback AFTER UPDATE OF finished_at ON executions
    FOR EACH ROW WHEN (NEW.has_callback AND OLD.finished_at IS NULL AND NEW.finished_at IS NOT NULL)
    EXECUTE FUNCTION executions_tell_end();

-- What fires and what was said about it. One row, changed only by whoever has seen its version: however many processes
-- look, one acts.
CREATE TABLE alert_state (
    id         integer PRIMARY KEY CHECK (id = 1),
    version    bigint NOT NULL,
    state      text NOT NULL,                -- as JSON
    updated_at timestamptz NOT NULL
);
