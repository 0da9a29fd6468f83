//! `agents`: which there are, and how they fare.

use clap::Args;
use serde_json::Value;

use super::backend::Backend;
use crate::cli::{Context, Exit, block_on};
use crate::screen::Column;
use crate::telemetry;
use crate::wiring::Purpose;

/// Lists the agents, or shows one.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  agentrunner agents
  agentrunner agents helper
  agentrunner agents --json | jq -r '.[].name'")]
pub(crate) struct Agents {
    /// Show this one
    name: Option<String>,
}

impl Agents {
    pub(crate) fn run(&self, context: &Context) -> anyhow::Result<Exit> {
        telemetry::start_quiet(context)?;
        block_on(async {
            let backend = Backend::find(context, Purpose::Read).await?;
            let result = self.show(context, &backend).await;
            backend.close().await;
            result
        })
    }

    async fn show(&self, context: &Context, backend: &Backend) -> anyhow::Result<Exit> {
        if let Some(name) = &self.name {
            context
                .screen
                .value(&backend.client.get(&format!("/agents/{name}")).await?);
            return Ok(Exit::Done);
        }
        let agents = backend.client.get("/agents").await?;
        let columns = [
            Column::field("name", "name"),
            Column::field("status", "status"),
            Column::field("mode", "execution_mode"),
            Column::field("active", "active_tasks"),
            Column::field("total", "total_executions"),
            Column::of("success", success),
            Column::field("description", "description"),
        ];
        context
            .screen
            .table(agents.as_array().map_or(&[], Vec::as_slice), &columns);
        Ok(Exit::Done)
    }
}

fn success(agent: &Value) -> String {
    agent
        .get("success_rate")
        .and_then(Value::as_f64)
        .map(|rate| format!("{:.0} %", rate * 100.0))
        .unwrap_or_default()
}
