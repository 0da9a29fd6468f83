//! What agents and conversations hold: a caller's own state, and the messages.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use domain::{AgentName, ConversationId, Definition, Message, Reply, StopReason, Time, ToolCall};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use store::{AgentState, Change, StateChange, StateChanged};
use utoipa::{IntoParams, ToSchema};

use crate::http::body::{JsonBody, Payload};
use crate::http::error::ErrorBody;
use crate::http::params::{Params, agent_name};
use crate::http::{Answer, ApiError, App, Code};

/// How many messages are shown or taken at once.
const MOST: usize = 1000;

/// Which state.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Which {
    /// The conversation; the agent's own state when it is left out.
    conversation_id: Option<String>,
    /// How many of the latest messages are shown (100; at most 1000).
    limit: Option<usize>,
}

/// A message, as most models' APIs write it.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct MessageOut {
    /// user, assistant or tool.
    #[schema(example = "user")]
    role: String,
    /// The words.
    #[serde(default)]
    content: String,
    /// What an assistant called.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<CallOut>,
    /// Which call a tool answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tool_call_id: Option<String>,
    /// The tool's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// Whether the tool's answer is an error.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    is_error: bool,
}

/// A call of a tool.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CallOut {
    id: String,
    name: String,
    /// As JSON text.
    arguments: String,
}

/// A state to write.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct StateIn {
    /// Yours: any JSON.
    #[serde(default)]
    #[schema(value_type = Value)]
    state_data: Option<Value>,
    /// All messages of the conversation.
    #[serde(default)]
    conversation_history: Option<Vec<MessageOut>>,
    /// Your own notes.
    #[serde(default)]
    #[schema(value_type = Value)]
    metadata: Option<Value>,
    /// Write only if this is the version; 0 when there is to be none yet. The same as `If-Match`.
    #[serde(default)]
    expected_version: Option<u64>,
}

impl Payload for StateIn {}

/// Messages to add.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct MessagesIn {
    /// The conversation; the agent's own state when it is left out.
    #[serde(default)]
    conversation_id: Option<String>,
    /// What was said, oldest first.
    messages: Vec<MessageOut>,
    /// Only so many of the latest messages stay.
    #[serde(default)]
    max_history: Option<u32>,
    /// Add only if this is the version. The same as `If-Match`.
    #[serde(default)]
    expected_version: Option<u64>,
}

impl Payload for MessagesIn {}

/// A state.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct StateOut {
    /// Whose.
    agent_name: String,
    /// The conversation; none for the agent's own state.
    conversation_id: Option<String>,
    /// Yours.
    #[schema(value_type = Value)]
    state_data: Value,
    /// The latest messages, oldest first.
    conversation_history: Vec<MessageOut>,
    /// Your own notes.
    #[schema(value_type = Value)]
    metadata: Value,
    /// Counts the changes; for `If-Match` or `expected_version`.
    version: u64,
    /// active while an execution has the turn; idle after `idle_timeout_seconds` of silence; else waiting.
    #[schema(example = "waiting")]
    status: &'static str,
    /// The execution that has the turn.
    #[schema(value_type = Option<String>, format = Uuid)]
    execution_id: Option<String>,
    /// When it was first written.
    #[schema(value_type = String, format = DateTime)]
    created_at: Time,
    /// When it was last written.
    #[schema(value_type = String, format = DateTime)]
    updated_at: Time,
}

/// A write that was made.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct WrittenOut {
    /// Whose.
    agent_name: String,
    /// The conversation; none for the agent's own state.
    conversation_id: Option<String>,
    /// The version that it made.
    version: u64,
}

