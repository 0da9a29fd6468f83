-- The audit log. Each process writes a chain of its own: nobody waits for anybody.
CREATE TABLE audit_log (
    chain    uuid NOT NULL,
    seq      bigint NOT NULL,
    at       timestamptz NOT NULL,
    who      text NOT NULL,
    action   text NOT NULL,
    target   text NOT NULL,
    outcome  text NOT NULL,           -- done, refused, denied, failed
    trace_id text NOT NULL,
    line     text NOT NULL,           -- all of it as it is hashed, with the hash; the columns repeat parts of it
    PRIMARY KEY (chain, seq)
);
CREATE INDEX audit_log_by_time ON audit_log (at DESC, chain DESC, seq DESC);
-- Where each chain ends, and before which line its rows were forgotten.
CREATE TABLE audit_chains (
    chain  uuid PRIMARY KEY,
    anchor text NOT NULL,
    head   text NOT NULL
);
