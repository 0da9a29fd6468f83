//! `tasks`: what ran, runs and waits; acting on it, and doing it again.

use clap::{ArgGroup, Args, Subcommand};
use domain::step::Answer;
use domain::{ExecutionId, Money, Seq, Status};
use serde_json::{Value, json};

use super::backend::Backend;
use super::{follow, tree};
use crate::cli::{Context, Exit};
use crate::screen::{Column, one_line, plain};
use crate::wiring::Purpose;

/// Lists, shows, cancels, answers, retries and forks executions.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  agentrunner tasks                                  the newest executions
  agentrunner tasks list --status waiting_for_input  what waits for a person
  agentrunner tasks steps 0192f0c1-...               everything that one did
  agentrunner tasks answer 0192f0c1-... --approve
  agentrunner tasks tree 0192f0c1-...                who works for it, and what that costs
  agentrunner tasks retry 0192f0c1-...               go on where it failed
  agentrunner tasks fork 0192f0c1-... --from-step 4 --message \"use last year's figures\""
)]
pub(crate) struct Tasks {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    list: List,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List executions, newest first (the default)
    List(List),
    /// Show one: status and why, usage, cost
    Show { id: ExecutionId },
    /// Show every step of one
    Steps { id: ExecutionId },
    /// Print the result of one
    Result { id: ExecutionId },
    /// End one
    Cancel { id: ExecutionId },
    /// Answer what one asks
    Answer(AnswerArgs),
    /// Show one with all that work for it: states, tokens, cost, durations
    Tree { id: ExecutionId },
    /// Do again what did not end well, from its last step on
    Retry {
        id: ExecutionId,
        /// From the beginning, with the agent as it is now
        #[arg(long)]
        anew: bool,
        /// With the agent as it is now, instead of the version that it began with
        #[arg(long)]
        current_config: bool,
    },
    /// Begin another one at a step of one
    Fork(ForkArgs),
}

#[derive(Debug, Args)]
struct ForkArgs {
    id: ExecutionId,
    /// The last step that both have; 0 shares none
    #[arg(long, value_name = "SEQ")]
    from_step: u32,
    /// What the agent is told there
    #[arg(long)]
    message: Option<String>,
    /// Another task: JSON, or text
    #[arg(long, value_name = "TASK")]
    task: Option<String>,
    /// With the agent as it is now, instead of the version that the other one began with
    #[arg(long)]
    current_config: bool,
}

#[derive(Debug, Args)]
struct List {
    /// Only of this agent
    #[arg(long)]
    agent: Option<String>,
    /// Only with this status
    #[arg(long)]
    status: Option<Status>,
    /// How many
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1000))]
    limit: u16,
}

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("what").required(true)))]
struct AnswerArgs {
    id: ExecutionId,
    /// The words, for a question
    #[arg(group = "what")]
    text: Option<String>,
    /// Allow the tool call
    #[arg(long, group = "what")]
    approve: bool,
    /// Refuse, and tell the model why
    #[arg(long, value_name = "REASON", group = "what")]
    reject: Option<String>,
    /// The call of unknown outcome happened, with this result
    #[arg(long, value_name = "RESULT", group = "what")]
    happened: Option<String>,
    /// The call of unknown outcome did not happen: call again
    #[arg(long, group = "what")]
    repeat: bool,
    /// Which request, when several are open
    #[arg(long, value_name = "SEQ")]
    request: Option<u32>,
}

impl Tasks {
    pub(crate) fn run(&self, context: &Context) -> anyhow::Result<Exit> {
        // Answering and cancelling wake the execution: without a server, whoever runs next goes on with it.
        Backend::with(context, Purpose::Read, async |backend| {
            self.perform(context, backend).await
        })
    }

    async fn perform(&self, context: &Context, backend: &Backend) -> anyhow::Result<Exit> {
        let Backend { client, .. } = backend;
        let screen = &context.screen;
        match &self.verb {
            None => self.list.show(context, backend).await?,
            Some(Verb::List(list)) => list.show(context, backend).await?,
            Some(Verb::Show { id }) => screen.value(&client.get(&format!("/tasks/{id}")).await?),
            Some(Verb::Steps { id }) => steps(context, backend, *id).await?,
            Some(Verb::Result { id }) => {
                screen.value(&client.get(&format!("/tasks/{id}/result")).await?);
            }
            Some(Verb::Cancel { id }) => {
                screen.value(&client.delete(&format!("/tasks/{id}")).await?);
            }
            Some(Verb::Answer(answer)) => {
                let request = answer.request.map(Seq::new);
                screen.value(&follow::give(client, answer.id, request, &answer.answer()).await?);
            }
            Some(Verb::Tree { id }) => {
                tree::show(screen, &client.get(&format!("/tasks/{id}/tree")).await?);
            }
            Some(Verb::Retry {
                id,
                anew,
                current_config,
            }) => {
                let body = json!({ "anew": anew, "current_config": current_config });
                screen.value(&client.post(&format!("/tasks/{id}/retry"), &body).await?);
            }
            Some(Verb::Fork(fork)) => {
                let path = format!("/tasks/{}/fork", fork.id);
                screen.value(&client.post(&path, &fork.body()).await?);
            }
        }
        Ok(Exit::Done)
    }
}

