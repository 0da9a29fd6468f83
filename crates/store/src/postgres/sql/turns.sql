-- How far conversations are, and whose turn it is in them. Each is looked up by its name: a plan for many would pass over
-- all that there are, most of which sleep. Places are given up in the middle as well, so their difference is only how
-- many wait at most; they are counted one by one where that could be too many.
SELECT r.n, c.turn, c.places,
    EXISTS (SELECT 1 FROM executions e WHERE e.id = c.turn AND e.finished_at IS NULL),
    CASE WHEN c.places - c.turn_place >= $3::bigint THEN (
        SELECT count(*) FROM executions e
        WHERE e.agent_name = r.agent AND e.conversation_id = r.name AND e.waits_turn AND e.finished_at IS NULL
    ) ELSE c.places - c.turn_place END
FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS r (agent, name, n)
CROSS JOIN LATERAL (
    SELECT turn, places, turn_place FROM conversations
    WHERE agent_name = r.agent AND conversation_id = r.name LIMIT 1
) AS c
