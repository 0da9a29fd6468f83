//! An execution as every face shows it.

use std::cmp::Reverse;

use axum::response::Response;
use domain::definition::Provider;
use domain::execution::Origin;
use domain::{AgentName, ExecutionId, ExecutionMode, Outcome, Priority, Status, Step, Time};
use http::Uri;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use store::{ExecutionFilter, ExecutionRow, Page, Store, Total};
use utoipa::{IntoParams, ToSchema};

use crate::http::caller::Caller;
use crate::http::page::{Listed, cursor, execution_page, next_address};
use crate::http::{Answer, ApiError, App, Code};

/// How many steps are read at once.
const PAGE: usize = 500;

/// An execution as it stands.
#[derive(Debug, Serialize, ToSchema)]
pub struct ExecutionOut {
    /// Its id.
    #[schema(value_type = String, format = Uuid)]
    pub execution_id: ExecutionId,
    /// Who does it.
    pub agent_name: String,
    /// How the agent works.
    #[schema(value_type = String, example = "autonomous")]
    pub execution_mode: ExecutionMode,
    /// queued, running, waiting_for_input, completed, failed, timeout or cancelled.
    #[schema(value_type = String, example = "running")]
    pub status: Status,
    /// Why, in words.
    pub status_reason: String,
    /// Who goes first when many wait: low, normal or high.
    #[schema(value_type = String, example = "normal")]
    pub priority: Priority,
    /// The version of the definition that it began with and ends on.
    pub config_version: String,
    /// The conversation that it belongs to.
    pub conversation_id: Option<String>,
    /// The execution that delegated it.
    #[schema(value_type = Option<String>, format = Uuid)]
    pub parent_execution_id: Option<ExecutionId>,
    /// Where it began, when that was another execution's step.
    pub forked_from: Option<OriginOut>,
    /// The event that started it.
    pub event_id: Option<String>,
    /// The trace of the request.
    pub trace_id: String,
    /// When it was accepted.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Time,
    /// When it was first begun.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub started_at: Option<Time>,
    /// When it ended.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub finished_at: Option<Time>,
    /// When it must have ended.
    #[schema(value_type = String, format = DateTime)]
    pub deadline: Time,
    /// The process that performs it.
    pub worker: Option<String>,
    /// How long ago that one was last heard of, in seconds.
    pub heartbeat_age_seconds: Option<f64>,
    /// How often in a row its worker was lost; at AGENT_RESTART_MAX_ATTEMPTS it fails.
    pub restarts: u32,
    /// How many steps its journal has.
    pub steps: u32,
    /// What it consumed.
    pub usage: UsageOut,
    /// What that cost in dollars, as far as prices are known.
    pub cost_usd: f64,
    /// Answers of the model.
    pub model_calls: u32,
    /// Tool calls that were begun.
    pub tool_calls: u32,
}

/// The execution that another one began from.
#[derive(Debug, Serialize, ToSchema)]
pub struct OriginOut {
    /// Which.
    #[schema(value_type = String, format = Uuid)]
    pub execution_id: ExecutionId,
    /// The last step that both have; 0 when it began anew.
    pub step: u32,
    /// What it was told there.
    pub message: Option<String>,
}

impl From<&Origin> for OriginOut {
    fn from(origin: &Origin) -> Self {
        Self {
            execution_id: origin.id,
            step: origin.steps,
            message: origin.message.clone(),
        }
    }
}

/// Tokens.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
pub struct UsageOut {
    /// Of prompts, those read from the provider's cache included.
    pub input_tokens: u64,
    /// Of answers.
    pub output_tokens: u64,
    /// Of prompts, read from the provider's cache.
    pub cached_tokens: u64,
    /// Prompts and answers together.
    pub total_tokens: u64,
}

impl From<domain::Usage> for UsageOut {
    fn from(usage: domain::Usage) -> Self {
        Self {
            input_tokens: usage.input_tokens.0,
            output_tokens: usage.output_tokens.0,
            cached_tokens: usage.cached_tokens.0,
            total_tokens: usage.total().0,
        }
    }
}

impl ExecutionOut {
    /// The row as it is shown at `now`.
    pub fn new(row: &ExecutionRow, now: Time) -> Self {
        let execution = &row.execution;
        let age = row.heartbeat_at.filter(|_| row.worker.is_some());
        Self {
            execution_id: execution.id,
            agent_name: execution.agent.to_string(),
            execution_mode: execution.mode,
            status: row.status,
            status_reason: reason(row, now),
            priority: execution.priority,
            config_version: execution.version.to_string(),
            conversation_id: execution.conversation.clone().map(String::from),
            parent_execution_id: execution.parent.map(|parent| parent.id),
            forked_from: execution.origin.as_ref().map(Into::into),
            event_id: execution.event_id.clone().map(String::from),
            trace_id: execution.trace_id.to_string(),
            created_at: execution.created_at,
            started_at: row.started_at,
            finished_at: row.finished_at,
            deadline: execution.deadline,
            worker: row.worker.clone().map(String::from),
            heartbeat_age_seconds: age.map(|at| seconds(now - at)),
            restarts: row.crashes,
            steps: row.steps,
            usage: row.totals.usage.into(),
            cost_usd: row.totals.cost_usd.usd(),
            model_calls: row.totals.model_calls,
            tool_calls: row.totals.tool_calls,
        }
    }
}

