-- What the agents of a team know together: every version of every value, in the order in which they were written.
-- No reference to executions: months of them are dropped whole.
CREATE TABLE shared_state (
    team            uuid NOT NULL,        -- the coordinator's execution
    key             text NOT NULL,
    version         bigint NOT NULL,      -- of the key, from 1
    value           text NOT NULL,        -- as JSON
    execution_id    uuid NOT NULL,        -- who wrote it
    idempotency_key text NOT NULL,        -- a repeated write is made once
    at              timestamptz NOT NULL,
    PRIMARY KEY (team, key, version)
);
CREATE UNIQUE INDEX shared_state_writes ON shared_state (team, idempotency_key);
