-- When agents work by themselves. Times are microseconds since 1970 in UTC.

-- One row per schedule: what it says, and up to which fire time everything is done with.
CREATE TABLE schedules (
    name          TEXT PRIMARY KEY NOT NULL,
    agent_name    TEXT NOT NULL,
    definition    TEXT NOT NULL,
    file          TEXT,                -- the agent's file that manages it; NULL for one made by the API
    is_paused     INTEGER NOT NULL,    -- somebody has stopped it, whatever its definition says
    is_active     INTEGER NOT NULL,    -- enabled and not paused
    handled_until INTEGER NOT NULL,
    next_due      INTEGER,             -- when it is next to be looked at; NULL when nothing is to come
    version       INTEGER NOT NULL,    -- counts its changes: a scheduler that has seen an older one changes nothing
    created_at    INTEGER NOT NULL,
    updated_at    INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX schedules_due ON schedules (next_due) WHERE next_due IS NOT NULL;
CREATE INDEX schedules_ahead ON schedules (handled_until) WHERE next_due IS NOT NULL;
CREATE INDEX schedules_agent ON schedules (agent_name);

-- One row per fire time, written once: started, waiting for the run before, or skipped with its reason.
CREATE TABLE schedule_runs (
    schedule_name TEXT NOT NULL,
    fire_time     INTEGER NOT NULL,
    kind          TEXT NOT NULL,       -- schedule or manual
    state         TEXT NOT NULL,       -- started, waiting or skipped
    execution_id  BLOB,
    reason        TEXT,                -- of a skipped one, in a word
    detail        TEXT,                -- and in a sentence
    noticed_at    INTEGER NOT NULL,
    is_open       INTEGER NOT NULL,    -- waiting, or started and not known to be over
    PRIMARY KEY (schedule_name, fire_time)
) WITHOUT ROWID;
CREATE INDEX schedule_runs_open ON schedule_runs (schedule_name, state, fire_time) WHERE is_open;
CREATE INDEX schedule_runs_waiting ON schedule_runs (schedule_name) WHERE state = 'waiting';
