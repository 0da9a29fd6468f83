//! Tokens and cost by agent, model and day.

use domain::definition::Provider;
use domain::{Money, Tokens, Usage};
use rusqlite::types::Value;
use rusqlite::{Connection, params, params_from_iter};

use super::Sqlite;
use super::fault::{Outcome, corrupt};
use super::sql::{Sql, count, counted, parse};
use super::writer::Tx;
use crate::consumption::Consumption;
use crate::{Result, UsageFilter, UsageRow};

impl Consumption {
    /// Adds it to the day. Agent and, where it is not known, model are the execution's.
    pub(super) fn add(&self, tx: &Tx<'_>, execution: [u8; 16]) -> Outcome<()> {
        tx.conn.run(
            "INSERT INTO usage_daily (agent_name, provider, model, day, model_calls, tool_calls, input_tokens,
                 output_tokens, cached_tokens, cost_nanos)
             SELECT agent_name, coalesce(?2, provider), coalesce(?3, model), ?4, ?5, ?6, ?7, ?8, ?9, ?10
             FROM executions WHERE id = ?1 AND coalesce(?2, provider) IS NOT NULL
             ON CONFLICT DO UPDATE SET model_calls = model_calls + ?5, tool_calls = tool_calls + ?6,
                 input_tokens = input_tokens + ?7, output_tokens = output_tokens + ?8,
                 cached_tokens = cached_tokens + ?9, cost_nanos = cost_nanos + ?10",
            params![
                execution,
                self.model.as_ref().map(|(provider, _)| provider.as_str()),
                self.model.as_ref().map(|(_, model)| model),
                self.day,
                self.model_calls,
                self.tool_calls,
                count(self.usage.input_tokens.0),
                count(self.usage.output_tokens.0),
                count(self.usage.cached_tokens.0),
                count(self.cost.nanos()),
            ],
        )?;
        Ok(())
    }
}

impl Sqlite {
    pub(super) async fn list_usage(&self, filter: UsageFilter) -> Result<Vec<UsageRow>> {
        let rows = self.readers.read(move |conn| select(conn, &filter)).await?;
        rows.into_iter().map(Raw::read).collect()
    }
}

struct Raw {
    agent: String,
    provider: String,
    model: String,
    day: String,
    numbers: [i64; 6],
}

impl Raw {
    fn read(self) -> Result<UsageRow> {
        let [model_calls, tool_calls, input, output, cached, cost] = self.numbers.map(counted);
        Ok(UsageRow {
            agent: parse("a row of usage_daily", &self.agent)?,
            provider: provider(&self.provider)?,
            model: self.model,
            day: self.day,
            model_calls,
            tool_calls,
            usage: Usage {
                input_tokens: Tokens(input),
                output_tokens: Tokens(output),
                cached_tokens: Tokens(cached),
            },
            cost_usd: Money::from_nanos(cost),
        })
    }
}

fn provider(word: &str) -> Result<Provider> {
    serde_json::from_value(serde_json::Value::from(word))
        .map_err(|error| corrupt("a row of usage_daily", error))
}

fn select(conn: &Connection, filter: &UsageFilter) -> Outcome<Vec<Raw>> {
    let mut values = Vec::new();
    let mut conditions = String::new();
    let mut add = |condition: &str, value: Option<&str>| {
        if let Some(value) = value {
            values.push(Value::from(value.to_owned()));
            conditions.push_str(if values.len() == 1 {
                " WHERE "
            } else {
                " AND "
            });
            conditions.push_str(condition);
        }
    };
    add(
        "agent_name = ?",
        filter.agent.as_ref().map(|agent| agent.as_str()),
    );
    add("day >= ?", filter.from_day.as_deref());
    add("day <= ?", filter.to_day.as_deref());
    conn.all(
        &format!(
            "SELECT agent_name, provider, model, day, model_calls, tool_calls, input_tokens, output_tokens,
                 cached_tokens, cost_nanos
             FROM usage_daily{conditions} ORDER BY day, agent_name, provider, model"
        ),
        params_from_iter(values),
        |row| {
            Ok(Raw {
                agent: row.get(0)?,
                provider: row.get(1)?,
                model: row.get(2)?,
                day: row.get(3)?,
                numbers: [
                    row.get(4)?,
                    row.get(5)?,
                    row.get(6)?,
                    row.get(7)?,
                    row.get(8)?,
                    row.get(9)?,
                ],
            })
        },
    )
}