/// Shows what a conversation, or an agent, holds.
#[utoipa::path(get, path = "/agents/{agent}/state", tag = "states", params(("agent" = String, Path), Which), responses(
    (status = 200, description = "`ETag` is the version.", body = StateOut),
    (status = 400, body = ErrorBody), (status = 404, body = ErrorBody),
))]
pub(super) async fn show(
    State(app): State<App>,
    Path(agent): Path<String>,
    Params(which): Params<Which>,
) -> Answer<Response> {
    let (agent, conversation) = named(&agent, which.conversation_id)?;
    let limit = which.limit.unwrap_or(100);
    if limit > MOST {
        return Err(invalid("limit", &format!("it is at most {MOST}")));
    }
    let store = app.engine.store();
    let found = store
        .agent_state(&agent, conversation.as_ref(), limit)
        .await?;
    let state = found.ok_or_else(|| no_state(&agent, conversation.as_ref()))?;
    let etag = etag(state.version);
    let patience = patience(&app, &agent).await?;
    let silence = (app.engine.now() - state.updated_at).to_std();
    let is_idle = silence.is_ok_and(|silence| silence >= patience);
    let mut response = Json(out(agent, conversation, state, is_idle)).into_response();
    response
        .headers_mut()
        .extend(etag.map(|tag| (header::ETAG, tag)));
    Ok(response)
}

/// Replaces what a conversation, or an agent, holds: what is left out is emptied.
#[utoipa::path(put, path = "/agents/{agent}/state", tag = "states", request_body = StateIn,
    params(("agent" = String, Path), Which,
        ("If-Match" = Option<String>, Header, description = "The version that is to be changed.")),
    responses(
        (status = 200, body = WrittenOut), (status = 201, description = "It is the first version.", body = WrittenOut),
        (status = 400, body = ErrorBody),
        (status = 409, description = "It is another version, or an execution has the turn.", body = ErrorBody),
    ))]
pub(super) async fn replace(
    State(app): State<App>,
    Path(agent): Path<String>,
    Params(which): Params<Which>,
    headers: HeaderMap,
    body: JsonBody<StateIn>,
) -> Answer<Response> {
    let mut given = body.value;
    let messages = given.conversation_history.take().unwrap_or_default();
    let change = Change::Write {
        state_data: Some(given.state_data.unwrap_or_default()),
        metadata: Some(given.metadata.unwrap_or_default()),
        messages: Some(messages_in(messages)?),
    };
    let expected = expected(&headers, given.expected_version)?;
    write(&app, &agent, which.conversation_id, expected, change).await
}

/// Changes what a conversation, or an agent, holds: what is left out stays.
#[utoipa::path(post, path = "/agents/{agent}/state", tag = "states", request_body = StateIn,
    params(("agent" = String, Path), Which,
        ("If-Match" = Option<String>, Header, description = "The version that is to be changed.")),
    responses(
        (status = 200, body = WrittenOut), (status = 201, description = "It is the first version.", body = WrittenOut),
        (status = 400, body = ErrorBody),
        (status = 409, description = "It is another version, or an execution has the turn.", body = ErrorBody),
    ))]
pub(super) async fn change(
    State(app): State<App>,
    Path(agent): Path<String>,
    Params(which): Params<Which>,
    headers: HeaderMap,
    body: JsonBody<StateIn>,
) -> Answer<Response> {
    let given = body.value;
    let change = Change::Write {
        state_data: given.state_data,
        metadata: given.metadata,
        messages: given.conversation_history.map(messages_in).transpose()?,
    };
    let expected = expected(&headers, given.expected_version)?;
    write(&app, &agent, which.conversation_id, expected, change).await
}

/// Forgets what a conversation, or an agent, holds.
#[utoipa::path(delete, path = "/agents/{agent}/state", tag = "states",
    params(("agent" = String, Path), Which,
        ("If-Match" = Option<String>, Header, description = "The version that is to be forgotten.")),
    responses(
        (status = 204), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody),
        (status = 409, description = "It is another version, or an execution has the turn.", body = ErrorBody),
    ))]
pub(super) async fn forget(
    State(app): State<App>,
    Path(agent): Path<String>,
    Params(which): Params<Which>,
    headers: HeaderMap,
) -> Answer<StatusCode> {
    let (name, conversation) = named(&agent, which.conversation_id.clone())?;
    let store = app.engine.store();
    let found = store.agent_state(&name, conversation.as_ref(), 0).await?;
    found.ok_or_else(|| no_state(&name, conversation.as_ref()))?;
    let expected = expected(&headers, None)?;
    write(
        &app,
        &agent,
        which.conversation_id,
        expected,
        Change::Remove,
    )
    .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Adds messages to a conversation, without asking the agent.
#[utoipa::path(post, path = "/agents/{agent}/conversation", tag = "states", request_body = MessagesIn,
    params(("agent" = String, Path),
        ("If-Match" = Option<String>, Header, description = "The version that is to be changed.")),
    responses(
        (status = 200, body = WrittenOut), (status = 201, description = "It is the first version.", body = WrittenOut),
        (status = 400, body = ErrorBody),
        (status = 409, description = "It is another version, or an execution has the turn.", body = ErrorBody),
    ))]
