-- The audit log. Each process writes a chain of its own: nobody waits for anybody.
CREATE TABLE audit_log (
    chain    BLOB NOT NULL,
    seq      INTEGER NOT NULL,
    at       INTEGER NOT NULL,
    who      TEXT NOT NULL,
    action   TEXT NOT NULL,
    target   TEXT NOT NULL,
    outcome  TEXT NOT NULL,           -- done, refused, denied, failed
    trace_id TEXT NOT NULL,
    line     TEXT NOT NULL,           -- all of it as it is hashed, with the hash; the columns repeat parts of it
    PRIMARY KEY (chain, seq)
) WITHOUT ROWID;
CREATE INDEX audit_log_by_time ON audit_log (at DESC, chain DESC, seq DESC);
-- Where each chain ends, and before which line its rows were forgotten.
CREATE TABLE audit_chains (
    chain  BLOB PRIMARY KEY NOT NULL,
    anchor TEXT NOT NULL,
    head   TEXT NOT NULL
) WITHOUT ROWID;
