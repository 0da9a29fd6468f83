//! Taking tasks in.

use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use domain::budget::BudgetLimits;
use domain::{ConversationId, ExecutionId, Money, Priority, Status, Time, Tokens};
use engine::{Accepted, NewTask};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use store::IdempotencyKey;
use utoipa::{IntoParams, ToSchema};

use super::callbacks;
use crate::execution::ResultOut;
use crate::http::body::{JsonBody, Payload};
use crate::http::caller::Caller;
use crate::http::edge::LONGEST_WAIT;
use crate::http::error::ErrorBody;
use crate::http::idempotency::idempotency_key;
use crate::http::params::{Params, duration, no_execution};
use crate::http::trace::Trace;
use crate::http::{Answer, ApiError, App, Code};

/// A task for an agent.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TaskIn {
    /// For whom. Left out when the address names the agent.
    #[schema(example = "incident-writer")]
    #[serde(default)]
    agent_name: Option<String>,
    /// What is to be done: any JSON. An object with a single text (`prompt`, `text`, `message`, `task`, `question` or
    /// `input`) is that text to the model.
    #[schema(value_type = Value, example = json!({"prompt": "Summarise the log."}))]
    task_data: Value,
    /// Who goes first when many wait: low, normal or high.
    #[serde(default)]
    #[schema(value_type = String, pattern = "^(low|normal|high)$", example = "normal")]
    priority: Priority,
    /// How long it may take; never longer than the agent's own limit.
    #[serde(default)]
    #[schema(minimum = 1, example = 300)]
    timeout_seconds: Option<u64>,
    /// Where to send the result when it ends, as a request of Standard Webhooks.
    #[serde(default)]
    callback_url: Option<String>,
    /// The conversation that it belongs to.
    #[serde(default)]
    conversation_id: Option<String>,
    /// Limits besides the agent's own; the tighter one holds.
    #[serde(default)]
    budget: Option<BudgetIn>,
    /// Your own notes, kept and given back.
    #[serde(default)]
    #[schema(value_type = Value)]
    metadata: Value,
}

impl Payload for TaskIn {
    const INVALID: Code = Code::InvalidTaskData;
}

/// Limits of an execution.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct BudgetIn {
    /// Prompt and answer tokens of all model calls together.
    #[serde(default)]
    max_tokens: Option<u64>,
    /// Dollars.
    #[serde(default)]
    max_cost_usd: Option<f64>,
    /// Tool calls.
    #[serde(default)]
    max_tool_calls: Option<u32>,
}

impl BudgetIn {
    /// The limits, if they are some.
    pub(super) fn read(&self) -> Answer<BudgetLimits> {
        if self
            .max_cost_usd
            .is_some_and(|usd| !usd.is_finite() || usd < 0.0)
        {
            return Err(invalid(
                "budget.max_cost_usd",
                "it is a number of dollars, 0 or more",
            ));
        }
        Ok(BudgetLimits {
            max_tokens: self.max_tokens.map(Tokens),
            max_cost_usd: self.max_cost_usd.map(Money::from_usd),
            max_tool_calls: self.max_tool_calls,
        })
    }
}

/// An accepted task.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AcceptedOut {
    /// Its id.
    #[schema(value_type = String, format = Uuid)]
    execution_id: ExecutionId,
    /// Who does it.
    agent_name: String,
    /// `queued`: that is how an accepted task begins.
    #[schema(value_type = String, example = "queued")]
    status: Status,
    /// The trace of the request.
    trace_id: String,
    /// When it was accepted.
    #[schema(value_type = String, format = DateTime)]
    created_at: Time,
    /// Where to look.
    links: Links,
}

/// Where to look for an execution.
#[derive(Debug, Serialize, ToSchema)]
struct Links {
    /// How it stands.
    #[serde(rename = "self")]
    this: String,
    /// How it ended.
    result: String,
    /// What happens, as it happens.
    events: String,
}

/// How long to wait.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct WaitParams {
    /// Waits so long for the end, such as 30s (at most 300s), and answers the result if it comes in time.
    #[param(example = "30s")]
    pub(super) wait: Option<String>,
}

impl WaitParams {
    pub(super) fn duration(&self) -> Answer<Option<Duration>> {
        let wait = self.wait.as_deref();
        wait.map(|text| duration("wait", text, LONGEST_WAIT))
            .transpose()
    }
}

/// Gives an agent a task. When this answers, the task is durable and will reach exactly one end.
#[utoipa::path(post, path = "/tasks", tag = "tasks",
    params(WaitParams, ("Idempotency-Key" = Option<String>, Header, description = "Makes repeating the request harmless.")),
    request_body = TaskIn,
    responses(
        (status = 200, description = "It ended while you waited.", body = ResultOut),
        (status = 202, description = "It is accepted.", body = AcceptedOut),
        (status = 400, body = ErrorBody), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody),
    ))]
pub(super) async fn submit(
    State(app): State<App>,
    caller: Caller,
    trace: Trace,
    Params(wait): Params<WaitParams>,
    headers: HeaderMap,
    body: JsonBody<TaskIn>,
) -> Answer<Response> {
    let Some(agent) = body.value.agent_name.clone() else {
        let hint = "GET /agents lists the agents";
        let message = format!("agent_name: the field is missing; {hint}");
        return Err(ApiError::new(Code::InvalidTaskData, message).with_field(
            "agent_name",
            "the field is missing",
            hint,
        ));
    };
    caller.check(&agent)?;
    caller.note("agent", agent.as_str());
    accept(app, agent, body, trace, wait, headers).await
}

