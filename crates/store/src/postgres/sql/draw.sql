-- Locks a share of each agent's due executions, the longest due first.
SELECT q.n, d.id
FROM unnest($2::text[], $3::text[], $4::bigint[]) WITH ORDINALITY AS q (mode, agent_name, share, n)
CROSS JOIN LATERAL (
    SELECT e.id FROM executions e
    WHERE e.due_at <= $5 AND e.priority = $1 AND e.execution_mode = q.mode AND e.agent_name = q.agent_name
        AND e.id <> ALL ($6::uuid[])
    ORDER BY e.due_at LIMIT q.share
    FOR UPDATE SKIP LOCKED
) AS d
