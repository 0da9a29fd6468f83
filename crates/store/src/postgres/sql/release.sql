-- Gives the turn in conversations to the next of each, where it was that of an execution that is over. The rows of the
-- conversations are locked before, by another statement: this one must see whoever came in meanwhile. Each is looked up by
-- its name: a join would pass over all that there are.
WITH r AS MATERIALIZED (
    SELECT r.agent_name, r.conversation_id, r.now, c.row
    FROM unnest($1::text[], $2::text[], $3::uuid[], $4::timestamptz[]) AS r (agent_name, conversation_id, over, now)
    CROSS JOIN LATERAL (
        SELECT ctid AS row, turn FROM conversations
        WHERE agent_name = r.agent_name AND conversation_id = r.conversation_id LIMIT 1
    ) AS c
    WHERE c.turn = r.over
), next AS MATERIALIZED (
    SELECT r.agent_name, r.conversation_id, r.now, y.id, y.place
    FROM r CROSS JOIN LATERAL (
        SELECT e.id, e.place FROM executions e
        WHERE e.agent_name = r.agent_name AND e.conversation_id = r.conversation_id
            AND e.waits_turn AND e.finished_at IS NULL
        ORDER BY e.place LIMIT 1
        FOR UPDATE
    ) AS y
), woken AS (
    UPDATE executions e SET waits_turn = false, status_reason = NULL,
        due_at = CASE WHEN e.worker IS NULL THEN least(e.due_at, next.now) ELSE e.due_at END
    FROM next WHERE e.id = ANY (ARRAY(SELECT id FROM next)) AND e.id = next.id
)
UPDATE conversations c SET turn = next.id, turn_place = next.place
FROM r LEFT JOIN next ON next.agent_name = r.agent_name AND next.conversation_id = r.conversation_id
WHERE c.ctid = ANY (ARRAY(SELECT row FROM r)) AND c.ctid = r.row
RETURNING next.id IS NOT NULL
