-- What people said of agents, over their files. An agent of which nothing was said has no row.
CREATE TABLE agent_switches (
    agent_name TEXT PRIMARY KEY NOT NULL,
    off_by     TEXT,                 -- who disabled it; it takes work when null
    off_at     INTEGER,
    restarts   INTEGER NOT NULL      -- how often it was restarted: each process acts on those that it has not seen
) WITHOUT ROWID;
