-- Executions, their journals, and what is committed together with them.
--
-- Five tables are partitioned by the time in the ids of executions (UUID version 7; a child's id begins with its
-- parent's time): one partition a month, made ahead by the program (crates/store/src/postgres/partitions.rs), and
-- `*_other` for ids of other kinds. So the id alone is the key, finds its partition, and old months can be dropped
-- whole. There are no foreign keys: each verb writes all rows of an execution in one transaction, and a key would
-- cost a look-up for each step.
--
-- `slot` spreads counters over several rows, so that transactions at the same time do not wait for one another: it is
-- a number of the connection's, and readers add up.

-- One row per execution: how it stands. What was asked, which may be long and never changes, is in execution_specs.
CREATE TABLE executions (
    id              uuid NOT NULL,
    agent_name      text NOT NULL,
    version         text NOT NULL,
    execution_mode  text NOT NULL,
    priority        smallint NOT NULL,
    status          text NOT NULL,
    status_reason   text,
    created_at      timestamptz NOT NULL,
    deadline        timestamptz NOT NULL,
    started_at      timestamptz,
    finished_at     timestamptz,
    due_at          timestamptz,                 -- when it may next be claimed; NULL when it is over
    epoch           integer NOT NULL DEFAULT 0,
    worker          text,                        -- who has the lease; NULL while nobody has
    heartbeat_at    timestamptz,
    crashes         integer NOT NULL DEFAULT 0,
    wakes           bigint NOT NULL DEFAULT 0,
    wakes_claimed   bigint NOT NULL DEFAULT 0,   -- wakes when the lease was taken
    cancel_by       text,
    cancel_reason   text,
    steps           integer NOT NULL DEFAULT 0,
    input_tokens    bigint NOT NULL DEFAULT 0,
    output_tokens   bigint NOT NULL DEFAULT 0,
    cached_tokens   bigint NOT NULL DEFAULT 0,
    cost_nanos      bigint NOT NULL DEFAULT 0,   -- billionths of a dollar
    model_calls     integer NOT NULL DEFAULT 0,
    tool_calls      integer NOT NULL DEFAULT 0,
    provider        text,                        -- of the last model call: tool calls are counted with it
    model           text,
    conversation_id text,
    trace_id        text NOT NULL,
    parent_id       uuid,
    event_id        text,
    PRIMARY KEY (id),
    CHECK ((due_at IS NULL) = (finished_at IS NOT NULL))
) PARTITION BY RANGE (id);

-- All work that is or will be due, in the order in which it is claimed.
CREATE INDEX executions_due ON executions (priority, execution_mode, agent_name, due_at) WHERE due_at IS NOT NULL;
CREATE INDEX executions_time ON executions (created_at, id);
CREATE INDEX executions_agent ON executions (agent_name, created_at);
CREATE INDEX executions_status ON executions (status, created_at);
CREATE INDEX executions_trace ON executions (trace_id);
CREATE INDEX executions_worker ON executions (worker) WHERE worker IS NOT NULL;
CREATE INDEX executions_parent ON executions (parent_id) WHERE parent_id IS NOT NULL;
CREATE INDEX executions_conversation ON executions (agent_name, conversation_id, created_at)
    WHERE conversation_id IS NOT NULL;

-- What has ended stays as it ended, whoever asks.
CREATE FUNCTION executions_stay_over() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'a terminal state never changes' USING ERRCODE = 'check_violation';
END $$;
CREATE TRIGGER executions_final BEFORE UPDATE OF status ON executions
    FOR EACH ROW WHEN (OLD.finished_at IS NOT NULL AND NEW.status IS DISTINCT FROM OLD.status)
    EXECUTE FUNCTION executions_stay_over();

-- One (agent, event id) starts one execution. A unique index on a partitioned table would hold within a month only.
CREATE TABLE execution_events (
    agent_name   text NOT NULL,
    event_id     text NOT NULL,
    execution_id uuid NOT NULL,
    PRIMARY KEY (agent_name, event_id)
);

-- What was asked, as JSON. JSON is kept as text everywhere: it is read whole, and `jsonb` refuses some valid JSON.
CREATE TABLE execution_specs (
    execution_id uuid NOT NULL,
    spec         text NOT NULL,
    PRIMARY KEY (execution_id)
) PARTITION BY RANGE (execution_id);

-- The journal.
CREATE TABLE steps (
    execution_id uuid NOT NULL,
    seq          integer NOT NULL,
    at           timestamptz NOT NULL,
    epoch        integer NOT NULL,
    kind         text NOT NULL,
    body         text NOT NULL,
    PRIMARY KEY (execution_id, seq)
) PARTITION BY RANGE (execution_id);

-- How executions ended.
CREATE TABLE execution_results (
    execution_id uuid NOT NULL,
    agent_name   text NOT NULL,
    status       text NOT NULL,
    outcome      text NOT NULL,
    created_at   timestamptz NOT NULL,
    PRIMARY KEY (execution_id)
) PARTITION BY RANGE (execution_id);
CREATE INDEX execution_results_time ON execution_results (created_at);

-- What people were asked. `answer` is theirs; `consumed` tells that the journal has an answer, theirs or another.
CREATE TABLE inputs (
    execution_id uuid NOT NULL,
    request      integer NOT NULL,
    question     text NOT NULL,
    until        timestamptz NOT NULL,
    answer       text,
    answered_by  text,
    answered_at  timestamptz,
    consumed     boolean NOT NULL DEFAULT false,
    PRIMARY KEY (execution_id, request)
) PARTITION BY RANGE (execution_id);

-- How many executions each agent has in each state, kept by the statements that change states: counting rows would
-- take longer with every execution.
CREATE TABLE execution_counts (
    agent_name text NOT NULL,
    status     text NOT NULL,
    slot       smallint NOT NULL,
    n          bigint NOT NULL,
    PRIMARY KEY (agent_name, status, slot)
) WITH (fillfactor = 50);

-- Rows deleted by hand are no longer counted.
CREATE FUNCTION executions_count_gone() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO execution_counts AS c (agent_name, status, slot, n)
        SELECT agent_name, status, 0, -count(*) FROM gone GROUP BY 1, 2 ORDER BY 1, 2
        ON CONFLICT (agent_name, status, slot) DO UPDATE SET n = c.n + excluded.n;
    RETURN NULL;
END $$;
CREATE TRIGGER executions_gone AFTER DELETE ON executions REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION executions_count_gone();

CREATE TABLE idempotency_keys (
    key          text PRIMARY KEY,
    body_hash    text NOT NULL,
    execution_id uuid NOT NULL,
    created_at   timestamptz NOT NULL
);
CREATE INDEX idempotency_keys_time ON idempotency_keys (created_at);

-- Events on their way out. Rows live for milliseconds, so the table is swept often.
CREATE TABLE outbox (
    id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    event_id text NOT NULL UNIQUE,
    event    text NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);

CREATE TABLE dead_letters (
    id       text PRIMARY KEY,
    queue    text NOT NULL,
    event    text NOT NULL,
    reason   text NOT NULL,
    attempts integer NOT NULL,
    at       timestamptz NOT NULL
);
CREATE INDEX dead_letters_time ON dead_letters (at, id);

CREATE TABLE usage_daily (
    agent_name    text NOT NULL,
    day           date NOT NULL,
    provider      text NOT NULL,
    model         text NOT NULL,
    slot          smallint NOT NULL,
    model_calls   bigint NOT NULL,
    tool_calls    bigint NOT NULL,
    input_tokens  bigint NOT NULL,
    output_tokens bigint NOT NULL,
    cached_tokens bigint NOT NULL,
    cost_nanos    bigint NOT NULL,
    PRIMARY KEY (agent_name, day, provider, model, slot)
) WITH (fillfactor = 50);

-- Written by the health check.
CREATE TABLE checks (
    id integer PRIMARY KEY CHECK (id = 1),
    n  bigint NOT NULL
);
