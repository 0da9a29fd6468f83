//! `chat`: talk with an agent, line by line.

use clap::Args;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader, Lines, Stdin};

use super::backend::Backend;
use super::follow::{self, Followed};
use crate::cli::{Context, Exit};
use crate::screen::{Style, one_line};
use crate::wiring::Purpose;

/// Talks with an agent: each line is a message, and every answer knows what was said before.
///
/// The conversation is kept by the server: take it up again with its id, from anywhere. `/history` shows what was said, an
/// empty line or Ctrl-D ends it, Ctrl-C stops an answer.
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
        Backend::with(context, Purpose::Work, async |backend| {
            self.talk(context, backend).await
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
            &format!("conversation {conversation}; /history shows it, an empty line ends it"),
        ));
        if self.conversation.is_some() {
            self.take_up(context, backend, &conversation).await?;
        }
        let mut lines = BufReader::new(tokio::io::stdin()).lines();
        while let Some(line) = next(context, &mut lines).await? {
            if line.trim() == HISTORY {
                self.show_history(context, backend, &conversation).await?;
                continue;
            }
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

/// Shows the conversation instead of saying something.
const HISTORY: &str = "/history";

impl Chat {
    /// Says how far the conversation is.
    async fn take_up(
        &self,
        context: &Context,
        backend: &Backend,
        conversation: &str,
    ) -> anyhow::Result<()> {
        let state = backend.conversation(&self.agent, conversation).await?;
        let said = state.as_ref().map_or(0, |state| messages(state).len());
        let words = match said {
            0 => "it is new".to_owned(),
            1 => "it holds 1 message".to_owned(),
            n => format!("it holds {n} messages"),
        };
        context
            .screen
            .note(context.screen.paint(Style::Faint, &words));
        Ok(())
    }

    async fn show_history(
        &self,
        context: &Context,
        backend: &Backend,
        conversation: &str,
    ) -> anyhow::Result<()> {
        let screen = &context.screen;
        let state = backend.conversation(&self.agent, conversation).await?;
        let state = state.unwrap_or_default();
        for message in messages(&state) {
            let field = |name: &str| message.get(name).and_then(Value::as_str);
            let role = field("role").unwrap_or_default();
            let words = field("content").unwrap_or_default().trim_end();
            let words = match role {
                "tool" => one_line(words, 100),
                _ => words.to_owned(),
            };
            if !words.is_empty() {
                screen.note(format_args!("{} {words}", screen.paint(Style::Faint, role)));
            }
        }
        Ok(())
    }
}

fn messages(state: &Value) -> &[Value] {
    let messages = state.get("conversation_history").and_then(Value::as_array);
    messages.map(Vec::as_slice).unwrap_or_default()
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
