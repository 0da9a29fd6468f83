//! Executions as they stand.

use domain::decide::Cancel;
use domain::execution::Totals;
use domain::{AgentName, Epoch, ExecutionId, Money, Tokens, Usage};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::Postgres;
use super::connection::Conn;
use super::fault::{Outcome, corrupt};
use super::sql::{counted, decode, get, key, limit, parse, smalled};
use crate::stats::stats;
use crate::{AgentStats, COUNTED_AT_MOST, ExecutionFilter, ExecutionRow, Page, Result, Total};

/// The columns that [`read`] reads.
macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT e.id, (SELECT spec FROM execution_specs WHERE execution_id = e.id), e.status, e.status_reason,
                 e.worker, e.heartbeat_at, e.epoch, e.due_at, e.started_at, e.finished_at, e.input_tokens,
                 e.output_tokens, e.cached_tokens, e.cost_nanos, e.model_calls, e.tool_calls, e.steps,
                 (SELECT outcome FROM execution_results WHERE execution_id = e.id), e.cancel_by, e.cancel_reason,
                 e.crashes
             FROM executions e",
            $rest
        )
    };
}

impl Postgres {
    pub(super) async fn one_execution(&self, wanted: ExecutionId) -> Result<Option<ExecutionRow>> {
        let mut conn = self.pool.get().await?;
        let row = conn
            .first(select!(" WHERE e.id = $1"), &[&key(wanted)])
            .await?;
        row.as_ref().map(read).transpose()
    }

    /// The total costs little when only agent and states are asked for; with other filters it counts the rows that
    /// match, up to a limit.
    pub(super) async fn list_executions(
        &self,
        filter: ExecutionFilter,
        page: Page,
    ) -> Result<(Vec<ExecutionRow>, Total)> {
        let mut conn = self.pool.get().await?;
        let rows = list(&mut conn, &filter, &page).await?;
        let total = total(&mut conn, &filter).await?;
        let mut executions = Vec::with_capacity(rows.len());
        for row in &rows {
            // One that can't be read must not hide the others.
            match read(row) {
                Ok(row) => executions.push(row),
                Err(error) => tracing::warn!(%error, "an execution is left out of a list"),
            }
        }
        Ok((executions, total))
    }

    pub(super) async fn count_executions(
        &self,
        agent: Option<&AgentName>,
    ) -> Result<Vec<AgentStats>> {
        let mut conn = self.pool.get().await?;
        let agent = agent.map(|agent| agent.as_str());
        let rows = conn
            .all(
                "SELECT agent_name, status, sum(n)::bigint FROM execution_counts
                 WHERE $1::text IS NULL OR agent_name = $1
                 GROUP BY agent_name, status HAVING sum(n) > 0 ORDER BY agent_name",
                &[&agent],
            )
            .await?;
        let counts = rows
            .iter()
            .map(|row| Ok((get(row, 0)?, get(row, 1)?, get(row, 2)?)))
            .collect::<Outcome<_>>()?;
        stats(counts)
    }

    pub(super) async fn read_and_write(&self) -> Result<()> {
        let mut conn = self.pool.get().await?;
        conn.run(
            "INSERT INTO checks AS c (id, n) VALUES (1, 1) ON CONFLICT (id) DO UPDATE SET n = c.n + 1 RETURNING n",
            &[],
        )
        .await?;
        Ok(())
    }
}

fn read(row: &Row) -> Result<ExecutionRow> {
    let id = ExecutionId::from_uuid(get::<Uuid>(row, 0)?);
    let what = || format!("execution {id}");
    let spec: Option<String> = get(row, 1)?;
    let spec = spec.ok_or_else(|| corrupt(what(), "its task is gone"))?;
    let (status, worker): (String, Option<String>) = (get(row, 2)?, get(row, 4)?);
    let outcome: Option<String> = get(row, 17)?;
    let (by, reason): (Option<String>, Option<String>) = (get(row, 18)?, get(row, 19)?);
    let number = |column: usize| -> Outcome<u64> { Ok(counted(get(row, column)?)) };
    let small = |column: usize| -> Outcome<u32> { Ok(smalled(get(row, column)?)) };
    Ok(ExecutionRow {
        execution: decode(what, &spec)?,
        status: parse(&what(), &status)?,
        status_reason: get(row, 3)?,
        worker: worker.map(|worker| parse(&what(), &worker)).transpose()?,
        heartbeat_at: get(row, 5)?,
        epoch: Epoch::new(small(6)?),
        due_at: get(row, 7)?,
        started_at: get(row, 8)?,
        finished_at: get(row, 9)?,
        totals: Totals {
            usage: Usage {
                input_tokens: Tokens(number(10)?),
                output_tokens: Tokens(number(11)?),
                cached_tokens: Tokens(number(12)?),
            },
            cost_usd: Money::from_nanos(number(13)?),
            model_calls: small(14)?,
            tool_calls: small(15)?,
        },
        steps: small(16)?,
        outcome: outcome
            .map(|json| decode(|| format!("the result of execution {id}"), &json))
            .transpose()?,
        cancel: by.map(|by| Cancel {
            by,
            reason: reason.unwrap_or_default(),
        }),
        crashes: small(20)?,
    })
}

