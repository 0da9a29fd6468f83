-- Claims the oldest events that no relay has. A claim that is lost with the server only means that an event is sent
-- twice, so its commit need not wait for the disk.
WITH quickly AS (
    SELECT set_config('synchronous_commit', 'off', true)
), free AS (
    SELECT o.id
    FROM outbox o, quickly
    WHERE o.claimed_until IS NULL OR o.claimed_until <= $1
    ORDER BY o.id
    LIMIT $3
    FOR UPDATE OF o SKIP LOCKED
)
UPDATE outbox o SET claimed_until = $2
WHERE o.id = ANY (ARRAY(SELECT id FROM free))
RETURNING o.id, o.event
