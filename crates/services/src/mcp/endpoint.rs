//! The one address that MCP clients speak to: messages go in, answers come back.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, header};
use http_body_util::Full;
use rmcp::transport::streamable_http_server::session::never::NeverSessionManager;
use rmcp::transport::{StreamableHttpServerConfig, StreamableHttpService};
use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::agents::{Agents, Held};
use super::sessions::Session;
use crate::http::body::{JsonBody, Payload};
use crate::http::caller::Caller;
use crate::http::edge::full;
use crate::http::error::ErrorBody;
use crate::http::trace::Trace;
use crate::http::{Answer, ApiError, App, Code};

const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");
/// What the protocol says in headers. Nothing else of a request goes further than this, its key least of all.
const SPOKEN: [&str; 3] = ["mcp-protocol-version", "mcp-method", "mcp-name"];
/// The longest answer that is read again to be put into our words.
const MAX_REFUSAL: usize = 64 << 10;

/// A message of the protocol: JSON-RPC 2.0.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(value_type = Object, example = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"}))]
#[serde(transparent)]
pub(super) struct McpMessageIn(Map<String, Value>);

impl Payload for McpMessageIn {}

impl McpMessageIn {
    fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).and_then(Value::as_str)
    }

    fn param(&self, name: &str) -> Option<&Value> {
        self.0.get("params")?.get(name)
    }
}

/// Takes a message of the Model Context Protocol. Each agent that the key may use and that takes work is a tool, called
/// with `message` and, to go on in a conversation, `conversation_id`. The answer to a call is a stream of progress that
/// ends with the result; others are JSON. A session is begun by `initialize` and need not be shown again, but to cancel.
#[utoipa::path(post, path = "/mcp", tag = "mcp",
    params(
        ("MCP-Protocol-Version" = Option<String>, Header, description = "The version that was agreed on; 2025-03-26 when absent."),
        ("Mcp-Session-Id" = Option<String>, Header, description = "The session, as the answer to `initialize` named it."),
    ),
    request_body = McpMessageIn,
    responses(
        (status = 200, description = "The answer.", content((Value = "application/json"), (String = "text/event-stream"))),
        (status = 202, description = "It is taken; nothing is answered to such a message."),
        (status = 400, description = "It is no such message, or of another version of the protocol.", body = Value),
        (status = 404, description = "There is no such session, or method.", body = Value),
        (status = 415, body = ErrorBody), (status = 503, body = ErrorBody),
    ))]
pub(super) async fn message(
    State(app): State<App>,
    caller: Caller,
    trace: Trace,
    headers: HeaderMap,
    body: JsonBody<McpMessageIn>,
) -> Answer<Response> {
    let session = session(&app, &caller, &headers)?;
    let message = body.value;
    let method = message.text("method").unwrap_or_default();
    let is_call = method == "tools/call";
    caller.note("method", shown(method));
    if let Some(agent) = message.param("name").filter(|_| is_call) {
        caller.note("agent", shown(agent.as_str().unwrap_or_default()));
    }
    if method == "notifications/cancelled"
        && let (Some(session), Some(request)) = (session, message.param("requestId"))
    {
        app.mcp.cancel(session, &request.to_string());
    }
    let held = match is_call {
        true => Some(Arc::new(hold(&app, session, &message)?)),
        false => None,
    };
    let begins = method == "initialize";
    let agents = Agents::new(app.clone(), caller.clone(), trace, held);
    let answer = serve(&app, agents, !is_call, &headers, &message).await?;
    let mut response = in_our_words(answer).await?;
    if begins && response.status().is_success() {
        let (secret, account) = owner(&app, &caller);
        let name = app.mcp.begin(secret, &account, app.engine.now());
        if let Ok(name) = HeaderValue::try_from(name) {
            response.headers_mut().insert(SESSION, name);
        }
    }
    Ok(response)
}

/// Ends a session of the Model Context Protocol, and cancels what is under way in it here.
#[utoipa::path(delete, path = "/mcp", tag = "mcp",
    params(("Mcp-Session-Id" = String, Header, description = "The session.")),
    responses(
        (status = 204, description = "It is over."),
        (status = 400, body = ErrorBody), (status = 404, body = ErrorBody),
    ))]