/// The conditions of a filter.
#[derive(Default)]
struct Conditions {
    sql: String,
    values: Vec<Box<dyn ToSql + Sync + Send>>,
}

impl Conditions {
    fn new(filter: &ExecutionFilter) -> Self {
        let mut all = Self::default();
        if let Some(agent) = &filter.agent {
            all.add("agent_name = ", agent.as_str().to_owned());
        }
        match filter.status.as_slice() {
            [] => {}
            // Equality keeps the order of the index.
            [one] => all.add("status = ", one.as_str()),
            many => {
                let words: Vec<&'static str> = many.iter().map(|status| status.as_str()).collect();
                all.add("status = ANY ", words);
            }
        }
        if let Some(trace) = &filter.trace_id {
            all.add("trace_id = ", trace.as_str().to_owned());
        }
        if let Some(conversation) = &filter.conversation {
            all.add("conversation_id = ", conversation.as_str().to_owned());
        }
        if let Some(parent) = filter.parent {
            all.add("parent_id = ", key(parent));
        }
        if let Some(from) = filter.created_after {
            all.add("created_at >= ", from);
        }
        if let Some(before) = filter.created_before {
            all.add("created_at < ", before);
        }
        all
    }

    fn place(&mut self, value: impl ToSql + Sync + Send + 'static) -> String {
        self.values.push(Box::new(value));
        format!("(${})", self.values.len())
    }

    fn add(&mut self, condition: &str, value: impl ToSql + Sync + Send + 'static) {
        let place = self.place(value);
        self.push(&format!("{condition}{place}"));
    }

    fn push(&mut self, condition: &str) {
        let joint = if self.sql.is_empty() {
            " WHERE "
        } else {
            " AND "
        };
        self.sql.push_str(joint);
        self.sql.push_str(condition);
    }

    async fn query(&self, conn: &mut Conn, sql: &str) -> Outcome<Vec<Row>> {
        let values: Vec<&(dyn ToSql + Sync)> = self
            .values
            .iter()
            .map(|value| &**value as &(dyn ToSql + Sync))
            .collect();
        conn.query(sql, &values).await
    }
}

async fn list(conn: &mut Conn, filter: &ExecutionFilter, page: &Page) -> Outcome<Vec<Row>> {
    let mut conditions = Conditions::new(filter);
    if let Some((at, id)) = &page.after {
        let id: ExecutionId = parse("the position in the list", id)?;
        let (at, id) = (conditions.place(*at), conditions.place(key(id)));
        conditions.push(&format!("(created_at, id) < ({at}, {id})"));
    }
    let most = conditions.place(limit(page.limit));
    let sql = format!(
        "{}{} ORDER BY created_at DESC, id DESC LIMIT {most}",
        select!(""),
        conditions.sql
    );
    conditions.query(conn, &sql).await
}

async fn total(conn: &mut Conn, filter: &ExecutionFilter) -> Outcome<Total> {
    let is_counted = filter.trace_id.is_none()
        && filter.conversation.is_none()
        && filter.parent.is_none()
        && filter.created_after.is_none()
        && filter.created_before.is_none();
    let conditions = Conditions::new(filter);
    let matches = &conditions.sql;
    let sql = if is_counted {
        format!("SELECT coalesce(sum(n), 0)::bigint FROM execution_counts{matches}")
    } else {
        let most = COUNTED_AT_MOST + 1;
        format!("SELECT count(*) FROM (SELECT 1 FROM executions{matches} LIMIT {most}) AS matches")
    };
    let rows = conditions.query(conn, &sql).await?;
    let count = counted(rows.first().map_or(Ok(0), |row| get(row, 0))?);
    Ok(if is_counted {
        Total::exactly(count)
    } else {
        Total::counted(count)
    })
}
