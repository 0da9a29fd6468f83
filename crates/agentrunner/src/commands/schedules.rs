//! `schedules`: when agents work by themselves; and acting on it.

use clap::{ArgGroup, Args, Subcommand, ValueEnum};
use serde_json::{Map, Value, json};

use super::backend::Backend;
use crate::cli::{Context, Exit};
use crate::client::Client;
use crate::screen::{Column, plain};
use crate::wiring::Purpose;

/// Lists, shows, makes, pauses and triggers schedules.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  agentrunner schedules                              all schedules, and when each starts next
  agentrunner schedules next nightly-report          its next five fire times
  agentrunner schedules runs nightly-report          what became of the latest ones
  agentrunner schedules create nightly-report --agent reporter --cron '0 2 * * *' --timezone Europe/Berlin
  agentrunner schedules create watch --agent monitor --every 60 --overlap queue
  agentrunner schedules trigger nightly-report       start a run now"
)]
pub(crate) struct Schedules {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    list: List,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List schedules by name (the default)
    List(List),
    /// Show one with its latest run
    Show { name: String },
    /// Show when one fires next
    Next {
        name: String,
        /// How many fire times
        #[arg(short = 'n', long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=100))]
        count: u16,
    },
    /// List what became of its fire times, the latest first
    Runs {
        name: String,
        /// How many
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1000))]
        limit: u16,
    },
    /// Stop one; what passes meanwhile is not made up for
    Pause { name: String },
    /// Let one run again
    Resume { name: String },
    /// Start a run now
    Trigger { name: String },
    /// Make one
    Create(Box<Create>),
    /// Forget one; its executions stay
    Delete { name: String },
}

