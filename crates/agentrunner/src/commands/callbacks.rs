//! `callbacks`: who was told how an execution ended.

use clap::{Args, Subcommand};
use serde_json::json;
use uuid::Uuid;

use super::backend::Backend;
use super::tasks::time;
use crate::cli::{Context, Exit};
use crate::screen::Column;
use crate::telemetry;
use crate::wiring::{Purpose, signing_secret};

/// Lists callbacks, sends one again, and makes and shows secrets that they are signed with.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  agentrunner callbacks                        what was sent, and what came of it
  agentrunner callbacks list --state failed
  agentrunner callbacks show EXECUTION
  agentrunner callbacks resend EXECUTION       send it again now
  agentrunner callbacks secret                 what the receiver verifies with
  agentrunner callbacks new-secret             for CALLBACK_SIGNING_SECRET"
)]
pub(crate) struct Callbacks {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    list: List,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List them, newest first (the default)
    List(List),
    /// Show that of an execution
    Show { execution: Uuid },
    /// Send that of an execution again now, however it stands
    Resend { execution: Uuid },
    /// Print the secret that this machine signs with
    Secret,
    /// Make a secret and print it; nothing else is changed
    NewSecret,
}

#[derive(Debug, Args)]
struct List {
    /// Only those that stand so: pending, delivered or failed
    #[arg(long)]
    state: Option<String>,
    /// Only those of this agent
    #[arg(long)]
    agent: Option<String>,
    /// How many
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1000))]
    limit: u16,
}

impl Callbacks {
    pub(crate) fn run(&self, context: &Context) -> anyhow::Result<Exit> {
        match &self.verb {
            Some(Verb::NewSecret) => {
                telemetry::start_quiet(context)?;
                let secret = services::outgoing::signature::mint()?;
                context.screen.value(&json!({ "secret": secret }));
                return Ok(Exit::Done);
            }
            Some(Verb::Secret) => {
                telemetry::start_quiet(context)?;
                let secret = signing_secret(&context.settings)?;
                context.screen.value(&json!({ "secret": secret }));
                return Ok(Exit::Done);
            }
            _ => {}
        }
        Backend::with(context, Purpose::Read, async |backend| {
            self.perform(context, backend).await
        })
    }

    async fn perform(&self, context: &Context, backend: &Backend) -> anyhow::Result<Exit> {
        let (client, screen) = (&backend.client, &context.screen);
        match &self.verb {
            None => self.list.show(context, backend).await?,
            Some(Verb::List(list)) => list.show(context, backend).await?,
            Some(Verb::Show { execution }) => {
                let path = format!("/callbacks/{execution}");
                screen.value(&client.get(&path).await?);
            }
            Some(Verb::Resend { execution }) => {
                let path = format!("/callbacks/{execution}/resend");
                screen.value(&client.post(&path, &json!({})).await?);
            }
            Some(Verb::Secret | Verb::NewSecret) => {}
        }
        Ok(Exit::Done)
    }
}

impl List {
    async fn show(&self, context: &Context, backend: &Backend) -> anyhow::Result<()> {
        let mut query = vec![("limit", self.limit.to_string())];
        query.extend(self.state.clone().map(|state| ("state", state)));
        query.extend(self.agent.clone().map(|agent| ("agent_name", agent)));
        let callbacks = backend.client.get_with("/callbacks", &query).await?;
        let columns = [
            Column::field("execution", "execution_id"),
            Column::field("agent", "agent_name"),
            Column::field("event", "event"),
            Column::field("state", "state"),
            Column::field("attempts", "attempts"),
            Column::of("ended", |callback| time(callback.get("created_at"))),
            Column::of("next", |callback| time(callback.get("next_attempt_at"))),
            Column::field("error", "last_error"),
        ];
        let rows = callbacks.as_array().map_or(&[][..], Vec::as_slice);
        context.screen.table(rows, &columns);
        Ok(())
    }
}
