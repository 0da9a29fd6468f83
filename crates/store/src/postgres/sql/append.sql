-- Commits steps of many executions at once, each fenced by its epoch: one that is refused changes nothing, and is not
-- in the answer. Rows come as one array per column; $1 is sorted, so that all who write lock in the same order. It is a
-- condition of its own, so that the rows are found by the key whatever the planner believes of the table, and its ends
-- are another, so that months that none of them can be in are not looked at. With $39, an end that concerns others - a
-- parent, children, a conversation - is passed over: nothing follows this statement then.
WITH r AS MATERIALIZED (
    SELECT * FROM unnest($1::uuid[], $2::int[], $3::int[], $4::int[], $5::timestamptz[], $6::bigint[], $7::bigint[],
            $8::bigint[], $9::bigint[], $10::int[], $11::int[], $12::text[], $13::text[], $14::text[], $15::text[],
            $16::text[], $17::timestamptz[], $18::bigint[], $19::text[])
        AS r (id, epoch, before, n, now, input_tokens, output_tokens, cached_tokens, cost_nanos, model_calls, tool_calls,
            provider, model, next, status, reason, until, wakes_seen, outcome)
), fenced AS (
    UPDATE executions e SET
        steps = e.steps + r.n,
        crashes = CASE WHEN r.n > 0 THEN 0 ELSE e.crashes END,
        heartbeat_at = r.now,
        input_tokens = r.input_tokens, output_tokens = r.output_tokens, cached_tokens = r.cached_tokens,
        cost_nanos = r.cost_nanos, model_calls = r.model_calls, tool_calls = r.tool_calls,
        provider = coalesce(r.provider, e.provider), model = coalesce(r.model, e.model),
        status = coalesce(r.status, e.status),
        status_reason = CASE WHEN r.next IN ('park', 'finish') THEN r.reason ELSE e.status_reason END,
        worker = CASE WHEN r.next = 'continue' THEN e.worker END,
        due_at = CASE r.next
            WHEN 'continue' THEN e.due_at
            WHEN 'hand_back' THEN r.now
            WHEN 'park' THEN CASE WHEN e.wakes > r.wakes_seen THEN r.now ELSE r.until END
        END,
        finished_at = CASE WHEN r.next = 'finish' THEN r.now END
    FROM r
    WHERE e.id = ANY ($1) AND e.id >= ($1::uuid[])[1] AND e.id <= ($1::uuid[])[cardinality($1::uuid[])]
        AND e.id = r.id AND e.epoch = r.epoch AND e.worker IS NOT NULL
        AND e.steps = coalesce(r.before, e.steps)
        AND NOT ($39::boolean AND r.next = 'finish' AND (e.parent_id IS NOT NULL OR e.conversation_id IS NOT NULL
            OR coalesce((SELECT true FROM executions c WHERE c.parent_id = e.id AND c.finished_at IS NULL LIMIT 1), false)))
    RETURNING e.id, e.agent_name, e.status, e.provider, e.model, e.conversation_id, e.parent_id, e.finished_at,
        e.due_at <= r.now AS is_due, r.outcome, e.wakes, e.wakes > e.wakes_claimed AS is_woken, e.waits_turn
), new_steps AS (
    INSERT INTO steps (execution_id, seq, at, epoch, kind, body)
    SELECT s.id, s.seq, s.at, s.epoch, s.kind, s.body
    FROM unnest($20::uuid[], $21::int[], $22::timestamptz[], $23::int[], $24::text[], $25::text[])
        AS s (id, seq, at, epoch, kind, body)
    JOIN fenced ON fenced.id = s.id
), results AS (
    INSERT INTO execution_results (execution_id, agent_name, status, outcome, created_at)
    SELECT id, agent_name, status, outcome, finished_at FROM fenced WHERE finished_at IS NOT NULL
), counts AS (
    -- Whoever has a lease is running.
    INSERT INTO execution_counts AS c (agent_name, status, slot, n)
    SELECT agent_name, status, pg_backend_pid() % 64, sum(n)
    FROM (SELECT agent_name, 'running' AS status, -1 AS n FROM fenced WHERE status <> 'running'
        UNION ALL SELECT agent_name, status, 1 FROM fenced WHERE status <> 'running') AS change
    GROUP BY 1, 2 ORDER BY 1, 2
    ON CONFLICT (agent_name, status, slot) DO UPDATE SET n = c.n + excluded.n
), usage AS (
    INSERT INTO usage_daily AS d (agent_name, day, provider, model, slot, model_calls, tool_calls, input_tokens,
        output_tokens, cached_tokens, cost_nanos)
    SELECT fenced.agent_name, u.day::date, coalesce(u.provider, fenced.provider), coalesce(u.model, fenced.model),
        pg_backend_pid() % 64, sum(u.model_calls), sum(u.tool_calls), sum(u.input_tokens), sum(u.output_tokens),
        sum(u.cached_tokens), sum(u.cost_nanos)
    FROM unnest($26::uuid[], $27::text[], $28::text[], $29::text[], $30::bigint[], $31::bigint[], $32::bigint[],
            $33::bigint[], $34::bigint[], $35::bigint[])
        AS u (id, provider, model, day, model_calls, tool_calls, input_tokens, output_tokens, cached_tokens, cost_nanos)
    JOIN fenced ON fenced.id = u.id
    WHERE coalesce(u.provider, fenced.provider) IS NOT NULL
    GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4
    ON CONFLICT (agent_name, day, provider, model, slot) DO UPDATE SET
        model_calls = d.model_calls + excluded.model_calls, tool_calls = d.tool_calls + excluded.tool_calls,
        input_tokens = d.input_tokens + excluded.input_tokens, output_tokens = d.output_tokens + excluded.output_tokens,
        cached_tokens = d.cached_tokens + excluded.cached_tokens, cost_nanos = d.cost_nanos + excluded.cost_nanos
), events AS (
    INSERT INTO outbox (event_id, event)
    SELECT o.event_id, o.event
    FROM unnest($36::uuid[], $37::text[], $38::text[]) WITH ORDINALITY AS o (id, event_id, event, n)
    JOIN fenced ON fenced.id = o.id
    ORDER BY o.n
    ON CONFLICT (event_id) DO NOTHING
)
SELECT f.id, f.agent_name, f.conversation_id, f.parent_id, coalesce(f.is_due, false),
    f.finished_at IS NOT NULL AND NOT $39
        AND coalesce((SELECT true FROM executions c WHERE c.parent_id = f.id AND c.finished_at IS NULL LIMIT 1), false),
    f.wakes, f.is_woken, f.waits_turn
FROM fenced f
