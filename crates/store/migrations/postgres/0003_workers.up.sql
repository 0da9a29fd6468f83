-- Who performs executions. A worker writes its row again and again; one that was silent for long is forgotten by the
-- others. Nothing is decided by this table: leases say who may write.
CREATE TABLE workers (
    id                  text PRIMARY KEY,
    pool                text NOT NULL,
    host                text NOT NULL,
    pid                 integer NOT NULL,
    version             text NOT NULL,
    capacity            integer NOT NULL,
    active              integer NOT NULL,
    finished            bigint NOT NULL,            -- executions brought to their end since it started
    finished_per_minute double precision NOT NULL,
    agents              text NOT NULL,              -- names, as a JSON list
    started_at          timestamptz NOT NULL,
    last_heartbeat      timestamptz NOT NULL
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
