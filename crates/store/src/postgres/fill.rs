//! Many copies of an execution, as valid rows: for measuring how a full database differs from an empty one.

use domain::ExecutionId;

use super::connection::{Conn, Role};
use super::settings::{Server, Settings};
use super::sql::key;
use crate::Result;

/// How many copies are made in one transaction.
const CHUNK: u64 = 20_000;
/// How long a transaction of copies may take.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(600);

/// The copies' ids: of version 7, a millisecond apart, the last just before the original's.
const COPIES: &str = "CREATE TEMPORARY TABLE copies ON COMMIT DROP AS
    SELECT n, (left(h, 8) || '-' || right(h, 4) || '-7' || left(m, 3) || '-8' || substr(m, 4, 3) || '-'
        || substr(m, 7, 12))::uuid AS id
    FROM generate_series({from}::bigint, {to}) AS n,
        lpad(to_hex(('x' || left(replace('{id}', '-', ''), 12))::bit(48)::bigint - {all} + n), 12, '0') AS h,
        md5(n || '{id}') AS m";

/// What is copied of each table; `c` is a copy, `t` the original.
const TABLES: [&str; 6] = [
    "INSERT INTO executions (id, agent_name, version, execution_mode, priority, status, status_reason, created_at,
        deadline, started_at, finished_at, due_at, epoch, heartbeat_at, steps, input_tokens, output_tokens,
        cached_tokens, cost_nanos, model_calls, tool_calls, provider, model, trace_id)
     SELECT c.id, t.agent_name, t.version, t.execution_mode, t.priority, t.status, t.status_reason,
        t.created_at - ago, t.deadline + interval '1 day', t.started_at - ago, t.finished_at - ago,
        t.due_at + interval '1 day', t.epoch, t.heartbeat_at - ago, t.steps, t.input_tokens, t.output_tokens,
        t.cached_tokens, t.cost_nanos, t.model_calls, t.tool_calls, t.provider, t.model, md5(c.n || t.trace_id)
     FROM copies c, executions t, make_interval(secs => ({all} - c.n) / 1000.0) AS ago WHERE t.id = '{id}'",
    "INSERT INTO execution_specs SELECT c.id, replace(t.spec, '{id}', c.id::text)
     FROM copies c, execution_specs t WHERE t.execution_id = '{id}'",
    "INSERT INTO steps (execution_id, seq, at, epoch, kind, body)
     SELECT c.id, t.seq, t.at, t.epoch, t.kind, t.body FROM copies c, steps t WHERE t.execution_id = '{id}'
     ORDER BY c.n, t.seq",
    "INSERT INTO execution_results (execution_id, agent_name, status, outcome, created_at)
     SELECT c.id, t.agent_name, t.status, t.outcome, t.created_at
     FROM copies c, execution_results t WHERE t.execution_id = '{id}'",
    "INSERT INTO inputs (execution_id, request, question, until)
     SELECT c.id, t.request, t.question, t.until + interval '1 day' FROM copies c, inputs t
     WHERE t.execution_id = '{id}' AND t.answer IS NULL",
    "INSERT INTO execution_counts AS k (agent_name, status, slot, n)
     SELECT t.agent_name, t.status, 0, count(*) FROM copies c, executions t WHERE t.id = '{id}' GROUP BY 1, 2
     ON CONFLICT (agent_name, status, slot) DO UPDATE SET n = k.n + excluded.n",
];

/// Makes `copies` of an execution that is over or waits: its row, task, journal, result and questions.
///
/// # Errors
/// The database can't be written; chunks written before stay.
pub async fn fill(settings: &Settings, of: ExecutionId, copies: u64) -> Result<()> {
    let settings = Settings {
        statement_timeout: PATIENCE,
        ..settings.clone()
    };
    let server = Server::new(&settings)?;
    let mut conn = Conn::open(&server, Role::General).await?;
    let id = key(of).to_string();
    let mut from = 0;
    while from < copies {
        let to = (from + CHUNK).min(copies) - 1;
        let with_values = |sql: &str| {
            sql.replace("{id}", &id)
                .replace("{from}", &from.to_string())
                .replace("{to}", &to.to_string())
                .replace("{all}", &copies.to_string())
        };
        let mut script = vec!["BEGIN; SET LOCAL synchronous_commit = off".to_owned()];
        script.push(with_values(COPIES));
        script.extend(TABLES.iter().map(|sql| with_values(sql)));
        script.push("COMMIT".to_owned());
        conn.script(&script.join(";\n")).await?;
        from = to + 1;
    }
    for table in [
        "executions",
        "steps",
        "execution_specs",
        "execution_results",
        "inputs",
    ] {
        conn.script(&format!("VACUUM (ANALYZE) {table}")).await?;
    }
    // What follows is to be measured, not the writing of these rows.
    conn.script("CHECKPOINT").await?;
    Ok(())
}
