-- Gives executions that were just accepted their places in their conversations. These are locked, and looked up by name:
-- a join would pass over all that there are.
WITH r AS MATERIALIZED (
    SELECT r.*, c.row
    FROM unnest($4::text[], $5::text[], $6::bigint[], $7::uuid[], $8::bigint[])
        AS r (agent_name, conversation_id, places, turn, turn_place)
    CROSS JOIN LATERAL (
        SELECT ctid AS row FROM conversations
        WHERE agent_name = r.agent_name AND conversation_id = r.conversation_id LIMIT 1
    ) AS c
), seated AS (
    UPDATE executions e SET place = s.place, waits_turn = s.waits,
        due_at = CASE WHEN s.waits THEN e.deadline ELSE e.due_at END,
        status_reason = CASE WHEN s.waits THEN 'waits for its turn in its conversation' END
    FROM unnest($1::uuid[], $2::bigint[], $3::boolean[]) AS s (id, place, waits)
    WHERE e.id = ANY ($1) AND e.id = s.id
)
UPDATE conversations c SET places = r.places, turn = coalesce(r.turn, c.turn),
    turn_place = coalesce(r.turn_place, c.turn_place)
FROM r
WHERE c.ctid = ANY (ARRAY(SELECT row FROM r)) AND c.ctid = r.row
