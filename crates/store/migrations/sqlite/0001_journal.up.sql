-- Executions, their journals, and what is committed together with them.
-- Times are microseconds since 1970 in UTC, execution ids the 16 bytes of a UUID, money billionths of a dollar.

-- One row per execution: how it stands. It is small because every commit rewrites it; what was asked, which may be
-- long and never changes, is in execution_specs.
CREATE TABLE executions (
    id              BLOB NOT NULL UNIQUE,
    agent_name      TEXT NOT NULL,
    version         TEXT NOT NULL,
    execution_mode  TEXT NOT NULL,
    priority        INTEGER NOT NULL,
    status          TEXT NOT NULL,
    status_reason   TEXT,
    created_at      INTEGER NOT NULL,
    deadline        INTEGER NOT NULL,
    started_at      INTEGER,
    finished_at     INTEGER,
    due_at          INTEGER,                    -- when it may next be claimed; NULL when it is over
    epoch           INTEGER NOT NULL DEFAULT 0,
    worker          TEXT,                       -- who has the lease; NULL while nobody has
    heartbeat_at    INTEGER,
    crashes         INTEGER NOT NULL DEFAULT 0,
    wakes           INTEGER NOT NULL DEFAULT 0,
    wakes_claimed   INTEGER NOT NULL DEFAULT 0, -- wakes when the lease was taken
    cancel_by       TEXT,
    cancel_reason   TEXT,
    steps           INTEGER NOT NULL DEFAULT 0,
    input_tokens    INTEGER NOT NULL DEFAULT 0,
    output_tokens   INTEGER NOT NULL DEFAULT 0,
    cached_tokens   INTEGER NOT NULL DEFAULT 0,
    cost_nanos      INTEGER NOT NULL DEFAULT 0,
    model_calls     INTEGER NOT NULL DEFAULT 0,
    tool_calls      INTEGER NOT NULL DEFAULT 0,
    provider        TEXT,                       -- of the last model call: tool calls are counted with it
    model           TEXT,
    conversation_id TEXT,
    trace_id        TEXT NOT NULL,
    parent_id       BLOB,
    event_id        TEXT,
    CHECK ((due_at IS NULL) = (finished_at IS NOT NULL))
);

-- All work that is or will be due, in the order in which it is claimed.
CREATE INDEX executions_due ON executions (priority, execution_mode, agent_name, due_at) WHERE due_at IS NOT NULL;
CREATE INDEX executions_time ON executions (created_at);
CREATE INDEX executions_agent ON executions (agent_name, created_at);
CREATE INDEX executions_status ON executions (status, created_at);
CREATE INDEX executions_trace ON executions (trace_id);
CREATE INDEX executions_parent ON executions (parent_id) WHERE parent_id IS NOT NULL;
CREATE INDEX executions_conversation ON executions (agent_name, conversation_id, created_at)
    WHERE conversation_id IS NOT NULL;
-- One (agent, event id) starts one execution.
CREATE UNIQUE INDEX executions_event ON executions (agent_name, event_id) WHERE event_id IS NOT NULL;

-- What was asked, as JSON.
CREATE TABLE execution_specs (
    execution_id BLOB PRIMARY KEY NOT NULL REFERENCES executions (id) ON DELETE CASCADE,
    spec         TEXT NOT NULL
) WITHOUT ROWID;

-- The journal. With a rowid, so that steps of many executions that are committed together lie together: that writes
-- a third of the pages that clustering by execution would.
CREATE TABLE steps (
    execution_id BLOB NOT NULL REFERENCES executions (id) ON DELETE CASCADE,
    seq          INTEGER NOT NULL,
    at           INTEGER NOT NULL,
    epoch        INTEGER NOT NULL,
    kind         TEXT NOT NULL,
    body         TEXT NOT NULL,
    PRIMARY KEY (execution_id, seq)
);

-- How executions ended.
CREATE TABLE execution_results (
    execution_id BLOB PRIMARY KEY NOT NULL REFERENCES executions (id) ON DELETE CASCADE,
    agent_name   TEXT NOT NULL,
    status       TEXT NOT NULL,
    outcome      TEXT NOT NULL,
    created_at   INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX execution_results_time ON execution_results (created_at);

-- What people were asked. `answer` is theirs; `consumed` tells that the journal has an answer, theirs or another.
CREATE TABLE inputs (
    execution_id BLOB NOT NULL REFERENCES executions (id) ON DELETE CASCADE,
    request      INTEGER NOT NULL,
    question     TEXT NOT NULL,
    until        INTEGER NOT NULL,
    answer       TEXT,
    answered_by  TEXT,
    answered_at  INTEGER,
    consumed     INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (execution_id, request)
) WITHOUT ROWID;

-- How many executions each agent has in each state, kept by the triggers below: counting rows would take longer
-- with every execution.
CREATE TABLE execution_counts (
    agent_name TEXT NOT NULL,
    status     TEXT NOT NULL,
    n          INTEGER NOT NULL,
    PRIMARY KEY (agent_name, status)
) WITHOUT ROWID;

CREATE TRIGGER executions_count_new AFTER INSERT ON executions BEGIN
    INSERT INTO execution_counts VALUES (NEW.agent_name, NEW.status, 1)
        ON CONFLICT DO UPDATE SET n = n + 1;
END;
CREATE TRIGGER executions_count_change AFTER UPDATE OF status ON executions WHEN OLD.status <> NEW.status BEGIN
    UPDATE execution_counts SET n = n - 1 WHERE agent_name = OLD.agent_name AND status = OLD.status;
    INSERT INTO execution_counts VALUES (NEW.agent_name, NEW.status, 1)
        ON CONFLICT DO UPDATE SET n = n + 1;
END;
CREATE TRIGGER executions_count_gone AFTER DELETE ON executions BEGIN
    UPDATE execution_counts SET n = n - 1 WHERE agent_name = OLD.agent_name AND status = OLD.status;
END;
-- What has ended stays as it ended, whoever asks.
CREATE TRIGGER executions_final BEFORE UPDATE OF status ON executions WHEN OLD.finished_at IS NOT NULL BEGIN
    SELECT RAISE(ABORT, 'a terminal state never changes');
END;

CREATE TABLE idempotency_keys (
    key          TEXT PRIMARY KEY NOT NULL,
    body_hash    TEXT NOT NULL,
    execution_id BLOB NOT NULL,
    created_at   INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX idempotency_keys_time ON idempotency_keys (created_at);

-- Events on their way out. AUTOINCREMENT: an id that a slow relay still holds must never name another event.
CREATE TABLE outbox (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    event_id TEXT NOT NULL UNIQUE,
    event    TEXT NOT NULL
);

CREATE TABLE dead_letters (
    id       TEXT PRIMARY KEY NOT NULL,
    queue    TEXT NOT NULL,
    event    TEXT NOT NULL,
    reason   TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    at       INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX dead_letters_time ON dead_letters (at);

CREATE TABLE usage_daily (
    agent_name    TEXT NOT NULL,
    provider      TEXT NOT NULL,
    model         TEXT NOT NULL,
    day           TEXT NOT NULL,
    model_calls   INTEGER NOT NULL,
    tool_calls    INTEGER NOT NULL,
    input_tokens  INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL,
    cached_tokens INTEGER NOT NULL,
    cost_nanos    INTEGER NOT NULL,
    PRIMARY KEY (agent_name, day, provider, model)
) WITHOUT ROWID;

-- Written by the health check.
CREATE TABLE checks (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    n  INTEGER NOT NULL
);