fn seconds(delta: chrono::TimeDelta) -> f64 {
    // Clocks of two machines differ: an age is never negative.
    delta.num_milliseconds().max(0) as f64 / 1000.0
}

/// Why an execution stands as it does, in words.
fn reason(row: &ExecutionRow, now: Time) -> String {
    if let Some(outcome) = &row.outcome {
        return outcome.reason();
    }
    if let Some(cancel) = &row.cancel {
        return format!("it is being cancelled by {}", cancel.by);
    }
    if let Some(reason) = &row.status_reason {
        return reason.clone();
    }
    match (row.status, &row.worker, row.heartbeat_at) {
        (Status::Queued, ..) if row.crashes > 0 => {
            "it waits for a worker, after one was lost".to_owned()
        }
        (Status::Queued, ..) => "it waits for a worker".to_owned(),
        (Status::WaitingForInput, ..) => "it waits for a person".to_owned(),
        (_, Some(worker), Some(at)) => {
            format!(
                "{worker} works on it, last heard of {:.1} s ago",
                seconds(now - at)
            )
        }
        (_, Some(worker), None) => format!("{worker} works on it"),
        (_, None, _) => "it waits for its next step".to_owned(),
    }
}

/// How an execution ended, or that it has not.
#[derive(Debug, Serialize, ToSchema)]
pub struct ResultOut {
    /// Its id.
    #[schema(value_type = String, format = Uuid)]
    pub execution_id: ExecutionId,
    /// Who did it.
    pub agent_name: String,
    /// As for the execution.
    #[schema(value_type = String, example = "completed")]
    pub status: Status,
    /// Why, in words.
    pub status_reason: String,
    /// The answer; null when there is none (yet).
    pub output: Option<String>,
    /// The answer as JSON, when the agent has an `output_schema`.
    #[schema(value_type = Value)]
    pub structured: Option<Value>,
    /// Whether the answer was cut off by its length limit.
    pub truncated: bool,
    /// Why it failed, when it did.
    pub error: Option<FailureOut>,
    /// When it ended.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub finished_at: Option<Time>,
    /// How many steps it took.
    pub steps: u32,
    /// What it consumed.
    pub usage: UsageOut,
    /// What that cost in dollars, as far as prices are known.
    pub cost_usd: f64,
    /// The trace of the request.
    pub trace_id: String,
}

/// Why an execution failed.
#[derive(Debug, Serialize, ToSchema)]
pub struct FailureOut {
    /// A word to branch on.
    #[schema(value_type = String, example = "BUDGET_EXCEEDED")]
    pub code: Value,
    /// What happened and what to do.
    pub message: String,
}

impl ResultOut {
    /// The row as it is shown at `now`.
    pub fn new(row: &ExecutionRow, now: Time) -> Self {
        let failure = |code: Value, message: &str| FailureOut {
            code,
            message: message.to_owned(),
        };
        let (mut output, mut structured, mut truncated, mut error) = (None, None, false, None);
        match &row.outcome {
            Some(Outcome::Completed {
                output: text,
                structured: json,
                stop,
            }) => {
                output = Some(text.clone());
                structured.clone_from(json);
                truncated = *stop == domain::StopReason::MaxTokens;
            }
            Some(Outcome::Failed(cause)) => {
                let code = serde_json::to_value(cause.code).unwrap_or_default();
                error = Some(failure(code, &cause.message));
            }
            Some(Outcome::Timeout { message }) => error = Some(failure("TIMEOUT".into(), message)),
            Some(outcome @ Outcome::Cancelled { .. }) => {
                error = Some(failure("CANCELLED".into(), &outcome.reason()));
            }
            None => {}
        }
        Self {
            execution_id: row.execution.id,
            agent_name: row.execution.agent.to_string(),
            status: row.status,
            status_reason: reason(row, now),
            output,
            structured,
            truncated,
            error,
            finished_at: row.finished_at,
            steps: row.steps,
            usage: row.totals.usage.into(),
            cost_usd: row.totals.cost_usd.usd(),
            trace_id: row.execution.trace_id.to_string(),
        }
    }
}

