-- Who performs executions. A worker writes its row again and again; one that was silent for long is forgotten by the
-- others. Nothing is decided by this table: leases say who may write.
CREATE TABLE workers (
    id                  TEXT PRIMARY KEY NOT NULL,
    pool                TEXT NOT NULL,
    host                TEXT NOT NULL,
    pid                 INTEGER NOT NULL,
    version             TEXT NOT NULL,
    capacity            INTEGER NOT NULL,
    active              INTEGER NOT NULL,
    finished            INTEGER NOT NULL,   -- executions brought to their end since it started
    finished_per_minute REAL NOT NULL,
    agents              TEXT NOT NULL,      -- names, as a JSON list
    started_at          INTEGER NOT NULL,
    last_heartbeat      INTEGER NOT NULL
) WITHOUT ROWID;
