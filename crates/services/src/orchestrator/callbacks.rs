//! Callbacks: who was told how an execution ended, who was not, and why.

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use domain::{AgentName, Delivery, DeliveryId, DeliveryState, ExecutionId, Matter, Time};
use http::{StatusCode, Uri};
use serde::{Deserialize, Serialize};
use store::{DeliveryFilter, DeliveryKind};
use url::Url;
use utoipa::{IntoParams, ToSchema};

use crate::execution::invalid;
use crate::http::caller::Caller;
use crate::http::error::ErrorBody;
use crate::http::page::{Listed, cursor, execution_page, next_address};
use crate::http::params::{Params, execution_id, no_execution};
use crate::http::{Answer, ApiError, App, Code};
use crate::outgoing::webhook_id;

/// The longest address, in bytes.
const MAX_URL: usize = 2048;

/// A callback as it stands.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CallbackOut {
    /// The execution whose end is told; it names the callback, too.
    #[schema(value_type = String, format = Uuid)]
    execution_id: ExecutionId,
    /// Who did it.
    agent_name: String,
    /// The `webhook-id` of the request, the same each time.
    #[schema(example = "msg_0192f0c1-7e3a-7c3d-8e4f-5a6b7c8d9e0f")]
    webhook_id: String,
    /// What is told: execution.completed, execution.failed, execution.timeout or execution.cancelled.
    #[schema(example = "execution.completed")]
    event: String,
    /// pending, delivered or failed.
    state: &'static str,
    /// How often it was tried since the end, or since it was sent again.
    attempts: u32,
    /// When the execution ended.
    #[schema(value_type = String, format = DateTime)]
    created_at: Time,
    /// When it is tried next; null when it is not.
    #[schema(value_type = Option<String>, format = DateTime)]
    next_attempt_at: Option<Time>,
    /// When it arrived or was given up.
    #[schema(value_type = Option<String>, format = DateTime)]
    settled_at: Option<Time>,
    /// When the latest try was over.
    #[schema(value_type = Option<String>, format = DateTime)]
    last_attempt_at: Option<Time>,
    /// The HTTP status that was answered then; null when nothing was.
    last_status: Option<u16>,
    /// Why it did not arrive then; null when it did.
    last_error: Option<String>,
}

impl CallbackOut {
    /// The delivery, if it is a callback.
    pub(super) fn new(delivery: Delivery) -> Option<Self> {
        let Matter::Result { execution, agent } = delivery.matter else {
            return None;
        };
        let last = delivery.last.as_ref();
        Some(Self {
            execution_id: execution,
            agent_name: agent.to_string(),
            webhook_id: webhook_id(delivery.id),
            event: delivery.event,
            state: delivery.state.as_str(),
            attempts: delivery.attempts,
            created_at: delivery.created_at,
            next_attempt_at: delivery.next_at,
            settled_at: delivery.settled_at,
            last_attempt_at: last.map(|last| last.at),
            last_status: last.and_then(|last| last.status),
            last_error: last
                .map(|last| last.detail.clone())
                .filter(|detail| !detail.is_empty()),
        })
    }
}

/// Which callbacks; all of them when nothing is said.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListParams {
    /// Of one agent.
    agent_name: Option<String>,
    /// pending, delivered or failed.
    #[param(example = "failed")]
    state: Option<String>,
    /// How many at most: 1 to 1000, 100 when nothing is said.
    limit: Option<usize>,
    /// Where to go on: from the `Link` header of the answer before.
    cursor: Option<String>,
}

