//! Executions as they stand.

use domain::decide::Cancel;
use domain::execution::Totals;
use domain::{AgentName, Epoch, ExecutionId, Money, Tokens, Usage};
use rusqlite::types::Value;
use rusqlite::{Connection, Row, params, params_from_iter};

use super::Sqlite;
use super::fault::{Fault, Outcome, corrupt};
use super::sql::{Sql, counted, decode, id, key, limit, micros, parse, time};
use super::writer::Tx;
use crate::stats::stats;
use crate::{
    AgentStats, COUNTED_AT_MOST, Error, ExecutionFilter, ExecutionRow, Page, Result, Total,
};

const SELECT: &str = "SELECT id, (SELECT spec FROM execution_specs WHERE execution_id = id), status, status_reason,
        worker, heartbeat_at, epoch, due_at, started_at, finished_at, input_tokens, output_tokens, cached_tokens,
        cost_nanos, model_calls, tool_calls, steps, (SELECT outcome FROM execution_results WHERE execution_id = id),
        cancel_by, cancel_reason, crashes
    FROM executions";

impl Sqlite {
    pub(super) async fn one_execution(&self, wanted: ExecutionId) -> Result<Option<ExecutionRow>> {
        let read = move |conn: &Connection| {
            conn.first(
                &format!("{SELECT} WHERE id = ?1"),
                params![key(wanted)],
                raw,
            )
        };
        self.readers.read(read).await?.map(Raw::read).transpose()
    }

    /// The total costs nothing when only agent and states are asked for; with other filters it counts what matches, up
    /// to a limit.
    pub(super) async fn list_executions(
        &self,
        filter: ExecutionFilter,
        page: Page,
    ) -> Result<(Vec<ExecutionRow>, Total)> {
        let read = move |conn: &Connection| {
            // List and total of one moment.
            let tx = conn.unchecked_transaction()?;
            Ok((list(&tx, &filter, &page)?, total(&tx, &filter)?))
        };
        let (rows, total) = self.readers.read(read).await?;
        let mut executions = Vec::with_capacity(rows.len());
        for row in rows {
            // One that can't be read must not hide the others.
            let row = row.map_err(|error| Error::from(Fault::from(error)));
            match row.and_then(Raw::read) {
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
        let agent = agent.map(|agent| agent.as_str().to_owned());
        let read = move |conn: &Connection| {
            conn.all(
                "SELECT agent_name, status, n FROM execution_counts WHERE n > 0 AND agent_name = coalesce(?1, agent_name)
                 ORDER BY agent_name",
                params![agent],
                |row| Ok::<(String, String, i64), _>((row.get(0)?, row.get(1)?, row.get(2)?)),
            )
        };
        stats(self.readers.read(read).await?)
    }

    pub(super) async fn read_and_write(&self) -> Result<()> {
        let write = |tx: &mut Tx<'_>| {
            tx.conn.run(
                "INSERT INTO checks (id, n) VALUES (1, 1) ON CONFLICT DO UPDATE SET n = n + 1",
                [],
            )
        };
        self.writer.write(write).await?;
        self.readers
            .read(|conn| conn.first("SELECT n FROM checks", [], |_| Ok(())))
            .await?;
        Ok(())
    }
}

/// An execution as its rows tell it.
struct Raw {
    id: [u8; 16],
    spec: Option<String>,
    status: String,
    status_reason: Option<String>,
    worker: Option<String>,
    heartbeat_at: Option<i64>,
    epoch: u32,
    due_at: Option<i64>,
    started_at: Option<i64>,
    finished_at: Option<i64>,
    usage: Usage,
    cost: Money,
    model_calls: u32,
    tool_calls: u32,
    steps: u32,
    outcome: Option<String>,
    cancel: Option<Cancel>,
    crashes: u32,
}

fn raw(row: &Row<'_>) -> rusqlite::Result<Raw> {
    let tokens = |column: usize| row.get(column).map(|n| Tokens(counted(n)));
    let (by, reason): (Option<String>, Option<String>) = (row.get(18)?, row.get(19)?);
    Ok(Raw {
        id: row.get(0)?,
        spec: row.get(1)?,
        status: row.get(2)?,
        status_reason: row.get(3)?,
        worker: row.get(4)?,
        heartbeat_at: row.get(5)?,
        epoch: row.get(6)?,
        due_at: row.get(7)?,
        started_at: row.get(8)?,
        finished_at: row.get(9)?,
        usage: Usage {
            input_tokens: tokens(10)?,
            output_tokens: tokens(11)?,
            cached_tokens: tokens(12)?,
        },
        cost: Money::from_nanos(counted(row.get(13)?)),
        model_calls: row.get(14)?,
        tool_calls: row.get(15)?,
        steps: row.get(16)?,
        outcome: row.get(17)?,
        cancel: by.map(|by| Cancel {
            by,
            reason: reason.unwrap_or_default(),
        }),
        crashes: row.get(20)?,
    })
}

impl Raw {
    fn read(self) -> Result<ExecutionRow> {
        let id = id(self.id);
        let what = || format!("execution {id}");
        let spec = self
            .spec
            .ok_or_else(|| corrupt(what(), "its task is gone"))?;
        let outcome = self.outcome.as_deref();
        let worker = self.worker.as_deref();
        Ok(ExecutionRow {
            execution: decode(what, &spec)?,
            status: parse(&what(), &self.status)?,
            status_reason: self.status_reason,
            worker: worker.map(|worker| parse(&what(), worker)).transpose()?,
            heartbeat_at: self.heartbeat_at.map(time).transpose()?,
            epoch: Epoch::new(self.epoch),
            due_at: self.due_at.map(time).transpose()?,
            started_at: self.started_at.map(time).transpose()?,
            finished_at: self.finished_at.map(time).transpose()?,
            totals: Totals {
                usage: self.usage,
                cost_usd: self.cost,
                model_calls: self.model_calls,
                tool_calls: self.tool_calls,
            },
            steps: self.steps,
            outcome: outcome
                .map(|json| decode(|| format!("the result of execution {id}"), json))
                .transpose()?,
            cancel: self.cancel,
            crashes: self.crashes,
        })
    }
}

/// The conditions of a filter.
struct Conditions {
    sql: String,
    values: Vec<Value>,
}

impl Conditions {
    fn new(filter: &ExecutionFilter) -> Self {
        let mut all = Self {
            sql: String::new(),
            values: Vec::new(),
        };
        let text = |text: &str| Value::from(text.to_owned());
        if let Some(agent) = &filter.agent {
            all.add("agent_name = ?", [text(agent.as_str())]);
        }
        if !filter.status.is_empty() {
            let places = vec!["?"; filter.status.len()].join(", ");
            let words = filter.status.iter().map(|status| text(status.as_str()));
            all.add(&format!("status IN ({places})"), words);
        }
        if let Some(trace) = &filter.trace_id {
            all.add("trace_id = ?", [text(trace.as_str())]);
        }
        if let Some(conversation) = &filter.conversation {
            all.add("conversation_id = ?", [text(conversation.as_str())]);
        }
        if let Some(parent) = filter.parent {
            all.add("parent_id = ?", [Value::from(key(parent).to_vec())]);
        }
        if let Some(from) = filter.created_after {
            all.add("created_at >= ?", [Value::from(micros(from))]);
        }
        if let Some(before) = filter.created_before {
            all.add("created_at < ?", [Value::from(micros(before))]);
        }
        all
    }