impl List {
    async fn show(&self, context: &Context, backend: &Backend) -> anyhow::Result<()> {
        let mut query = vec![("limit", self.limit.to_string())];
        query.extend(self.agent.iter().map(|agent| ("agent_name", agent.clone())));
        query.extend(
            self.status
                .iter()
                .map(|status| ("status", status.to_string())),
        );
        let tasks = backend.client.get_with("/tasks", &query).await?;
        let columns = [
            Column::field("id", "execution_id"),
            Column::field("agent", "agent_name"),
            Column::field("status", "status"),
            Column::of("created", |task| time(task.get("created_at"))),
            Column::field("steps", "steps"),
            Column::of("tokens", |task| {
                task.pointer("/usage/total_tokens")
                    .map(plain)
                    .unwrap_or_default()
            }),
            Column::of("cost", cost),
            Column::of("why", |task| {
                task.get("status_reason").map(plain).unwrap_or_default()
            }),
        ];
        context
            .screen
            .table(tasks.as_array().map_or(&[], Vec::as_slice), &columns);
        Ok(())
    }
}

async fn steps(context: &Context, backend: &Backend, id: ExecutionId) -> anyhow::Result<()> {
    let steps = backend.journal(id).await?;
    let columns = [
        Column::field("seq", "seq"),
        Column::of("at", |step| time(step.get("at"))),
        Column::field("kind", "kind"),
        Column::field("ms", "took_ms"),
        Column::of("what", what),
    ];
    context.screen.table(&steps, &columns);
    Ok(())
}

/// What a step is about, in a line.
fn what(step: &Value) -> String {
    let candidates = [
        "/reply/text",
        "/tool",
        "/outcome/content",
        "/outcome/message",
        "/outcome/output",
        "/outcome/status",
        "/question/text",
        "/question/tool",
        "/answer/text",
        "/answer/answer",
        "/reason/message",
        "/text",
    ];
    let calls = step
        .pointer("/reply/tool_calls")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|call| call.get("name").and_then(Value::as_str))
        .map(|name| format!("→ {name}"));
    let texts = candidates
        .iter()
        .filter_map(|pointer| step.pointer(pointer).and_then(Value::as_str))
        .filter(|text| !text.is_empty())
        .map(str::to_owned)
        .take(1);
    one_line(&texts.chain(calls).collect::<Vec<_>>().join(" "), 60)
}

/// Dollars; empty where no price is known.
pub(super) fn cost(task: &Value) -> String {
    task.get("cost_usd")
        .and_then(Value::as_f64)
        .filter(|cost| *cost > 0.0)
        .map(|cost| Money::from_usd(cost).to_string())
        .unwrap_or_default()
}

/// A time without its date's noise: to the second, UTC.
pub(super) fn time(value: Option<&Value>) -> String {
    let text = value.and_then(Value::as_str).unwrap_or_default();
    text.get(..19).unwrap_or(text).replace('T', " ")
}

impl ForkArgs {
    fn body(&self) -> Value {
        let mut body =
            json!({ "from_step": self.from_step, "current_config": self.current_config });
        if let Some(fields) = body.as_object_mut() {
            let task = self.task.as_ref().map(|task| {
                serde_json::from_str(task).unwrap_or_else(|_| Value::String(task.clone()))
            });
            fields.extend(task.map(|task| ("task_data".to_owned(), task)));
            let message = self.message.clone();
            fields.extend(message.map(|text| ("message".to_owned(), Value::String(text))));
        }
        body
    }
}

impl AnswerArgs {
    fn answer(&self) -> Answer {
        if let Some(text) = &self.text {
            Answer::Text { text: text.clone() }
        } else if self.approve {
            Answer::Approve
        } else if let Some(result) = &self.happened {
            Answer::Happened {
                result: result.clone(),
            }
        } else if self.repeat {
            Answer::Repeat
        } else {
            Answer::Reject {
                reason: self.reject.clone().unwrap_or_default(),
            }
        }
    }
}
