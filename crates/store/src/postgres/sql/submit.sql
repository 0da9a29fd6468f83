-- Accepts many executions; answers the ids of those that were not there. An (agent, event id) is taken first: whoever
-- has it starts the execution.
WITH r AS MATERIALIZED (
    SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::smallint[], $6::timestamptz[],
            $7::timestamptz[], $8::text[], $9::text[], $10::uuid[], $11::text[], $12::text[], $16::boolean[])
        AS r (id, agent_name, version, execution_mode, priority, created_at, deadline, conversation_id, trace_id,
            parent_id, event_id, spec, has_callback)
), known AS (
    SELECT id FROM executions WHERE id = ANY ($1)
), first AS (
    INSERT INTO execution_events (agent_name, event_id, execution_id)
    SELECT agent_name, event_id, id FROM r
    WHERE event_id IS NOT NULL AND id NOT IN (SELECT id FROM known)
    ORDER BY agent_name, event_id
    ON CONFLICT (agent_name, event_id) DO NOTHING
    RETURNING execution_id
), new AS (
    INSERT INTO executions (id, agent_name, version, execution_mode, priority, status, created_at, deadline, due_at,
        conversation_id, trace_id, parent_id, event_id, has_callback)
    SELECT id, agent_name, version, execution_mode, priority, 'queued', created_at, deadline, created_at,
        conversation_id, trace_id, parent_id, event_id, has_callback
    FROM r
    WHERE event_id IS NULL OR id IN (SELECT execution_id FROM first)
    ORDER BY id
    ON CONFLICT (id) DO NOTHING
    RETURNING id, agent_name
), specs AS (
    INSERT INTO execution_specs (execution_id, spec) SELECT r.id, r.spec FROM r JOIN new ON new.id = r.id
), counts AS (
    INSERT INTO execution_counts AS c (agent_name, status, slot, n)
    SELECT agent_name, 'queued', pg_backend_pid() % 64, count(*) FROM new GROUP BY 1 ORDER BY 1
    ON CONFLICT (agent_name, status, slot) DO UPDATE SET n = c.n + excluded.n
), events AS (
    INSERT INTO outbox (event_id, event)
    SELECT o.event_id, o.event
    FROM unnest($13::uuid[], $14::text[], $15::text[]) WITH ORDINALITY AS o (id, event_id, event, n)
    JOIN new ON new.id = o.id
    ORDER BY o.n
    ON CONFLICT (event_id) DO NOTHING
)
SELECT id FROM new
