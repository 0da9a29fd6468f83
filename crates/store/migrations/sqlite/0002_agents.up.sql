-- What belongs to agents rather than to one execution: definitions, conversations, memory.

CREATE TABLE agent_configs (
    agent_name TEXT NOT NULL,
    version    TEXT NOT NULL,
    definition TEXT NOT NULL,
    source     TEXT NOT NULL,
    path       TEXT NOT NULL,
    loaded_at  INTEGER NOT NULL,
    is_current INTEGER NOT NULL,
    PRIMARY KEY (agent_name, version)
);

CREATE TABLE conversations (
    agent_name      TEXT NOT NULL,
    conversation_id TEXT NOT NULL,
    created_at      INTEGER NOT NULL,
    updated_at      INTEGER NOT NULL,
    messages        INTEGER NOT NULL, -- how many there ever were: the position of the last
    PRIMARY KEY (agent_name, conversation_id)
) WITHOUT ROWID;

CREATE TABLE messages (
    agent_name      TEXT NOT NULL,
    conversation_id TEXT NOT NULL,
    seq             INTEGER NOT NULL,
    execution_id    BLOB NOT NULL,
    created_at      INTEGER NOT NULL,
    message         TEXT NOT NULL,
    PRIMARY KEY (agent_name, conversation_id, seq)
);

-- Facts that agents remember.
CREATE TABLE agent_states (
    agent_name TEXT NOT NULL,
    key        TEXT NOT NULL,
    value      TEXT NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (agent_name, key)
);
CREATE INDEX agent_states_time ON agent_states (agent_name, updated_at);

-- Which writes have been made, so that a repeated one changes nothing.
CREATE TABLE agent_state_writes (
    agent_name      TEXT NOT NULL,
    idempotency_key TEXT NOT NULL,
    at              INTEGER NOT NULL,
    PRIMARY KEY (agent_name, idempotency_key)
) WITHOUT ROWID;
CREATE INDEX agent_state_writes_time ON agent_state_writes (at);
