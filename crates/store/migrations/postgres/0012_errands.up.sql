-- What is to be done outside, kept until it is done: messages from and to Slack.
CREATE TABLE errands (
    id          text PRIMARY KEY,
    queue       text NOT NULL,
    body        text NOT NULL,           -- as JSON
    version     bigint NOT NULL,         -- counts claims
    due_at      timestamptz NOT NULL,
    owned_until timestamptz,             -- nobody's when null
    done_at     timestamptz
);
CREATE INDEX errands_due ON errands (queue, due_at) WHERE done_at IS NULL;
CREATE INDEX errands_done ON errands (done_at) WHERE done_at IS NOT NULL;
