//! Responses: a task for an agent, answered in one piece, while it is written, or later.
//!
//! Source: <https://platform.openai.com/docs/api-reference/responses>.

mod answer;
mod request;
mod stream;

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use domain::ExecutionId;
use engine::NewTask;
use http::{HeaderMap, HeaderValue};
use store::{ExecutionRow, IdempotencyKey};

use super::OpenAiError;
use super::answer::said;
use super::error::EXECUTION_ID;
use super::models::find;
use super::telling::{row, wait};
use crate::http::body::JsonBody;
use crate::http::caller::Caller;
use crate::http::edge::full;
use crate::http::idempotency::idempotency_key;
use crate::http::trace::Trace;
use crate::http::{Answer, ApiError, App, Code};
use answer::ResponseOut;
use request::{Before, ResponseIn};

/// Gives an agent a task and answers what it says. With `previous_response_id` what was said before comes along. With
/// `stream`, events come as it is written; with `background`, the answer is there at once, and what the agent says is asked
/// for later. The execution goes on when the client hangs up, and is named in the header `X-Execution-Id`.
#[utoipa::path(post, path = "/v1/responses", tag = "openai",
    params(
        ("X-Conversation-Id" = Option<String>, Header, description = "The conversation, kept here: only the last message is taken."),
        ("Idempotency-Key" = Option<String>, Header, description = "Makes repeating the request harmless."),
    ),
    request_body = ResponseIn,
    responses(
        (status = 200, description = "The response; with `stream`, events of it.", content(
            (ResponseOut = "application/json"), (String = "text/event-stream"))),
        (status = 400, body = OpenAiError), (status = 404, body = OpenAiError), (status = 409, body = OpenAiError),
    ))]
pub(super) async fn create(
    State(app): State<App>,
    caller: Caller,
    trace: Trace,
    headers: HeaderMap,
    body: JsonBody<ResponseIn>,
) -> Answer<Response> {
    caller.check(&body.value.model)?;
    let agent = find(&app, &body.value.model)?;
    caller.note("agent", agent.definition.name.to_string());
    let before = match &body.value.previous_response_id {
        Some(id) => Some(Before::of(previous(&app, &caller, id).await?)?),
        None => None,
    };
    let (streams, is_background) = (body.value.streams(), body.value.is_background());
    let asked = body.value.read(&agent.definition, &headers, before)?;
    let key = idempotency_key(&headers)?;
    // Before the task is taken in: who is refused has begun nothing. The edge holds a place for who waits.
    let place = if streams {
        let place = app.streams.clone().try_acquire_owned();
        Some(place.map_err(|_| full())?)
    } else {
        None
    };
    let task = NewTask {
        history: asked.history,
        conversation: asked.conversation,
        metadata: asked.metadata,
        idempotency: key.map(|key| IdempotencyKey {
            key,
            body_hash: body.hash,
        }),
        upstream: Some(trace.upstream()),
        ..NewTask::new(agent.definition.name.to_string(), asked.input, trace.id)
    };
    let id = app.engine.submit(task).await?.id;
    let mut response = if let Some(place) = place {
        let row = row(&app, id).await?;
        let is_quiet = agent.definition.output_schema.is_some();
        stream::response(app, caller, row, is_quiet, place)
    } else {
        if !is_background {
            wait(&app, id).await?;
        }
        let row = row(&app, id).await?;
        if row.outcome.is_some() {
            // Whoever waited for it is told as of a chat completion: by the status of the answer.
            drop(said(&row)?);
        }
        Json(ResponseOut::new(&row)).into_response()
    };
    if let Ok(id) = HeaderValue::try_from(id.to_string()) {
        response.headers_mut().insert(EXECUTION_ID, id);
    }
    Ok(response)
}

/// Shows a response as it stands: `queued`, `in_progress`, `completed`, `incomplete`, `failed` or `cancelled`.
#[utoipa::path(get, path = "/v1/responses/{id}", tag = "openai",
    params(("id" = String, Path, example = "resp_0190c2f4-a1b2-7c3d-8e4f-5a6b7c8d9e0f")),
    responses((status = 200, body = ResponseOut), (status = 404, body = OpenAiError)))]
pub(super) async fn show(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Answer<Json<ResponseOut>> {
    let row = find_response(&app, &caller, &id).await?;
    Ok(Json(ResponseOut::new(&row.ok_or_else(|| absent(&id))?)))
}

/// The response that another one goes on from.
async fn previous(app: &App, caller: &Caller, id: &str) -> Answer<ExecutionRow> {
    let row = find_response(app, caller, id).await?;
    row.ok_or_else(|| {
        let error = absent(id);
        let message = error.message.clone();
        error.with_field("previous_response_id", &message, "")
    })
}

/// The execution that a response's id names; another one's is not there.
async fn find_response(app: &App, caller: &Caller, id: &str) -> Answer<Option<ExecutionRow>> {
    let Some(id) = id.strip_prefix(answer::PREFIX) else {
        return Ok(None);
    };
    let Ok(id) = id.parse::<ExecutionId>() else {
        return Ok(None);
    };
    let row = app.engine.store().execution(id).await?;
    Ok(row.filter(|row| caller.covers(&row.execution.agent)))
}

fn absent(id: &str) -> ApiError {
    let shown: String = id.chars().take(80).collect();
    let message = format!("there is no response {shown:?}; its id begins with resp_");
    ApiError::new(Code::NotFound, message)
}
