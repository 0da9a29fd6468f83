-- Messages of one conversation are processed in order, one at a time; and what a caller keeps beside them.

ALTER TABLE executions
    ADD COLUMN place      bigint,                          -- in the order of its conversation, from 1
    ADD COLUMN waits_turn boolean NOT NULL DEFAULT false;  -- an earlier one of its conversation is not over

-- Who comes next in a conversation.
CREATE INDEX executions_turn ON executions (agent_name, conversation_id, place)
    WHERE waits_turn AND finished_at IS NULL;

ALTER TABLE conversations
    ADD COLUMN turn       uuid,                            -- the execution whose turn it is
    ADD COLUMN turn_place bigint,                          -- its place
    ADD COLUMN places     bigint NOT NULL DEFAULT 0,       -- how many were ever given: the last one
    ADD COLUMN version    bigint NOT NULL DEFAULT 0,       -- counts changes of messages and state
    ADD COLUMN state_data text,                            -- a caller's own, as JSON
    ADD COLUMN metadata   text;                            -- a caller's own, as JSON