pub(super) async fn append(
    State(app): State<App>,
    Path(agent): Path<String>,
    headers: HeaderMap,
    body: JsonBody<MessagesIn>,
) -> Answer<Response> {
    let given = body.value;
    let change = Change::Append {
        messages: messages_in(given.messages)?,
        keep: given.max_history,
    };
    let expected = expected(&headers, given.expected_version)?;
    write(&app, &agent, given.conversation_id, expected, change).await
}

async fn write(
    app: &App,
    agent: &str,
    conversation: Option<String>,
    expected: Option<u64>,
    change: Change,
) -> Answer<Response> {
    let (agent, conversation) = named(agent, conversation)?;
    if definition(app, &agent).await?.is_none() {
        let message = format!("there is no agent {agent}; GET /agents lists them");
        return Err(ApiError::new(Code::AgentNotFound, message));
    }
    let change = StateChange {
        agent: agent.clone(),
        conversation: conversation.clone(),
        expected,
        now: app.engine.now(),
        change,
    };
    match app.engine.store().change_state(change).await? {
        StateChanged::Done { version } => {
            let out = WrittenOut {
                agent_name: agent.to_string(),
                conversation_id: conversation.map(String::from),
                version,
            };
            let status = match version {
                1 => StatusCode::CREATED,
                _ => StatusCode::OK,
            };
            let mut response = (status, Json(out)).into_response();
            let etag = etag(version).map(|tag| (header::ETAG, tag));
            response.headers_mut().extend(etag);
            Ok(response)
        }
        StateChanged::Conflict { version } => {
            let message = format!(
                "nothing was changed: this is version {version}; read it again, and send your change with that version"
            );
            Err(ApiError::new(Code::StateConflict, message).with("version", version))
        }
        StateChanged::Busy(turn) => {
            let message = format!(
                "nothing was changed: execution {turn} has the turn in this conversation, and its messages are that one's until it ends; wait for its end, or cancel it"
            );
            Err(ApiError::new(Code::StateConflict, message).with("execution_id", turn.to_string()))
        }
    }
}

fn named(agent: &str, conversation: Option<String>) -> Answer<(AgentName, Option<ConversationId>)> {
    let agent = agent_name(agent, Code::AgentNotFound)?;
    let conversation = conversation
        .map(ConversationId::try_from)
        .transpose()
        .map_err(|why| invalid("conversation_id", &why.to_string()))?;
    Ok((agent, conversation))
}

/// The version that the caller means: `If-Match`, or a field of the body.
fn expected(headers: &HeaderMap, field: Option<u64>) -> Answer<Option<u64>> {
    let Some(value) = headers.get(header::IF_MATCH) else {
        return Ok(field);
    };
    let text = value.to_str().unwrap_or_default().trim();
    if text == "*" {
        return Ok(field);
    }
    let version = text.trim_matches('"').parse::<u64>().ok();
    match (version, field) {
        (Some(version), field) if field.is_none_or(|field| field == version) => Ok(Some(version)),
        (Some(_), _) => Err(invalid(
            "expected_version",
            "If-Match says another version; send one of them",
        )),
        (None, _) => Err(invalid(
            "If-Match",
            "it is the version as `ETag` gave it, such as \"3\"",
        )),
    }
}

fn etag(version: u64) -> Option<HeaderValue> {
    HeaderValue::try_from(format!("\"{version}\"")).ok()
}

fn no_state(agent: &AgentName, conversation: Option<&ConversationId>) -> ApiError {
    let message = match conversation {
        Some(id) => format!("agent {agent} has no conversation {id}"),
        None => format!("nothing is kept for agent {agent}; PUT it, or name a conversation_id"),
    };
    ApiError::new(Code::NotFound, message)
}

