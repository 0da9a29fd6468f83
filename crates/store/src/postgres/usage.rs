//! Tokens and cost by agent, model and day.

use domain::definition::Provider;
use domain::{Money, Tokens, Usage};
use tokio_postgres::Row;

use super::Postgres;
use super::fault::{Outcome, corrupt};
use super::sql::{counted, get, parse};
use crate::{Result, UsageFilter, UsageRow};

impl Postgres {
    pub(super) async fn list_usage(&self, filter: UsageFilter) -> Result<Vec<UsageRow>> {
        let mut conn = self.pool.get().await?;
        let agent = filter.agent.as_ref().map(|agent| agent.as_str());
        let rows = conn
            .all(
                "SELECT agent_name, provider, model, day::text, sum(model_calls)::bigint, sum(tool_calls)::bigint,
                     sum(input_tokens)::bigint, sum(output_tokens)::bigint, sum(cached_tokens)::bigint,
                     sum(cost_nanos)::bigint
                 FROM usage_daily
                 WHERE ($1::text IS NULL OR agent_name = $1) AND ($2::text IS NULL OR day >= $2::text::date)
                     AND ($3::text IS NULL OR day <= $3::text::date)
                 GROUP BY day, agent_name, provider, model ORDER BY day, agent_name, provider, model",
                &[&agent, &filter.from_day, &filter.to_day],
            )
            .await?;
        rows.iter().map(read).collect()
    }
}

fn read(row: &Row) -> Result<UsageRow> {
    let number = |column: usize| -> Outcome<u64> { Ok(counted(get(row, column)?)) };
    let (agent, provider): (String, String) = (get(row, 0)?, get(row, 1)?);
    let provider: Provider = serde_json::from_value(serde_json::Value::from(provider))
        .map_err(|error| corrupt("a row of usage_daily", error))?;
    Ok(UsageRow {
        agent: parse("a row of usage_daily", &agent)?,
        provider,
        model: get(row, 2)?,
        day: get(row, 3)?,
        model_calls: number(4)?,
        tool_calls: number(5)?,
        usage: Usage {
            input_tokens: Tokens(number(6)?),
            output_tokens: Tokens(number(7)?),
            cached_tokens: Tokens(number(8)?),
        },
        cost_usd: Money::from_nanos(number(9)?),
    })
}