#[derive(Debug, Args)]
struct List {
    /// Only of this agent
    #[arg(long)]
    agent: Option<String>,
    /// How many
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=1000))]
    limit: u16,
}

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("when").required(true)))]
struct Create {
    name: String,
    /// Who works
    #[arg(long)]
    agent: String,
    /// By the calendar: 5 fields, 6 with seconds first, or @daily and kin
    #[arg(long, value_name = "EXPRESSION", group = "when")]
    cron: Option<String>,
    /// Every so many seconds
    #[arg(long, value_name = "SECONDS", group = "when")]
    every: Option<u64>,
    /// Once, at this time
    #[arg(long, value_name = "TIME", group = "when")]
    at: Option<String>,
    /// The IANA time zone of --cron and --at
    #[arg(long, value_name = "ZONE")]
    timezone: Option<String>,
    /// What the agent is asked
    #[arg(long, value_name = "TEXT", conflicts_with = "data")]
    prompt: Option<String>,
    /// What the agent is given, as JSON
    #[arg(long, value_name = "JSON")]
    data: Option<String>,
    /// How long a run may take, in seconds
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u64>,
    /// About due times that passed while nothing ran
    #[arg(long, value_enum)]
    misfire: Option<Misfire>,
    /// About due times at which the run before has not ended
    #[arg(long, value_enum)]
    overlap: Option<Overlap>,
    /// Spread starts by up to this many seconds
    #[arg(long, value_name = "SECONDS")]
    jitter: Option<u64>,
    /// Make it paused
    #[arg(long)]
    disabled: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Misfire {
    Skip,
    Once,
    All,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Overlap {
    Skip,
    Queue,
    Cancel,
}

impl Schedules {
    pub(crate) fn run(&self, context: &Context) -> anyhow::Result<Exit> {
        // What is changed without a server is found by whoever runs next.
        Backend::with(context, Purpose::Read, async |backend| {
            self.perform(context, &backend.scheduler).await
        })
    }

    async fn perform(&self, context: &Context, client: &Client) -> anyhow::Result<Exit> {
        let screen = &context.screen;
        let path = |name: &str, rest: &str| format!("/schedules/{}{rest}", encoded(name));
        match &self.verb {
            None => self.list.show(context, client).await?,
            Some(Verb::List(list)) => list.show(context, client).await?,
            Some(Verb::Show { name }) => screen.value(&client.get(&path(name, "")).await?),
            Some(Verb::Next { name, count }) => {
                let query = [("count", count.to_string())];
                let next = client.get_with(&path(name, "/next"), &query).await?;
                let columns = [
                    Column::of("fires", |next| time(next.get("fire_time"))),
                    Column::field("local", "local_time"),
                    Column::of("starts", |next| time(next.get("starts_at"))),
                ];
                screen.table(rows(&next), &columns);
            }
            Some(Verb::Runs { name, limit }) => {
                let query = [("limit", limit.to_string())];
                let runs = client.get_with(&path(name, "/runs"), &query).await?;
                screen.table(rows(&runs), &run_columns());
            }
            Some(Verb::Pause { name }) => {
                let paused = set_enabled(client, &path(name, "/enabled"), false).await?;
                screen.done(&paused, |_| format!("the schedule {name} is paused"));
            }
            Some(Verb::Resume { name }) => {
                let resumed = set_enabled(client, &path(name, "/enabled"), true).await?;
                screen.done(&resumed, |schedule| is_set("runs again", schedule));
            }
            Some(Verb::Trigger { name }) => {
                let run = client.post(&path(name, "/trigger"), &json!({})).await?;
                screen.done(&run, began);
            }
            Some(Verb::Create(create)) => {
                let made = client.post("/schedules", &create.body()?).await?;
                screen.done(&made, |schedule| is_set("is made", schedule));
            }
            Some(Verb::Delete { name }) => {
                client.delete(&path(name, "")).await?;
                screen.note(format_args!("the schedule {name} is deleted"));
            }
        }
        Ok(Exit::Done)
    }
}

impl List {
    async fn show(&self, context: &Context, client: &Client) -> anyhow::Result<()> {
        let mut query = vec![("limit", self.limit.to_string())];
        query.extend(self.agent.iter().map(|agent| ("agent_name", agent.clone())));
        let schedules = client.get_with("/schedules", &query).await?;
        let columns = [
            Column::field("name", "name"),
            Column::field("agent", "agent_name"),
            Column::of("when", when),
            Column::of("state", |schedule| {
                match schedule.get("enabled").and_then(Value::as_bool) {
                    Some(true) => "active".to_owned(),
                    _ if schedule.get("paused").and_then(Value::as_bool) == Some(true) => {
                        "paused".to_owned()
                    }
                    _ => "disabled".to_owned(),
                }
            }),
            Column::of("next", |schedule| time(schedule.get("next_run_at"))),
            Column::of("last", |schedule| {
                schedule
                    .pointer("/last_run/status")
                    .map(plain)
                    .unwrap_or_default()
            }),
            Column::of("managed by", |schedule| {
                plain(
                    schedule
                        .get("file")
                        .or_else(|| schedule.get("managed_by"))
                        .unwrap_or(&Value::Null),
                )
            }),
        ];
        context.screen.table(rows(&schedules), &columns);
        Ok(())
    }
}

impl Create {
    fn body(&self) -> anyhow::Result<Value> {
        let mut body = Map::new();
        let mut put = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                body.insert(name.to_owned(), value);
            }
        };
        put("name", Some(json!(self.name)));
        put("agent_name", Some(json!(self.agent)));
        put("cron", self.cron.as_ref().map(|text| json!(text)));
        put("interval_seconds", self.every.map(|seconds| json!(seconds)));
        put("at", self.at.as_ref().map(|text| json!(text)));
        put("timezone", self.timezone.as_ref().map(|text| json!(text)));
        put(
            "task_data",
            self.prompt.as_ref().map(|text| json!({ "prompt": text })),
        );
        if let Some(data) = &self.data {
            let data: Value = serde_json::from_str(data)
                .map_err(|error| anyhow::anyhow!("--data is not JSON: {error}"))?;
            put("task_data", Some(data));
        }
        put(
            "timeout_seconds",
            self.timeout.map(|seconds| json!(seconds)),
        );
        put("misfire_policy", self.misfire.as_ref().map(word));
        put("overlap_policy", self.overlap.as_ref().map(word));
        put("jitter_seconds", self.jitter.map(|seconds| json!(seconds)));
        put("enabled", self.disabled.then(|| json!(false)));
        Ok(Value::Object(body))
    }
}