    fn add(&mut self, condition: &str, values: impl IntoIterator<Item = Value>) {
        let joint = if self.sql.is_empty() {
            " WHERE "
        } else {
            " AND "
        };
        self.sql.push_str(joint);
        self.sql.push_str(condition);
        self.values.extend(values);
    }
}

fn list(
    conn: &Connection,
    filter: &ExecutionFilter,
    page: &Page,
) -> Outcome<Vec<rusqlite::Result<Raw>>> {
    let mut conditions = Conditions::new(filter);
    if let Some((at, id)) = &page.after {
        let id: ExecutionId = parse("the position in the list", id)?;
        let position = [Value::from(micros(*at)), Value::from(key(id).to_vec())];
        conditions.add("(created_at, id) < (?, ?)", position);
    }
    conditions.values.push(Value::from(limit(page.limit)));
    // The page is found first, so that only its rows are fetched and not all that had to be sorted.
    let sql = format!(
        "{SELECT} WHERE rowid IN
             (SELECT rowid FROM executions{} ORDER BY created_at DESC, id DESC LIMIT ?)
         ORDER BY created_at DESC, id DESC",
        conditions.sql
    );
    conn.all(&sql, params_from_iter(conditions.values), |row| {
        Ok(raw(row))
    })
}

fn total(conn: &Connection, filter: &ExecutionFilter) -> Outcome<Total> {
    let is_counted = filter.trace_id.is_none()
        && filter.conversation.is_none()
        && filter.parent.is_none()
        && filter.created_after.is_none()
        && filter.created_before.is_none();
    let conditions = Conditions::new(filter);
    let matches = &conditions.sql;
    let sql = if is_counted {
        format!("SELECT coalesce(sum(n), 0) FROM execution_counts{matches}")
    } else {
        let most = COUNTED_AT_MOST + 1;
        format!("SELECT count(*) FROM (SELECT 1 FROM executions{matches} LIMIT {most})")
    };
    let count = conn.first(&sql, params_from_iter(conditions.values), |row| row.get(0))?;
    let count = counted(count.unwrap_or(0));
    Ok(if is_counted {
        Total::exactly(count)
    } else {
        Total::counted(count)
    })
}
