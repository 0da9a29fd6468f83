-- What is to be done outside, kept until it is done: messages from and to Slack.
CREATE TABLE errands (
    id          TEXT PRIMARY KEY NOT NULL,
    queue       TEXT NOT NULL,
    body        TEXT NOT NULL,           -- as JSON
    version     INTEGER NOT NULL,        -- counts claims
    due_at      INTEGER NOT NULL,
    owned_until INTEGER,                 -- nobody's when null
    done_at     INTEGER
) WITHOUT ROWID;
CREATE INDEX errands_due ON errands (queue, due_at) WHERE done_at IS NULL;
CREATE INDEX errands_done ON errands (done_at) WHERE done_at IS NOT NULL;
