-- What belongs to agents rather than to one execution: definitions, conversations, memory.

CREATE TABLE agent_configs (
    agent_name text NOT NULL,
    version    text NOT NULL,
    definition text NOT NULL,
    source     text NOT NULL,
    path       text NOT NULL,
    loaded_at  timestamptz NOT NULL,
    loaded     bigint GENERATED ALWAYS AS IDENTITY, -- the order of loading, where times are the same
    is_current boolean NOT NULL,
    PRIMARY KEY (agent_name, version)
);

CREATE TABLE conversations (
    agent_name      text NOT NULL,
    conversation_id text NOT NULL,
    created_at      timestamptz NOT NULL,
    updated_at      timestamptz NOT NULL,
    messages        bigint NOT NULL, -- how many there ever were: the position of the last
    PRIMARY KEY (agent_name, conversation_id)
);

CREATE TABLE messages (
    agent_name      text NOT NULL,
    conversation_id text NOT NULL,
    seq             bigint NOT NULL,
    execution_id    uuid NOT NULL,
    created_at      timestamptz NOT NULL,
    message         text NOT NULL,
    PRIMARY KEY (agent_name, conversation_id, seq)
);

-- Facts that agents remember.
CREATE TABLE agent_states (
    agent_name text NOT NULL,
    key        text NOT NULL,
    value      text NOT NULL,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (agent_name, key)
);
CREATE INDEX agent_states_time ON agent_states (agent_name, updated_at);

-- Which writes have been made, so that a repeated one changes nothing.
CREATE TABLE agent_state_writes (
    agent_name      text NOT NULL,
    idempotency_key text NOT NULL,
    at              timestamptz NOT NULL,
    PRIMARY KEY (agent_name, idempotency_key)
);
CREATE INDEX agent_state_writes_time ON agent_state_writes (at);
