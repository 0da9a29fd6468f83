//! `chat`: talk with an agent, line by line.

use clap::Args;
use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader, Lines, Stdin};

use super::backend::Backend;
use super::follow::{self, Followed};
use crate::cli::{Context, Exit, block_on};
use crate::screen::Style;
use crate::telemetry;
use crate::wiring::Purpose;

/// Talks with an agent: each line is a message, and every answer knows what was said before.
///
/// The conversation is kept: take it up again with its id. An empty line or Ctrl-D ends it; Ctrl-C stops an answer.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  agentrunner chat helper
  agentrunner chat helper --conversation monday")]
pub(crate) struct Chat {
    /// Which agent
    agent: String,
    /// Take up or begin the conversation of this id
    #[arg(long, value_name = "ID")]
    conversation: Option<String>,
}

impl Chat {
    pub(crate) fn run(&self, context: &Context) -> anyhow::Result<Exit> {
        telemetry::start_quiet(context)?;
        block_on(async {
            let backend = Backend::find(context, Purpose::Work).await?;
            let result = self.talk(context, &backend).await;
            backend.close().await;
            result
        })
    }

    async fn talk(&self, context: &Context, backend: &Backend) -> anyhow::Result<Exit> {
        let screen = &context.screen;
        // A wrong name is told before the first line is typed.
        backend
            .client
            .get(&format!("/agents/{}", self.agent))
            .await?;
        let conversation = self
            .conversation
            .clone()
            .unwrap_or_else(|| uuid::Uuid::now_v7().simple().to_string());
        screen.note(screen.paint(
            Style::Faint,
            &format!("conversation {conversation}; an empty line ends it"),
        ));
        let mut lines = BufReader::new(tokio::io::stdin()).lines();
        while let Some(line) = next(context, &mut lines).await? {
            let task = json!({
                "agent_name": self.agent,
                "task_data": { "prompt": line },
                "conversation_id": conversation,
            });
            let id = follow::submit(&backend.client, &task).await?;
            match follow::follow(&backend.client, id, screen).await? {
                Followed::Over(_) | Followed::Interrupted => {}
                Followed::Waits(request) => screen.note(format_args!(
                    "{id} waits for a person; answer with: agentrunner tasks answer {id} --request {request} TEXT"
                )),
            }
        }
        screen.note(format_args!(
            "take it up again with: agentrunner chat {} --conversation {conversation}",
            self.agent
        ));
        Ok(Exit::Done)
    }
}

/// The next message; `None` at the end.
async fn next(
    context: &Context,
    lines: &mut Lines<BufReader<Stdin>>,
) -> anyhow::Result<Option<String>> {
    if context.screen.is_terminal {
        context.screen.piece("> ");
    }
    let line = tokio::select! {
        line = lines.next_line() => line?,
        _ = tokio::signal::ctrl_c() => None,
    };
    Ok(line.filter(|line| !line.trim().is_empty()))
}