/// Lists callbacks of executions that have ended, newest first.
#[utoipa::path(get, path = "/callbacks", tag = "callbacks", params(ListParams), responses(
    (status = 200, body = Vec<CallbackOut>),
    (status = 400, body = ErrorBody),
))]
pub(super) async fn list(
    State(app): State<App>,
    caller: Caller,
    Params(params): Params<ListParams>,
    uri: Uri,
) -> Answer<Response> {
    let page = execution_page(params.limit, params.cursor.as_deref())?;
    let limit = page.limit;
    let state = state(params.state.as_deref())?;
    let wanted: Option<AgentName> = params
        .agent_name
        .map(|name| name.parse())
        .transpose()
        .map_err(|error: domain::id::InvalidId| invalid("agent_name", &error.to_string()))?;
    let agents: Vec<AgentName> = match (wanted, caller.agents()) {
        (Some(agent), _) if !caller.covers(&agent) => return Ok(nothing()),
        (Some(agent), _) => vec![agent],
        (None, Some(own)) if own.is_empty() => return Ok(nothing()),
        (None, Some(own)) => own.iter().cloned().collect(),
        (None, None) => Vec::new(),
    };
    let filter = DeliveryFilter {
        kind: DeliveryKind::Result,
        state,
        agents,
        page,
    };
    let found = app.engine.store().deliveries(filter).await?;
    let last = found.last().filter(|_| found.len() == limit);
    let next = last.map(|last| next_address(&uri, &cursor(last.created_at, &last.id.to_string())));
    let items: Vec<CallbackOut> = found.into_iter().filter_map(CallbackOut::new).collect();
    Ok(Listed::new(items, next, None).into_response())
}

fn nothing() -> Response {
    Listed::<CallbackOut>::new(Vec::new(), None, None).into_response()
}

/// The state that a list is limited to.
pub(super) fn state(given: Option<&str>) -> Answer<Option<DeliveryState>> {
    let state = given.map(|word| word.parse::<DeliveryState>());
    state.transpose().map_err(|why| invalid("state", &why))
}

/// Shows the callback of an execution.
#[utoipa::path(get, path = "/callbacks/{id}", tag = "callbacks", params(("id" = String, Path)), responses(
    (status = 200, body = CallbackOut),
    (status = 404, body = ErrorBody),
))]
pub(super) async fn show(
    State(app): State<App>,
    Path(id): Path<String>,
) -> Answer<Json<CallbackOut>> {
    let id = execution_id(&id)?;
    let delivery = app.engine.store().delivery(DeliveryId::from(id)).await?;
    match delivery.and_then(CallbackOut::new) {
        Some(callback) => Ok(Json(callback)),
        None => Err(no_callback(&app, id).await?),
    }
}

/// Sends a callback again now, however it stands, as often as if it had not been tried. The receiver gets it under the
/// same `webhook-id`.
#[utoipa::path(post, path = "/callbacks/{id}/resend", tag = "callbacks", params(("id" = String, Path)), responses(
    (status = 202, description = "It is sent within seconds.", body = CallbackOut),
    (status = 404, body = ErrorBody),
))]
pub(super) async fn resend(
    State(app): State<App>,
    Path(id): Path<String>,
) -> Answer<(StatusCode, Json<CallbackOut>)> {
    let id = execution_id(&id)?;
    let now = app.engine.now();
    let store = app.engine.store();
    let delivery = store.resend_delivery(DeliveryId::from(id), now).await?;
    match delivery.and_then(CallbackOut::new) {
        Some(callback) => Ok((StatusCode::ACCEPTED, Json(callback))),
        None => Err(no_callback(&app, id).await?),
    }
}

/// Why there is none.
async fn no_callback(app: &App, id: ExecutionId) -> Answer<ApiError> {
    let Some(row) = app.engine.store().execution(id).await? else {
        return Ok(no_execution(id));
    };
    let message = match &row.execution.callback_url {
        None => format!("execution {id} has no callback: its task came without callback_url"),
        Some(_) => format!("execution {id} has not ended; it is {}", row.status),
    };
    Ok(ApiError::new(Code::NotFound, message))
}

/// Whether an address may be called back, as far as can be told before it is.
pub(super) fn check(app: &App, text: &str) -> Result<(), String> {
    if text.len() > MAX_URL {
        return Err(format!("an address has at most {MAX_URL} bytes"));
    }
    let url: Url = text
        .parse()
        .map_err(|error| format!("it is no address: {error}"))?;
    app.egress.check(&url).map_err(|error| error.to_string())?;
    if !app.calls_back {
        return Err(
            "callbacks can't be signed here; the operator sets CALLBACK_SIGNING_SECRET".to_owned(),
        );
    }
    Ok(())
}
