//! Tasks as they stand, their results, and their end.

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use domain::Status;
use http::{StatusCode, Uri};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use store::CancelAnswer;
use utoipa::{IntoParams, ToSchema};

use super::callbacks::CallbackOut;
use super::question::{QuestionOut, open_questions};
use super::submit::{WaitParams, outcome_within};
use crate::execution::{self, ExecutionOut, ListParams, ResultOut};
use crate::http::caller::Caller;
use crate::http::error::ErrorBody;
use crate::http::params::{Params, execution_id, no_execution};
use crate::http::{Answer, ApiError, App, Code};

/// An execution in full.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct TaskOut {
    #[serde(flatten)]
    execution: ExecutionOut,
    /// What was asked.
    #[schema(value_type = Value)]
    task_data: Value,
    /// The caller's own notes.
    #[schema(value_type = Value)]
    metadata: Value,
    /// Where the result is sent.
    callback_url: Option<String>,
    /// Whether it was; null as long as there is nothing to send.
    callback: Option<CallbackOut>,
    /// What it asks people now.
    open_questions: Vec<QuestionOut>,
}

/// Lists executions, newest first.
#[utoipa::path(get, path = "/tasks", tag = "tasks", params(ListParams), responses(
    (status = 200, description = "Executions, newest first; `X-Total-Count` tells how many there are.", body = Vec<ExecutionOut>),
    (status = 400, body = ErrorBody),
))]
pub(super) async fn list(
    State(app): State<App>,
    caller: Caller,
    Params(params): Params<ListParams>,
    uri: Uri,
) -> Answer<Response> {
    execution::list(&app, &caller, &params, &uri).await
}

/// Shows an execution: its state in words, its worker, what it consumed, and what it asks.
#[utoipa::path(get, path = "/tasks/{id}", tag = "tasks", params(("id" = String, Path)), responses(
    (status = 200, body = TaskOut),
    (status = 404, body = ErrorBody),
))]
pub(super) async fn show(State(app): State<App>, Path(id): Path<String>) -> Answer<Json<TaskOut>> {
    let id = execution_id(&id)?;
    let store = app.engine.store();
    let row = store.execution(id).await?.ok_or_else(|| no_execution(id))?;
    let now = app.engine.now();
    let open_questions = match row.status {
        Status::WaitingForInput | Status::Running => open_questions(&**store, id, now).await?,
        _ => Vec::new(),
    };
    let callback = match row.execution.callback_url {
        Some(_) => store.delivery(id.into()).await?.and_then(CallbackOut::new),
        None => None,
    };
    Ok(Json(TaskOut {
        execution: ExecutionOut::new(&row, now),
        task_data: row.execution.input,
        metadata: row.execution.metadata,
        callback_url: row.execution.callback_url,
        callback,
        open_questions,
    }))
}

/// Shows how an execution ended.
#[utoipa::path(get, path = "/tasks/{id}/result", tag = "tasks", params(("id" = String, Path), WaitParams), responses(
    (status = 200, description = "It has ended.", body = ResultOut),
    (status = 202, description = "It has not ended yet.", body = ResultOut),
    (status = 404, body = ErrorBody),
))]
pub(super) async fn result(
    State(app): State<App>,
    Path(id): Path<String>,
    Params(wait): Params<WaitParams>,
) -> Answer<Response> {
    let id = execution_id(&id)?;
    let row = app.engine.store().execution(id).await?;
    let row = row.ok_or_else(|| no_execution(id))?;
    if let Some(wait) = wait.duration()?
        && !row.status.is_terminal()
        && let Some(response) = outcome_within(&app, id, wait).await?
    {
        return Ok(response);
    }
    let status = if row.status.is_terminal() {
        StatusCode::OK
    } else {
        StatusCode::ACCEPTED
    };
    Ok((status, Json(ResultOut::new(&row, app.engine.now()))).into_response())
}

/// Why an execution is ended.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct CancelParams {
    /// Kept with the execution.
    reason: Option<String>,
}

/// Ends an execution. When this answers, no new action of it is started.
#[utoipa::path(delete, path = "/tasks/{id}", tag = "tasks", params(("id" = String, Path), CancelParams), responses(
    (status = 200, description = "It is over.", body = ResultOut),
    (status = 202, description = "It ends as soon as what is under way is settled.", body = ResultOut),
    (status = 404, body = ErrorBody),
    (status = 409, description = "It had ended before.", body = ErrorBody),
))]
pub(super) async fn cancel(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    Params(params): Params<CancelParams>,
) -> Answer<Response> {
    let id = execution_id(&id)?;
    let reason: String = params
        .reason
        .unwrap_or_default()
        .chars()
        .take(1000)
        .collect();
    match app.engine.cancel(id, caller.name(), &reason).await? {
        CancelAnswer::NotFound => return Err(no_execution(id)),
        CancelAnswer::AlreadyOver(status) => {
            let message = format!("execution {id} is over: it is {status}; nothing was changed");
            return Err(ApiError::new(Code::StateConflict, message).with("status", status.as_str()));
        }
        CancelAnswer::Accepted => {}
    }
    let row = app.engine.store().execution(id).await?;
    let row = row.ok_or_else(|| no_execution(id))?;
    let status = if row.status.is_terminal() {
        StatusCode::OK
    } else {
        StatusCode::ACCEPTED
    };
    Ok((status, Json(ResultOut::new(&row, app.engine.now()))).into_response())
}