/// Gives the named agent a task; the same as POST /tasks.
#[utoipa::path(post, path = "/agents/{name}/invoke", tag = "agents",
    params(("name" = String, Path), WaitParams,
        ("Idempotency-Key" = Option<String>, Header, description = "Makes repeating the request harmless.")),
    request_body = TaskIn,
    responses(
        (status = 200, description = "It ended while you waited.", body = ResultOut),
        (status = 202, description = "It is accepted.", body = AcceptedOut),
        (status = 400, body = ErrorBody), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody),
    ))]
pub(super) async fn invoke(
    State(app): State<App>,
    Path(name): Path<String>,
    trace: Trace,
    Params(wait): Params<WaitParams>,
    headers: HeaderMap,
    body: JsonBody<TaskIn>,
) -> Answer<Response> {
    if let Some(other) = body
        .value
        .agent_name
        .as_ref()
        .filter(|other| **other != name)
    {
        let message =
            format!("agent_name: {other:?} is not the agent of the address; leave it out");
        return Err(ApiError::new(Code::InvalidTaskData, message));
    }
    accept(app, name, body, trace, wait, headers).await
}

async fn accept(
    app: App,
    agent: String,
    body: JsonBody<TaskIn>,
    trace: Trace,
    wait: WaitParams,
    headers: HeaderMap,
) -> Answer<Response> {
    let wait = wait.duration()?;
    let key = idempotency_key(&headers)?;
    let mut task = task(&app, agent, body.value, trace)?;
    task.idempotency = key.map(|key| IdempotencyKey {
        key,
        body_hash: body.hash,
    });
    let accepted = app.engine.submit(task).await?;
    if let Some(wait) = wait
        && let Some(response) = outcome_within(&app, accepted.id, wait).await?
    {
        return Ok(response);
    }
    let first = first_answer(&app, &accepted).await?;
    Ok(accepted_response(&accepted, Json(first)))
}

/// 202, with where the execution is.
pub(super) fn accepted_response(accepted: &Accepted, body: impl IntoResponse) -> Response {
    let mut response = (StatusCode::ACCEPTED, body).into_response();
    let headers = response.headers_mut();
    if let Ok(location) = HeaderValue::try_from(format!("/tasks/{}", accepted.id)) {
        headers.insert(header::LOCATION, location);
    }
    if accepted.was_known {
        let name = HeaderName::from_static("idempotency-replayed");
        headers.insert(name, HeaderValue::from_static("true"));
    }
    response
}

fn task(app: &App, agent: String, given: TaskIn, trace: Trace) -> Answer<NewTask> {
    let budget = given.budget.unwrap_or_default().read()?;
    let timeout = timeout(given.timeout_seconds)?;
    let conversation = given
        .conversation_id
        .map(ConversationId::try_from)
        .transpose()
        .map_err(|error| invalid("conversation_id", &error.to_string()))?;
    if let Some(url) = &given.callback_url {
        callbacks::check(app, url).map_err(|why| invalid("callback_url", &why))?;
    }
    Ok(NewTask {
        priority: given.priority,
        conversation,
        timeout,
        budget,
        callback_url: given.callback_url,
        metadata: given.metadata,
        upstream: Some(trace.upstream()),
        ..NewTask::new(agent, given.task_data, trace.id)
    })
}

/// How long a task may take, if its caller says so.
pub(super) fn timeout(seconds: Option<u64>) -> Answer<Option<Duration>> {
    match seconds {
        Some(0) => Err(invalid(
            "timeout_seconds",
            "0 leaves no time; it is at least 1",
        )),
        seconds => Ok(seconds.map(Duration::from_secs)),
    }
}

fn invalid(field: &str, why: &str) -> ApiError {
    ApiError::new(Code::InvalidTaskData, format!("{field}: {why}")).with_field(field, why, "")
}

/// What the first request was answered, also when this one repeats it.
pub(super) async fn first_answer(app: &App, accepted: &Accepted) -> Answer<AcceptedOut> {
    let id = accepted.id;
    let (trace_id, created_at) = if accepted.was_known {
        let row = app.engine.store().execution(id).await?;
        let execution = row.ok_or_else(|| no_execution(id))?.execution;
        (execution.trace_id, execution.created_at)
    } else {
        (accepted.trace_id.clone(), app.engine.now())
    };
    Ok(AcceptedOut {
        execution_id: id,
        agent_name: accepted.agent.to_string(),
        status: Status::Queued,
        trace_id: trace_id.to_string(),
        created_at,
        links: Links {
            this: format!("/tasks/{id}"),
            result: format!("/tasks/{id}/result"),
            events: format!("/tasks/{id}/events"),
        },
    })
}

/// The result, if the execution ends within `wait`.
pub(super) async fn outcome_within(
    app: &App,
    id: ExecutionId,
    wait: Duration,
) -> Answer<Option<Response>> {
    let mut watch = app.engine.watch(id, None);
    let end = async {
        while watch.next().await?.is_some() {}
        Ok::<_, store::Error>(())
    };
    tokio::select! {
        ended = tokio::time::timeout(wait, end) => {
            if let Ok(ended) = ended {
                ended?;
            }
        }
        () = app.shutdown.cancelled() => {}
    }
    let row = app.engine.store().execution(id).await?;
    let row = row.ok_or_else(|| no_execution(id))?;
    let result = ResultOut::new(&row, app.engine.now());
    Ok(row
        .status
        .is_terminal()
        .then(|| Json(result).into_response()))
}
