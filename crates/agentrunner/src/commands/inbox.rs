//! `inbox`: what waits for a person, and answering it.

use std::borrow::Cow;
use std::fs;
use std::str::FromStr;

use clap::{ArgGroup, Args, Subcommand};
use domain::step::Answer;
use domain::{ExecutionId, Seq};
use serde_json::Value;

use super::backend::Backend;
use super::follow;
use super::tasks::time;
use crate::cli::{Context, Exit};
use crate::screen::{Column, one_line, plain};
use crate::wiring::Purpose;

/// Lists and answers what waits for a person.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
An item is an execution, or EXECUTION:STEP where one asks several things.

Examples:
  agentrunner inbox                                      what waits, the oldest first
  agentrunner inbox list --question approval --for finance
  agentrunner inbox show 0192f0c1-...:4                  exactly what is to be approved
  agentrunner inbox approve 0192f0c1-...:4
  agentrunner inbox edit 0192f0c1-...:4 '{\"amount\": 90}'
  agentrunner inbox edit-plan 0192f0c1-...:4 @plan.json
  agentrunner inbox reject 0192f0c1-...:4 \"not this customer\"
  agentrunner inbox answer 0192f0c1-... \"the one from Tuesday\"
  agentrunner inbox settle 0192f0c1-...:6 --happened \"receipt 7\""
)]
pub(crate) struct Inbox {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    list: List,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List what waits (the default)
    List(List),
    /// Show one whole
    Show { item: Item },
    /// Allow a tool call, exactly as it is
    Approve {
        item: Item,
        #[command(flatten)]
        who: Who,
    },
    /// Allow a tool call with other arguments
    Edit {
        item: Item,
        /// All of its arguments, as a JSON object
        #[arg(value_parser = object)]
        arguments: String,
        #[command(flatten)]
        who: Who,
    },
    /// Have another plan carried out than the coordinator's
    EditPlan {
        item: Item,
        /// The whole plan, as JSON: {"steps": [...]} as `inbox show` prints it. @FILE reads it from a file
        #[arg(value_parser = plan)]
        plan: Value,
        #[command(flatten)]
        who: Who,
    },
    /// Refuse, and tell the model why
    Reject {
        item: Item,
        reason: String,
        #[command(flatten)]
        who: Who,
    },
    /// Answer a question
    Answer {
        item: Item,
        text: String,
        #[command(flatten)]
        who: Who,
    },
    /// Say whether a call happened whose outcome is not known
    Settle(Settle),
}

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("what").required(true)))]
struct Settle {
    item: Item,
    /// It happened, with this result
    #[arg(long, value_name = "RESULT", group = "what")]
    happened: Option<String>,
    /// It did not happen: call again, with the same key
    #[arg(long, group = "what")]
    repeat: bool,
    #[command(flatten)]
    who: Who,
}

#[derive(Debug, Args)]
struct Who {
    /// Who says so, for the journal
    #[arg(long, value_name = "NAME")]
    by: Option<String>,
}

#[derive(Debug, Args)]
struct List {
    /// Only of this agent
    #[arg(long)]
    agent: Option<String>,
    /// Only of this kind
    #[arg(long, value_parser = ["clarification", "approval", "unknown_outcome", "plan"])]
    question: Option<String>,
    /// Only what is for these people: the answered_by of the agents
    #[arg(long = "for", value_name = "WHOM")]
    whom: Option<String>,
    /// How many
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=1000))]
    limit: u16,
}

/// A question: whose, and which of its steps asks it.
#[derive(Debug, Clone, Copy)]
struct Item {
    id: ExecutionId,
    request: Option<Seq>,
}

impl FromStr for Item {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (id, request) = match text.split_once(':') {
            Some((id, request)) => (id, Some(request)),
            None => (text, None),
        };
        let id = id
            .parse()
            .map_err(|_| format!("{id:?} is not the id of an execution"))?;
        let request = request.map(|seq| {
            seq.parse()
                .map(Seq::new)
                .map_err(|_| format!("{seq:?} is not the number of a step"))
        });
        Ok(Self {
            id,
            request: request.transpose()?,
        })
    }
}

fn object(text: &str) -> Result<String, String> {
    match serde_json::from_str::<Value>(text) {
        Ok(Value::Object(_)) => Ok(text.to_owned()),
        Ok(_) => Err("arguments are a JSON object".to_owned()),
        Err(error) => Err(format!("it is not JSON: {error}")),
    }
}

/// A plan as it was written, or as a file has it. Whether it can be carried out is the server's to say.
fn plan(text: &str) -> Result<Value, String> {
    let text = match text.strip_prefix('@') {
        None => Cow::Borrowed(text),
        Some(path) => {
            let read = fs::read_to_string(path);
            Cow::Owned(read.map_err(|error| format!("{path} can't be read: {error}"))?)
        }
    };
    match serde_json::from_str::<Value>(&text) {
        Ok(plan) if plan.get("steps").is_some_and(Value::is_array) => Ok(plan),
        Ok(_) => Err("a plan is a JSON object with a list of steps".to_owned()),
        Err(error) => Err(format!("it is not JSON: {error}")),
    }
}

impl Inbox {
    pub(crate) fn run(&self, context: &Context) -> anyhow::Result<Exit> {
        // Answering wakes the execution: without a server, whoever runs next goes on with it.
        Backend::with(context, Purpose::Read, async |backend| {
            self.perform(context, backend).await
        })
    }

