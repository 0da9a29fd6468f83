-- When agents work by themselves.

-- One row per schedule: what it says, and up to which fire time everything is done with.
CREATE TABLE schedules (
    name          text PRIMARY KEY,
    agent_name    text NOT NULL,
    definition    text NOT NULL,
    file          text,                  -- the agent's file that manages it; NULL for one made by the API
    is_paused     boolean NOT NULL,      -- somebody has stopped it, whatever its definition says
    is_active     boolean NOT NULL,      -- enabled and not paused
    handled_until timestamptz NOT NULL,
    next_due      timestamptz,           -- when it is next to be looked at; NULL when nothing is to come
    version       bigint NOT NULL,       -- counts its changes: a scheduler that has seen an older one changes nothing
    created_at    timestamptz NOT NULL,
    updated_at    timestamptz NOT NULL
) WITH (fillfactor = 70);
CREATE INDEX schedules_due ON schedules (next_due) WHERE next_due IS NOT NULL;
CREATE INDEX schedules_ahead ON schedules (handled_until) WHERE next_due IS NOT NULL;
CREATE INDEX schedules_agent ON schedules (agent_name);

-- One row per fire time, written once: started, waiting for the run before, or skipped with its reason.
CREATE TABLE schedule_runs (
    schedule_name text NOT NULL,
    fire_time     timestamptz NOT NULL,
    kind          text NOT NULL,         -- schedule or manual
    state         text NOT NULL,         -- started, waiting or skipped
    execution_id  uuid,
    reason        text,                  -- of a skipped one, in a word
    detail        text,                  -- and in a sentence
    noticed_at    timestamptz NOT NULL,
    is_open       boolean NOT NULL,      -- waiting, or started and not known to be over
    PRIMARY KEY (schedule_name, fire_time)
);
CREATE INDEX schedule_runs_open ON schedule_runs (schedule_name, state, fire_time) WHERE is_open;
CREATE INDEX schedule_runs_waiting ON schedule_runs (schedule_name) WHERE state = 'waiting';