pub(super) async fn end(
    State(app): State<App>,
    caller: Caller,
    headers: HeaderMap,
) -> Answer<StatusCode> {
    let Some(session) = session(&app, &caller, &headers)? else {
        let message = "the header Mcp-Session-Id is missing: it names the session that is to end";
        return Err(ApiError::new(Code::InvalidRequest, message));
    };
    app.mcp.end(session, app.engine.now());
    Ok(StatusCode::NO_CONTENT)
}

/// The session that a request names.
fn session(app: &App, caller: &Caller, headers: &HeaderMap) -> Answer<Option<Session>> {
    let Some(name) = headers.get(SESSION) else {
        return Ok(None);
    };
    let (secret, account) = owner(app, caller);
    let name = name.to_str().unwrap_or_default();
    let found = app.mcp.find(secret, &account, name, app.engine.now());
    let unknown = || {
        let message = "there is no such session: it has ended, or was never begun with this key; send initialize without \
                       Mcp-Session-Id to begin another";
        ApiError::new(Code::NotFound, message)
    };
    found.map(Some).ok_or_else(unknown)
}

/// What proves a session, and whose it is.
fn owner(app: &App, caller: &Caller) -> (Option<[u8; 32]>, String) {
    let account = caller.principal().account().unwrap_or_default();
    (app.access.secret_for("mcp sessions"), account)
}

/// What a call holds while it goes on: a place among those who wait, and its name for whoever cancels it.
fn hold(app: &App, session: Option<Session>, message: &McpMessageIn) -> Answer<Held> {
    let place = app.streams.clone().try_acquire_owned();
    let place = place.map_err(|_| full())?;
    let id = message.0.get("id").map(ToString::to_string);
    let name = session.zip(id);
    Ok(Held {
        under_way: name.map(|(session, id)| app.mcp.call(session, id)),
        _place: place,
    })
}

/// Has the SDK read the message and answer it. Hosts and origins were looked at by the edge, which knows the settings.
async fn serve(
    app: &App,
    agents: Agents,
    prefers_json: bool,
    headers: &HeaderMap,
    message: &McpMessageIn,
) -> Answer<Response> {
    let config = StreamableHttpServerConfig::default()
        .disable_allowed_hosts()
        .disable_allowed_origins()
        .with_legacy_session_mode(false)
        .with_json_response(prefers_json)
        .with_sse_keep_alive(Some(app.settings.heartbeat))
        .with_sse_retry(None)
        .with_max_request_body_bytes(app.settings.max_body_bytes)
        .with_cancellation_token(app.shutdown.clone());
    let sessions = Arc::new(NeverSessionManager::default());
    let service = StreamableHttpService::new(move || Ok(agents.clone()), sessions, config);
    let mut request = Request::post("/mcp")
        .header(header::HOST, "localhost")
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::ACCEPT, "application/json, text/event-stream");
    for name in SPOKEN {
        for value in headers.get_all(name) {
            request = request.header(name, value);
        }
    }
    let body = serde_json::to_vec(&message.0).map_err(|_| ApiError::internal())?;
    let request = request.body(Full::new(Bytes::from(body)));
    let request = request.map_err(|_| ApiError::internal())?;
    Ok(service.handle(request).await.map(Body::new).into_response())
}

/// The SDK's plain refusals have our form; those that are messages of the protocol stay what they are.
async fn in_our_words(response: Response) -> Answer<Response> {
    let status = response.status();
    let kind = response.headers().get(header::CONTENT_TYPE);
    let is_message = kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
    if is_message || !(status.is_client_error() || status.is_server_error()) {
        return Ok(response);
    }
    let text = axum::body::to_bytes(response.into_body(), MAX_REFUSAL).await;
    let text = text.unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let text = text.trim_start_matches("Bad Request: ");
    if status.is_server_error() {
        tracing::error!(text, "an MCP message could not be served");
        return Err(ApiError::internal());
    }
    let message = format!("this is no message of the protocol that can be served: {text}");
    Err(ApiError::new(Code::InvalidRequest, message))
}

/// A word that a client sent, short enough to be written down.
fn shown(text: &str) -> String {
    text.chars().take(80).collect()
}
