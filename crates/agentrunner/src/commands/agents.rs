//! `agents`: which there are, and how they fare; and acting on them.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::backend::Backend;
use super::schedules::encoded;
use crate::cli::{Context, Exit};
use crate::screen::Column;
use crate::wiring::Purpose;

/// Lists the agents, shows one, disables, enables and restarts it.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  agentrunner agents
  agentrunner agents helper
  agentrunner agents disable helper      it takes no more work, until it is enabled again
  agentrunner agents enable helper
  agentrunner agents restart helper      what it performs is interrupted and taken up anew
  agentrunner agents approve-tools helper search
                                         its server changed that tool; `agents helper` shows how
  agentrunner agents --json | jq -r '.[].name'"
)]
pub(crate) struct Agents {
    #[command(subcommand)]
    verb: Option<Verb>,
    /// Show this one
    name: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List them by name (the default)
    List,
    /// Show one
    Show { name: String },
    /// Have one take no more work; what it was given before goes on
    Disable { name: String },
    /// Let one take work again
    Enable { name: String },
    /// Interrupt what one performs, and have it taken up anew with its variables read anew
    Restart { name: String },
    /// Let one use tools that their servers changed after they were approved, as they are now
    ApproveTools {
        name: String,
        /// Only this tool; all that are withheld otherwise
        tool: Option<String>,
    },
}

impl Agents {
    pub(crate) fn run(&self, context: &Context) -> anyhow::Result<Exit> {
        Backend::with(context, Purpose::Read, async |backend| {
            self.perform(context, backend).await
        })
    }

    async fn perform(&self, context: &Context, backend: &Backend) -> anyhow::Result<Exit> {
        let (client, screen) = (&backend.client, &context.screen);
        let path = |name: &str, act: &str| format!("/agents/{}{act}", encoded(name));
        let act = match (&self.verb, &self.name) {
            (Some(Verb::List), _) | (None, None) => return list(context, backend).await,
            (Some(Verb::Show { name }), _) | (None, Some(name)) => {
                screen.value(&client.get(&path(name, "")).await?);
                return Ok(Exit::Done);
            }
            (Some(Verb::Disable { name }), _) => path(name, "/disable"),
            (Some(Verb::Enable { name }), _) => path(name, "/enable"),
            (Some(Verb::Restart { name }), _) => path(name, "/restart"),
            (Some(Verb::ApproveTools { name, tool }), _) => {
                let wish = json!({ "tool": tool });
                screen.value(&client.post(&path(name, "/tools/approve"), &wish).await?);
                return Ok(Exit::Done);
            }
        };
        screen.value(&client.post(&act, &json!({})).await?);
        Ok(Exit::Done)
    }
}

async fn list(context: &Context, backend: &Backend) -> anyhow::Result<Exit> {
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
    let agents = agents.as_array().map_or(&[][..], Vec::as_slice);
    context.screen.table(agents, &columns);
    if !agents.is_empty() {
        return Ok(Exit::Done);
    }
    let folder = context.settings.agents_dir();
    let shown = folder.display();
    if !backend.is_local() {
        let server = backend.client.base();
        context.screen.note(format_args!(
            "the server at {server} has no agents; where it runs, `agentrunner validate` says what is in its folder"
        ));
        Ok(Exit::Done)
    } else if folder.is_dir() {
        context.screen.note(format_args!(
            "there are no agents in {shown}; `agentrunner validate` checks what is there, `agentrunner init` makes some"
        ));
        Ok(Exit::Done)
    } else {
        // Which folder is missing and what makes it was said when it was looked for.
        Ok(Exit::Failed)
    }
}

fn success(agent: &Value) -> String {
    agent
        .get("success_rate")
        .and_then(Value::as_f64)
        .map(|rate| format!("{:.0} %", rate * 100.0))
        .unwrap_or_default()
}
