-- Messages of one conversation are processed in order, one at a time; and what a caller keeps beside them.

ALTER TABLE executions ADD COLUMN place INTEGER;                        -- in the order of its conversation, from 1
ALTER TABLE executions ADD COLUMN waits_turn INTEGER NOT NULL DEFAULT 0; -- an earlier one of its conversation is not over

-- Who comes next in a conversation.
CREATE INDEX executions_turn ON executions (agent_name, conversation_id, place)
    WHERE waits_turn = 1 AND finished_at IS NULL;

ALTER TABLE conversations ADD COLUMN turn BLOB;                          -- the execution whose turn it is
ALTER TABLE conversations ADD COLUMN turn_place INTEGER;                 -- its place
ALTER TABLE conversations ADD COLUMN places INTEGER NOT NULL DEFAULT 0;  -- how many were ever given: the last one
ALTER TABLE conversations ADD COLUMN version INTEGER NOT NULL DEFAULT 0; -- counts changes of messages and state
ALTER TABLE conversations ADD COLUMN state_data TEXT;                    -- a caller's own, as JSON
ALTER TABLE conversations ADD COLUMN metadata TEXT;                      -- a caller's own, as JSON
