//! `run`: give an agent a task, watch it work, print its answer.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use domain::{Outcome, Status};
use serde_json::{Map, Value, json};

use super::backend::Backend;
use super::follow::{self, Followed};
use crate::cli::{Context, Exit, block_on};
use crate::telemetry;
use crate::wiring::Purpose;

/// The longest input that is read.
const MAX_INPUT_BYTES: u64 = 1 << 20;

/// Gives an agent a task, shows its words and tool calls as they come, and prints its answer.
///
/// Asks the server, if one runs; otherwise works in this process with the same store. The answer goes to standard
/// output, everything else to standard error. Ctrl-C cancels the execution.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  agentrunner run helper \"what is 6*7?\"
  git diff | agentrunner run reviewer -
  agentrunner run incident-summarizer --file server.log > summary.md
  agentrunner run helper \"hello\" --json | jq -r .status")]
pub(crate) struct Run {
    /// Which agent
    agent: String,
    /// What is to be done; - reads it from standard input
    #[arg(required_unless_present_any = ["file", "data"])]
    text: Option<String>,
    /// Read the task from a file; JSON is handed on as it is
    #[arg(long, value_name = "PATH", conflicts_with = "text")]
    file: Option<PathBuf>,
    /// Hand this JSON object on as the task
    #[arg(long, value_name = "JSON", conflicts_with_all = ["text", "file"])]
    data: Option<String>,
    /// How long it may take, in seconds
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    timeout: Option<u64>,
    /// The conversation that it belongs to
    #[arg(long, value_name = "ID")]
    conversation: Option<String>,
}

impl Run {
    pub(crate) fn run(&self, context: &Context) -> anyhow::Result<Exit> {
        telemetry::start_quiet(context)?;
        let input = self.input()?;
        block_on(self.perform(context, input))
    }

    async fn perform(&self, context: &Context, input: Value) -> anyhow::Result<Exit> {
        let backend = Backend::find(context, Purpose::Work).await?;
        let result = self.ask(context, &backend, input).await;
        backend.close().await;
        result
    }

    async fn ask(
        &self,
        context: &Context,
        backend: &Backend,
        input: Value,
    ) -> anyhow::Result<Exit> {
        let screen = &context.screen;
        if backend.is_local() && !screen.json {
            screen.note("no server runs; working in this process with the same store");
        }
        let id = follow::submit(&backend.client, &self.task(input)).await?;
        match follow::follow(&backend.client, id, screen).await? {
            Followed::Interrupted => Ok(Exit::Interrupted),
            Followed::Waits(request) => {
                screen.note(format_args!(
                    "{id} waits for a person; answer with: agentrunner tasks answer {id} --request {request} TEXT"
                ));
                if screen.json {
                    screen.value(&backend.client.get(&format!("/tasks/{id}")).await?);
                }
                Ok(Exit::Failed)
            }
            Followed::Over(outcome) => {
                if screen.json {
                    screen.value(&backend.client.get(&format!("/tasks/{id}/result")).await?);
                }
                Ok(exit_of(&outcome))
            }
        }
    }

    fn task(&self, input: Value) -> Value {
        let mut task = Map::new();
        task.insert("agent_name".to_owned(), self.agent.clone().into());
        task.insert("task_data".to_owned(), input);
        if let Some(seconds) = self.timeout {
            task.insert("timeout_seconds".to_owned(), seconds.into());
        }
        if let Some(conversation) = &self.conversation {
            task.insert("conversation_id".to_owned(), conversation.clone().into());
        }
        Value::Object(task)
    }

    fn input(&self) -> anyhow::Result<Value> {
        match (&self.text, &self.file, &self.data) {
            (_, _, Some(data)) => serde_json::from_str(data).context("--data is not JSON"),
            (_, Some(path), _) => {
                let text = bounded(std::fs::File::open(path), path)?;
                let is_json = path
                    .extension()
                    .is_some_and(|extension| extension == "json");
                if is_json {
                    return serde_json::from_str(&text)
                        .with_context(|| format!("{} is not JSON", path.display()));
                }
                Ok(json!({ "prompt": text }))
            }
            (Some(text), _, _) if text == "-" => {
                Ok(json!({ "prompt": bounded(Ok(std::io::stdin()), Path::new("standard input"))? }))
            }
            (text, _, _) => Ok(json!({ "prompt": text })),
        }
    }
}

/// Reads a text of bounded length.
fn bounded(source: std::io::Result<impl Read>, name: &Path) -> anyhow::Result<String> {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        source?.take(MAX_INPUT_BYTES + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let name = name.display();
    let bytes = read().with_context(|| format!("{name} can't be read"))?;
    anyhow::ensure!(
        bytes.len() as u64 <= MAX_INPUT_BYTES,
        "{name} is longer than the {MAX_INPUT_BYTES} bytes that a task may have; let the agent read it with read_file"
    );
    String::from_utf8(bytes).with_context(|| format!("{name} is not UTF-8 text"))
}

pub(super) fn exit_of(outcome: &Outcome) -> Exit {
    match outcome.status() {
        Status::Completed => Exit::Done,
        _ => Exit::Failed,
    }
}
