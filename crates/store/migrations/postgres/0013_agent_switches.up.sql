-- What people said of agents, over their files. An agent of which nothing was said has no row.
CREATE TABLE agent_switches (
    agent_name text PRIMARY KEY,
    off_by     text,                 -- who disabled it; it takes work when null
    off_at     timestamptz,
    restarts   bigint NOT NULL       -- how often it was restarted: each process acts on those that it has not seen
);
