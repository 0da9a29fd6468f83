-- The agents with due work in each priority and mode. It leaps from agent to agent in the index, so that it costs the
-- same however much work each of them has.
WITH RECURSIVE agents AS (
    SELECT p AS priority, m AS mode, first.agent_name, first.due_at
    FROM unnest($1::smallint[]) AS p CROSS JOIN unnest($2::text[]) AS m CROSS JOIN LATERAL (
        SELECT e.agent_name, e.due_at FROM executions e
        WHERE e.due_at IS NOT NULL AND e.priority = p AND e.execution_mode = m
        ORDER BY e.agent_name, e.due_at LIMIT 1
    ) AS first
    UNION ALL
    SELECT a.priority, a.mode, next.agent_name, next.due_at
    FROM agents a CROSS JOIN LATERAL (
        SELECT e.agent_name, e.due_at FROM executions e
        WHERE e.due_at IS NOT NULL AND e.priority = a.priority AND e.execution_mode = a.mode
            AND e.agent_name > a.agent_name
        ORDER BY e.agent_name, e.due_at LIMIT 1
    ) AS next
)
SELECT priority, mode, agent_name FROM agents WHERE due_at <= $3 AND agent_name <> ALL ($4::text[])
