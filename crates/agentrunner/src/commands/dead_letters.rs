//! `dead-letters`: events that could not be delivered or processed.

use clap::{ArgGroup, Args, Subcommand};
use serde_json::json;

use super::backend::Backend;
use super::tasks::time;
use crate::cli::{Context, Exit};
use crate::screen::Column;
use crate::wiring::Purpose;

/// Lists, replays and deletes events that were given up.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  agentrunner dead-letters                 what was given up, and why
  agentrunner dead-letters show ID         one with its payload
  agentrunner dead-letters replay ID       send it out again
  agentrunner dead-letters replay --all
  agentrunner dead-letters delete ID"
)]
pub(crate) struct DeadLetters {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    list: List,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List them, newest first (the default)
    List(List),
    /// Show one with its payload
    Show { id: String },
    /// Send one, or all, out again; who has acted on it does not act again
    Replay(Replay),
    /// Forget one
    Delete { id: String },
}

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("which").required(true)))]
struct Replay {
    /// This one
    #[arg(group = "which")]
    id: Option<String>,
    /// All of them, the oldest first
    #[arg(long, group = "which")]
    all: bool,
}

#[derive(Debug, Args)]
struct List {
    /// How many
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1000))]
    limit: u16,
}

impl DeadLetters {
    pub(crate) fn run(&self, context: &Context) -> anyhow::Result<Exit> {
        Backend::with(context, Purpose::Read, async |backend| {
            self.perform(context, backend).await
        })
    }

    async fn perform(&self, context: &Context, backend: &Backend) -> anyhow::Result<Exit> {
        let (client, screen) = (&backend.client, &context.screen);
        match &self.verb {
            None => self.list.show(context, backend).await?,
            Some(Verb::List(list)) => list.show(context, backend).await?,
            Some(Verb::Show { id }) => screen.value(&client.get(&address(id)).await?),
            Some(Verb::Replay(Replay { id: Some(id), .. })) => {
                let path = format!("{}/replay", address(id));
                screen.value(&client.post(&path, &json!({})).await?);
            }
            Some(Verb::Replay(_)) => {
                screen.value(&client.post("/dead-letters/replay", &json!({})).await?);
            }
            Some(Verb::Delete { id }) => {
                client.delete(&address(id)).await?;
                screen.value(&json!({ "id": id, "status": "deleted" }));
            }
        }
        Ok(Exit::Done)
    }
}

/// Ids are made by brokers too: whatever they hold, it stays one segment of the path.
fn address(id: &str) -> String {
    let id: String = id
        .bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                char::from(byte).to_string()
            }
            other => format!("%{other:02X}"),
        })
        .collect();
    format!("/dead-letters/{id}")
}

impl List {
    async fn show(&self, context: &Context, backend: &Backend) -> anyhow::Result<()> {
        let query = [("limit", self.limit.to_string())];
        let letters = backend.client.get_with("/dead-letters", &query).await?;
        let columns = [
            Column::field("id", "id"),
            Column::of("at", |letter| time(letter.get("at"))),
            Column::field("queue", "queue"),
            Column::field("topic", "topic"),
            Column::field("attempts", "attempts"),
            Column::field("reason", "reason"),
        ];
        context
            .screen
            .table(letters.as_array().map_or(&[], Vec::as_slice), &columns);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::address;

    #[test]
    fn an_id_stays_one_segment() {
        assert_eq!(address("a/b ?ü"), "/dead-letters/a%2Fb%20%3F%C3%BC");
    }
}
