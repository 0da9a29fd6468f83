-- Takes leases on those that are named, due, of a wanted mode, and not being taken by somebody else at this moment.
WITH r AS MATERIALIZED (
    SELECT * FROM unnest($1::uuid[], $2::text[], $3::timestamptz[], $4::timestamptz[], $5::text[], $6::text[])
        AS r (id, worker, now, until, modes, without)
), due AS MATERIALIZED (
    SELECT e.id, e.status AS was
    FROM executions e JOIN r ON r.id = e.id
    WHERE e.id = ANY ($1) AND e.id >= ($1::uuid[])[1] AND e.id <= ($1::uuid[])[cardinality($1::uuid[])]
        AND e.due_at <= r.now AND e.execution_mode = ANY (string_to_array(r.modes, ','))
        AND e.agent_name <> ALL (string_to_array(r.without, ','))
    ORDER BY e.id
    FOR UPDATE OF e SKIP LOCKED
), leased AS (
    UPDATE executions e SET
        epoch = e.epoch + 1, crashes = e.crashes + (e.worker IS NOT NULL)::int, worker = r.worker, due_at = r.until,
        heartbeat_at = r.now, started_at = coalesce(e.started_at, r.now), status = 'running', status_reason = NULL,
        wakes_claimed = e.wakes
    FROM r JOIN due ON due.id = r.id
    WHERE e.id = ANY ($1) AND e.id >= ($1::uuid[])[1] AND e.id <= ($1::uuid[])[cardinality($1::uuid[])]
        AND e.id = r.id
    RETURNING e.id, e.agent_name, e.epoch, e.crashes, e.steps, e.wakes, e.cancel_by, e.cancel_reason, e.waits_turn, due.was
), counts AS (
    INSERT INTO execution_counts AS c (agent_name, status, slot, n)
    SELECT agent_name, status, pg_backend_pid() % 64, sum(n)
    FROM (SELECT agent_name, was AS status, -1 AS n FROM leased WHERE was <> 'running'
        UNION ALL SELECT agent_name, 'running', 1 FROM leased WHERE was <> 'running') AS change
    GROUP BY 1, 2 ORDER BY 1, 2
    ON CONFLICT (agent_name, status, slot) DO UPDATE SET n = c.n + excluded.n
)
SELECT l.id, l.epoch, l.crashes, l.steps, l.wakes, l.cancel_by, l.cancel_reason, s.spec, l.waits_turn
FROM leased l LEFT JOIN execution_specs s ON s.execution_id = l.id AND s.execution_id = ANY ($1)
