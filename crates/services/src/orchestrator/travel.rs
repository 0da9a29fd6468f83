//! Time travel: executions that begin where another one was.

use axum::Json;
use axum::extract::{Path, State};
use axum::response::Response;
use engine::{Branch, Cut};
use http::HeaderMap;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use store::IdempotencyKey;
use utoipa::ToSchema;

use super::submit::{AcceptedOut, BudgetIn, accepted_response, first_answer, timeout};
use crate::execution::OriginOut;
use crate::http::body::{JsonBody, OptionalBody, Payload};
use crate::http::error::ErrorBody;
use crate::http::idempotency::idempotency_key;
use crate::http::params::execution_id;
use crate::http::trace::Trace;
use crate::http::{Answer, App};

/// How to retry.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RetryIn {
    /// Whether to begin at the beginning, with the agent as it is now; otherwise it goes on after the last step.
    #[serde(default)]
    anew: bool,
    /// Whether it goes on with the agent as it is now, and not with the version that the other one began with.
    #[serde(default)]
    current_config: bool,
    /// How long it may take; never longer than the agent's own limit.
    #[serde(default)]
    #[schema(minimum = 1, example = 300)]
    timeout_seconds: Option<u64>,
    /// Limits besides those of the other one; the tighter one holds.
    #[serde(default)]
    budget: Option<BudgetIn>,
    /// Notes in the place of the other one's.
    #[serde(default)]
    #[schema(value_type = Value)]
    metadata: Option<Value>,
}

impl Payload for RetryIn {}

/// Where to fork, and what is different.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ForkIn {
    /// The last step that both have; 0 shares none. Within the calls of a turn it is moved back to before that turn.
    #[schema(example = 4)]
    from_step: u32,
    /// What is asked instead of the other one's `task_data`.
    #[serde(default)]
    #[schema(value_type = Value)]
    task_data: Option<Value>,
    /// What the agent is told there besides.
    #[serde(default)]
    #[schema(example = "Use the figures of 2025 instead.")]
    message: Option<String>,
    /// Whether it works with the agent as it is now, and not with the version that the other one began with.
    #[serde(default)]
    current_config: bool,
    /// How long it may take; never longer than the agent's own limit.
    #[serde(default)]
    #[schema(minimum = 1, example = 300)]
    timeout_seconds: Option<u64>,
    /// Limits besides those of the other one; the tighter one holds.
    #[serde(default)]
    budget: Option<BudgetIn>,
    /// Notes in the place of the other one's.
    #[serde(default)]
    #[schema(value_type = Value)]
    metadata: Option<Value>,
}

impl Payload for ForkIn {}

/// An execution that begins where another one was.
#[derive(Debug, Serialize, ToSchema)]
struct BranchedOut {
    #[serde(flatten)]
    accepted: AcceptedOut,
    /// Where.
    forked_from: OriginOut,
}

/// Does again what did not end well: a new execution goes on after the last step of one that is over, or begins anew.
///
/// What was done is not done again. A tool call that may have happened is settled as after a crash: by its effect, and an
/// unsafe one by a person. The new one has its own deadline, budget and usage.
#[utoipa::path(post, path = "/tasks/{id}/retry", tag = "tasks", params(("id" = String, Path),
        ("Idempotency-Key" = Option<String>, Header, description = "Makes repeating the request harmless.")),
    request_body(content = Option<RetryIn>, description = "May be left out."),
    responses(
        (status = 202, description = "It is accepted.", body = BranchedOut),
        (status = 400, body = ErrorBody), (status = 404, body = ErrorBody),
        (status = 409, description = "It is not over, or it is completed, or its agent takes no work.", body = ErrorBody),
    ))]
pub(super) async fn retry(
    State(app): State<App>,
    Path(id): Path<String>,
    trace: Trace,
    headers: HeaderMap,
    OptionalBody(body): OptionalBody<RetryIn>,
) -> Answer<Response> {
    let given = body.value;
    let wish = Branch {
        id: execution_id(&id)?,
        cut: if given.anew { Cut::Anew } else { Cut::LastStep },
        input: None,
        message: None,
        is_current: given.current_config,
        timeout: timeout(given.timeout_seconds)?,
        budget: given.budget.unwrap_or_default().read()?,
        metadata: given.metadata,
        upstream: Some(trace.upstream()),
        trace_id: trace.id,
        idempotency: key(&headers, body.hash)?,
    };
    accept(app, wish).await
}

/// Begins another execution at a step of one, with another task or a message: to see what would have been.
///
/// It shares the steps up to there and does the rest itself. The other one, which may be under way, is left as it is.
#[utoipa::path(post, path = "/tasks/{id}/fork", tag = "tasks", params(("id" = String, Path),
        ("Idempotency-Key" = Option<String>, Header, description = "Makes repeating the request harmless.")),
    request_body = ForkIn,
    responses(
        (status = 202, description = "It is accepted.", body = BranchedOut),
        (status = 400, description = "There is no such step, or a field is not valid.", body = ErrorBody),
        (status = 404, body = ErrorBody),
        (status = 409, description = "Its steps can't be shared, or its agent takes no work.", body = ErrorBody),
    ))]
pub(super) async fn fork(
    State(app): State<App>,
    Path(id): Path<String>,
    trace: Trace,
    headers: HeaderMap,
    body: JsonBody<ForkIn>,
) -> Answer<Response> {
    let given = body.value;
    let wish = Branch {
        id: execution_id(&id)?,
        cut: Cut::After(given.from_step),
        input: given.task_data,
        message: given.message,
        is_current: given.current_config,
        timeout: timeout(given.timeout_seconds)?,
        budget: given.budget.unwrap_or_default().read()?,
        metadata: given.metadata,
        upstream: Some(trace.upstream()),
        trace_id: trace.id,
        idempotency: key(&headers, body.hash)?,
    };
    accept(app, wish).await
}

fn key(headers: &HeaderMap, body_hash: String) -> Answer<Option<IdempotencyKey>> {
    let key = idempotency_key(headers)?;
    Ok(key.map(|key| IdempotencyKey { key, body_hash }))
}

async fn accept(app: App, wish: Branch) -> Answer<Response> {
    let (accepted, origin) = app.engine.branch(wish).await?;
    let body = BranchedOut {
        accepted: first_answer(&app, &accepted).await?,
        forked_from: (&origin).into(),
    };
    Ok(accepted_response(&accepted, Json(body)))
}
