-- What the agents of a team know together: every version of every value, in the order in which they were written.
CREATE TABLE shared_state (
    team            BLOB NOT NULL REFERENCES executions (id) ON DELETE CASCADE, -- the coordinator's execution
    key             TEXT NOT NULL,
    version         INTEGER NOT NULL,                                           -- of the key, from 1
    value           TEXT NOT NULL,                                              -- as JSON
    execution_id    BLOB NOT NULL,                                              -- who wrote it
    idempotency_key TEXT NOT NULL,                                              -- a repeated write is made once
    at              INTEGER NOT NULL,
    PRIMARY KEY (team, key, version)
) WITHOUT ROWID;
CREATE UNIQUE INDEX shared_state_writes ON shared_state (team, idempotency_key);