/// Which executions; all of them when nothing is said.
#[derive(Debug, Clone, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListParams {
    /// Of one agent.
    pub agent_name: Option<String>,
    /// In one of these states, joined by commas.
    #[param(example = "queued,running")]
    pub status: Option<String>,
    /// Of one trace.
    pub trace_id: Option<String>,
    /// Of one conversation.
    pub conversation_id: Option<String>,
    /// Children of one execution.
    pub parent_execution_id: Option<String>,
    /// Accepted at or after this instant (RFC 3339).
    #[param(value_type = Option<String>, format = DateTime)]
    pub started_after: Option<Time>,
    /// Accepted before this instant (RFC 3339).
    #[param(value_type = Option<String>, format = DateTime)]
    pub started_before: Option<Time>,
    /// How many at most: 1 to 1000, 100 when nothing is said.
    pub limit: Option<usize>,
    /// Where to go on: from the `Link` header of the answer before.
    pub cursor: Option<String>,
}

impl ListParams {
    fn filter(&self) -> Answer<ExecutionFilter> {
        Ok(ExecutionFilter {
            agent: read("agent_name", self.agent_name.as_deref())?,
            status: match &self.status {
                Some(words) => words
                    .split(',')
                    .map(|word| {
                        word.trim()
                            .parse()
                            .map_err(|why: String| invalid("status", &why))
                    })
                    .collect::<Answer<_>>()?,
                None => Vec::new(),
            },
            trace_id: read("trace_id", self.trace_id.as_deref())?,
            conversation: read("conversation_id", self.conversation_id.as_deref())?,
            parent: read("parent_execution_id", self.parent_execution_id.as_deref())?,
            created_after: self.started_after,
            created_before: self.started_before,
        })
    }
}

fn read<T>(field: &str, text: Option<&str>) -> Answer<Option<T>>
where
    T: std::str::FromStr,
    T::Err: std::fmt::Display,
{
    text.map(|text| {
        text.parse::<T>()
            .map_err(|why| invalid(field, &why.to_string()))
    })
    .transpose()
}

/// Says what is wrong with a query parameter.
pub(crate) fn invalid(field: &str, why: &str) -> ApiError {
    ApiError::new(
        Code::InvalidRequest,
        format!("query parameter {field}: {why}"),
    )
    .with_field(field, why, "")
}

/// A list of executions.
pub(crate) async fn list(
    app: &App,
    caller: &Caller,
    params: &ListParams,
    uri: &Uri,
) -> Answer<Response> {
    use axum::response::IntoResponse;
    let page = execution_page(params.limit, params.cursor.as_deref())?;
    let limit = page.limit;
    let (rows, total) = find(app, caller, params.filter()?, page).await?;
    let next = rows
        .last()
        .filter(|_| rows.len() == limit)
        .map(|row| cursor(row.execution.created_at, &row.execution.id.to_string()));
    let now = app.engine.now();
    let items: Vec<_> = rows.iter().map(|row| ExecutionOut::new(row, now)).collect();
    let next = next.map(|cursor| next_address(uri, &cursor));
    Ok(Listed::new(items, next, Some(total)).into_response())
}

/// The executions that match; a caller who is limited to agents is shown theirs.
async fn find(
    app: &App,
    caller: &Caller,
    filter: ExecutionFilter,
    page: Page,
) -> Answer<(Vec<ExecutionRow>, Total)> {
    let store = app.engine.store();
    let Some(agents) = caller.agents() else {
        return Ok(store.executions(filter, page).await?);
    };
    let wanted = |agent: &&AgentName| filter.agent.as_ref().is_none_or(|one| one == *agent);
    let (mut rows, mut total) = (Vec::new(), Total::exactly(0));
    for agent in agents.iter().filter(wanted) {
        let filter = ExecutionFilter {
            agent: Some(agent.clone()),
            ..filter.clone()
        };
        let (more, count) = store.executions(filter, page.clone()).await?;
        rows.extend(more);
        total = total.and(count);
    }
    rows.sort_by_key(|row| Reverse((row.execution.created_at, row.execution.id)));
    rows.truncate(page.limit);
    Ok((rows, total))
}

/// The whole journal of an execution.
pub(crate) async fn journal(store: &dyn Store, id: ExecutionId) -> Answer<Vec<Step>> {
    let mut steps = Vec::new();
    loop {
        let after = steps.last().map(|step: &Step| step.seq);
        let more = store.steps(id, after, PAGE).await?;
        let is_last = more.len() < PAGE;
        steps.extend(more);
        if is_last {
            return Ok(steps);
        }
    }
}

/// The word of a provider.
pub(crate) const fn provider(provider: Provider) -> &'static str {
    provider.as_str()
}
