-- Gives executions that were just accepted their places in their conversations.
WITH seated AS (
    UPDATE executions e SET place = r.place, waits_turn = r.waits,
        due_at = CASE WHEN r.waits THEN e.deadline ELSE e.due_at END,
        status_reason = CASE WHEN r.waits THEN 'waits for its turn in its conversation' END
    FROM unnest($1::uuid[], $2::bigint[], $3::boolean[]) AS r (id, place, waits)
    WHERE e.id = ANY ($1) AND e.id = r.id
)
UPDATE conversations c SET places = r.places, turn = coalesce(r.turn, c.turn),
    turn_place = coalesce(r.turn_place, c.turn_place)
FROM unnest($4::text[], $5::text[], $6::bigint[], $7::uuid[], $8::bigint[])
    AS r (agent_name, conversation_id, places, turn, turn_place)
WHERE c.agent_name = r.agent_name AND c.conversation_id = r.conversation_id