    async fn perform(&self, context: &Context, backend: &Backend) -> anyhow::Result<Exit> {
        let (item, answer, who) = match &self.verb {
            None => return self.list.show(context, backend).await,
            Some(Verb::List(list)) => return list.show(context, backend).await,
            Some(Verb::Show { item }) => return show(context, backend, item).await,
            Some(Verb::Approve { item, who }) => (item, Answer::Approve, who),
            Some(Verb::Edit {
                item,
                arguments,
                who,
            }) => {
                let arguments = arguments.clone();
                (item, Answer::Edit { arguments }, who)
            }
            Some(Verb::EditPlan { item, plan, who }) => {
                let plan = plan.clone();
                (item, Answer::EditPlan { plan }, who)
            }
            Some(Verb::Reject { item, reason, who }) => {
                let reason = reason.clone();
                (item, Answer::Reject { reason }, who)
            }
            Some(Verb::Answer { item, text, who }) => {
                (item, Answer::Text { text: text.clone() }, who)
            }
            Some(Verb::Settle(settle)) => (&settle.item, settle.answer(), &settle.who),
        };
        let by = who.by.as_deref().unwrap_or(follow::HERE);
        let taken = follow::give_as(&backend.client, item.id, item.request, &answer, by).await?;
        context.screen.value(&taken);
        Ok(Exit::Done)
    }
}

impl Settle {
    fn answer(&self) -> Answer {
        match &self.happened {
            Some(result) => Answer::Happened {
                result: result.clone(),
            },
            None => Answer::Repeat,
        }
    }
}

impl List {
    async fn show(&self, context: &Context, backend: &Backend) -> anyhow::Result<Exit> {
        let mut query = vec![("limit", self.limit.to_string())];
        for (name, value) in [
            ("agent_name", &self.agent),
            ("question", &self.question),
            ("answered_by", &self.whom),
        ] {
            query.extend(value.iter().map(|value| (name, value.clone())));
        }
        let items = backend.client.get_with("/inbox", &query).await?;
        let columns = [
            Column::field("item", "id"),
            Column::field("agent", "agent_name"),
            Column::field("for", "answered_by"),
            Column::field("asks", "question"),
            Column::of("what", what),
            Column::of("since", |item| time(item.get("asked_at"))),
            Column::of("until", |item| time(item.get("expires_at"))),
            Column::field("why", "why"),
        ];
        context
            .screen
            .table(items.as_array().map_or(&[], Vec::as_slice), &columns);
        Ok(Exit::Done)
    }
}

/// What a question is about, in a line.
fn what(item: &Value) -> String {
    let field = |name: &str| item.get(name).map(plain).unwrap_or_default();
    let steps = item.pointer("/plan/steps").and_then(Value::as_array);
    let text = match (item.get("text"), steps) {
        (Some(text), _) => plain(text),
        (None, Some(steps)) => {
            let agents = steps.iter().filter_map(|step| step.get("agent"));
            format!(
                "steps of {}",
                agents.map(plain).collect::<Vec<_>>().join(", ")
            )
        }
        (None, None) => format!("{} {}", field("tool"), field("arguments")),
    };
    one_line(&text, 60)
}

async fn show(context: &Context, backend: &Backend, item: &Item) -> anyhow::Result<Exit> {
    let query = [("execution_id", item.id.to_string())];
    let items = backend.client.get_with("/inbox", &query).await?;
    let items = items.as_array().map_or(&[][..], Vec::as_slice);
    let is_wanted = |one: &&Value| {
        item.request
            .is_none_or(|request| one.get("request").is_some_and(|seq| *seq == request.get()))
    };
    let mut found = items.iter().filter(is_wanted).peekable();
    anyhow::ensure!(
        found.peek().is_some(),
        "nothing of execution {} waits for a person; `agentrunner inbox` lists what does",
        item.id
    );
    for one in found {
        context.screen.value(one);
    }
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_is_an_execution_with_or_without_a_step() {
        let id = "0192f0c1-7e3a-7c3d-8e4f-5a6b7c8d9e0f";
        let item: Item = id.parse().unwrap();
        assert_eq!((item.id.to_string().as_str(), item.request), (id, None));
        let item: Item = format!("{id}:4").parse().unwrap();
        assert_eq!(item.request, Some(Seq::new(4)));
        for wrong in ["", "x:4", &format!("{id}:"), &format!("{id}:-1")] {
            assert!(wrong.parse::<Item>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_plan_is_written_or_in_a_file() {
        let text = r#"{"steps":[{"id":"x","agent":"b"}]}"#;
        assert_eq!(plan(text).unwrap().to_string().len(), text.len());
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), text).unwrap();
        let named = format!("@{}", file.path().display());
        assert_eq!(plan(&named), plan(text));
        for (wrong, why) in [
            ("[]", "a list of steps"),
            ("{", "not JSON"),
            ("@/nowhere/plan.json", "can't be read"),
        ] {
            let told = plan(wrong).unwrap_err();
            assert!(told.contains(why), "{wrong}: {told}");
        }
    }

    #[test]
    fn a_plan_is_told_by_who_works() {
        let item = serde_json::json!({ "plan": { "steps": [{ "agent": "b" }, { "agent": "c" }] } });
        assert_eq!(what(&item), "steps of b, c");
    }
}