fn word(value: &impl ValueEnum) -> Value {
    let value = value.to_possible_value();
    json!(value.as_ref().map(|value| value.get_name()))
}

async fn set_enabled(client: &Client, path: &str, enabled: bool) -> anyhow::Result<Value> {
    client.patch(path, &json!({ "enabled": enabled })).await
}

fn run_columns() -> [Column; 6] {
    [
        Column::of("fired", |run| time(run.get("fire_time"))),
        Column::field("trigger", "trigger"),
        Column::field("status", "status"),
        Column::field("execution", "execution_id"),
        Column::of("ended", |run| time(run.get("finished_at"))),
        Column::field("why", "detail"),
    ]
}

fn rows(list: &Value) -> &[Value] {
    list.as_array().map_or(&[], Vec::as_slice)
}

/// What became of a schedule, in a line.
fn is_set(what: &str, schedule: &Value) -> String {
    let field = |name: &str| schedule.get(name).map(plain).unwrap_or_default();
    let next = match time(schedule.get("next_run_at")) {
        next if next.is_empty() => "it does not fire as it is".to_owned(),
        next => format!("next at {next} UTC"),
    };
    format!(
        "the schedule {} {what}: {}, {}; {next}",
        field("name"),
        field("agent_name"),
        when(schedule).trim()
    )
}

/// What became of a run that was wanted now, in a line.
fn began(run: &Value) -> String {
    let field = |name: &str| run.get(name).map(plain).unwrap_or_default();
    let (schedule, execution) = (field("schedule"), field("execution_id"));
    format!("a run of {schedule} is accepted; `agentrunner tasks show {execution}` shows it")
}

/// When a schedule fires, in a few words.
fn when(schedule: &Value) -> String {
    let field = |name: &str| schedule.get(name).map(plain).unwrap_or_default();
    match schedule.get("type").and_then(Value::as_str) {
        Some("interval") => format!("every {} s", field("interval_seconds")),
        Some("once") => format!("once, {}", time(schedule.get("at"))),
        _ => format!("{} {}", field("cron"), field("timezone")),
    }
}

/// A time without its date's noise: to the second, UTC.
fn time(value: Option<&Value>) -> String {
    let text = value.and_then(Value::as_str).unwrap_or_default();
    text.get(..19).unwrap_or(text).replace('T', " ")
}

/// A name as a segment of a path: what is no name must not become another path.
pub(super) fn encoded(name: &str) -> String {
    name.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => char::from(byte).to_string(),
            other => format!("%{other:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_done_is_a_sentence() {
        let schedule = json!({
            "name": "nightly", "agent_name": "reporter", "type": "cron", "cron": "0 2 * * *", "timezone": "UTC",
            "next_run_at": "2026-12-01T02:00:00.000000Z",
        });
        assert_eq!(
            is_set("is made", &schedule),
            "the schedule nightly is made: reporter, 0 2 * * * UTC; next at 2026-12-01 02:00:00 UTC"
        );
        let paused = json!({
            "name": "watch", "agent_name": "m", "type": "interval", "interval_seconds": 60, "next_run_at": null,
        });
        assert!(is_set("is made", &paused).ends_with("m, every 60 s; it does not fire as it is"));
        let run = json!({ "schedule": "nightly", "execution_id": "0192" });
        assert_eq!(
            began(&run),
            "a run of nightly is accepted; `agentrunner tasks show 0192` shows it"
        );
    }
}