fn invalid(field: &str, why: &str) -> ApiError {
    ApiError::new(Code::InvalidRequest, format!("{field}: {why}")).with_field(field, why, "")
}

/// The agent's definition, wherever it was loaded: a process that serves states alone reads no agents' files.
async fn definition(app: &App, agent: &AgentName) -> Answer<Option<Arc<Definition>>> {
    if let Some(known) = app.engine.agents().get(agent) {
        return Ok(Some(known.definition));
    }
    let store = app.engine.store();
    let versions = store.config_versions(agent).await?;
    let Some(current) = versions.into_iter().find(|version| version.is_current) else {
        return Ok(None);
    };
    let record = store.config(agent, &current.version).await?;
    Ok(record.map(|record| Arc::new(record.definition)))
}

/// After how much silence the agent's conversations are called idle.
async fn patience(app: &App, agent: &AgentName) -> Answer<Duration> {
    let definition = definition(app, agent).await?;
    let config = definition
        .as_ref()
        .and_then(|d| d.continuous_config.as_ref());
    let own = config.and_then(|config| config.idle_timeout_seconds);
    Ok(own.map_or(app.settings.idle_timeout, Duration::from_secs))
}

fn out(
    agent: AgentName,
    conversation: Option<ConversationId>,
    state: AgentState,
    is_idle: bool,
) -> StateOut {
    let status = match state.turn {
        Some(_) => "active",
        None if is_idle => "idle",
        None => "waiting",
    };
    StateOut {
        agent_name: agent.into(),
        conversation_id: conversation.map(String::from),
        state_data: state.state_data,
        conversation_history: state.messages.into_iter().map(message_out).collect(),
        metadata: state.metadata,
        version: state.version,
        status,
        execution_id: state.turn.map(|id| id.to_string()),
        created_at: state.created_at,
        updated_at: state.updated_at,
    }
}

fn message_out(message: Message) -> MessageOut {
    let plain = |role: &str, content: String| MessageOut {
        role: role.to_owned(),
        content,
        tool_calls: Vec::new(),
        tool_call_id: None,
        name: None,
        is_error: false,
    };
    match message {
        Message::User { text } => plain("user", text),
        Message::Assistant(reply) => MessageOut {
            tool_calls: reply
                .tool_calls
                .into_iter()
                .map(|call| CallOut {
                    id: call.id,
                    name: call.name,
                    arguments: call.arguments,
                })
                .collect(),
            ..plain("assistant", reply.text)
        },
        Message::Tool {
            call_id,
            name,
            content,
            is_error,
        } => MessageOut {
            tool_call_id: Some(call_id),
            name: Some(name),
            is_error,
            ..plain("tool", content)
        },
    }
}

fn messages_in(given: Vec<MessageOut>) -> Answer<Vec<Message>> {
    if given.len() > MOST {
        let why = format!(
            "there are {}, at most {MOST} are taken at once",
            given.len()
        );
        return Err(invalid("messages", &why));
    }
    let messages = given.into_iter().enumerate();
    messages
        .map(|(index, message)| {
            message_in(message).map_err(|why| invalid(&format!("messages[{index}]"), why))
        })
        .collect()
}

fn message_in(given: MessageOut) -> Result<Message, &'static str> {
    match given.role.as_str() {
        "user" => Ok(Message::User {
            text: given.content,
        }),
        "assistant" => {
            let stop = if given.tool_calls.is_empty() {
                StopReason::EndTurn
            } else {
                StopReason::ToolUse
            };
            let calls = given.tool_calls.into_iter().map(|call| ToolCall {
                id: call.id,
                name: call.name,
                arguments: call.arguments,
            });
            Ok(Message::Assistant(Reply {
                text: given.content,
                tool_calls: calls.collect(),
                stop,
                provider_data: None,
            }))
        }
        "tool" => Ok(Message::Tool {
            call_id: given
                .tool_call_id
                .ok_or("a tool's message has a tool_call_id")?,
            name: given.name.ok_or("a tool's message has the tool's name")?,
            content: given.content,
            is_error: given.is_error,
        }),
        "system" => Err("the system prompt belongs to the agent's definition; leave it out"),
        _ => Err("role is user, assistant or tool"),
    }
}
