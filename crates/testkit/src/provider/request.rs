//! A request as the test sees it: the same shape whichever face it came in by.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use super::face::Face;
use crate::barrier::Ticket;

/// One request to the stand-in, brought into one shape for all faces.
#[derive(Clone, Debug, Serialize)]
pub struct Request {
    /// Counts the requests of the stand-in, from 1.
    pub number: usize,
    /// The API that was spoken.
    pub face: Face,
    /// The path, still escaped.
    pub path: String,
    /// The model that was asked for.
    pub model: String,
    /// Whether a streamed answer was asked for.
    pub stream: bool,
    /// The conversation so far, the system prompt first if there is one.
    pub messages: Vec<Message>,
    /// The tools that were offered.
    pub tools: Vec<Tool>,
    /// Names the conversation: the text of its first user message.
    pub conversation: String,
    /// How often the model has answered since the last user message. The first call of a task has 0.
    pub turn: usize,
    /// How often this very request has been made, this time included. A retry has 2.
    pub attempt: usize,
    /// The HTTP headers, names in lower case, credentials included.
    pub headers: BTreeMap<String, String>,
    /// The body as it came, or null when it was no JSON.
    pub raw: Value,
}

/// One message of the conversation.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// Its text parts, joined.
    pub text: String,
    /// The tool calls that the model made.
    pub tool_calls: Vec<Call>,
    /// The answers of tools.
    pub tool_results: Vec<CallResult>,
}

impl Message {
    /// Makes a message that has only text.
    #[must_use]
    pub fn text(role: Role, text: impl Into<String>) -> Self {
        Self {
            role,
            text: text.into(),
            tool_calls: Vec::new(),
            tool_results: Vec::new(),
        }
    }
}

/// Who speaks. Tool results have a role of their own, also where the wire calls it `user`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The operator (`system` or `developer`).
    System,
    /// The person.
    User,
    /// The model.
    Assistant,
    /// A tool.
    Tool,
}

/// A tool call that the model made earlier.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Call {
    /// The id that pairs it with its result. Empty where the wire has none.
    pub id: String,
    /// The tool.
    pub name: String,
    /// The arguments; a string when they were no JSON.
    pub arguments: Value,
}

/// What a tool answered.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CallResult {
    /// The id of the call that it answers. Empty where the wire has none.
    pub id: String,
    /// Its text.
    pub text: String,
    /// Whether the client marked it as an error.
    pub is_error: bool,
}

/// A tool that was offered to the model.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Tool {
    /// Its name.
    pub name: String,
    /// What the model is told about it.
    pub description: String,
    /// The JSON Schema of its arguments.
    pub schema: Value,
}

impl Request {
    /// Returns the text of the last user message.
    #[must_use]
    pub fn last_user(&self) -> &str {
        self.messages
            .iter()
            .rfind(|m| m.role == Role::User)
            .map_or("", |m| &m.text)
    }

    /// Returns the text of the last tool result.
    #[must_use]
    pub fn last_tool_result(&self) -> &str {
        let results = self
            .messages
            .iter()
            .flat_map(|message| &message.tool_results);
        results.last().map_or("", |result| &result.text)
    }

    /// Describes this request to a filter. Attributes: `face`, `model`, `stream`, `conversation`, `turn`,
    /// `attempt`, `number`, and `point` where a barrier asks. The text is the raw body.
    #[must_use]
    pub fn ticket(&self) -> Ticket {
        Ticket::new(self.raw.to_string())
            .with("face", self.face)
            .with("model", &self.model)
            .with("stream", self.stream)
            .with("conversation", &self.conversation)
            .with("turn", self.turn)
            .with("attempt", self.attempt)
            .with("number", self.number)
    }
}

/// Returns the text of the first user message.
pub(super) fn conversation(messages: &[Message]) -> String {
    let first = messages.iter().find(|message| message.role == Role::User);
    first
        .map(|message| message.text.clone())
        .unwrap_or_default()
}

/// Counts the model's answers since the last user message.
pub(super) fn turn(messages: &[Message]) -> usize {
    let since = messages
        .iter()
        .rev()
        .take_while(|message| message.role != Role::User);
    since
        .filter(|message| message.role == Role::Assistant)
        .count()
}

/// Returns a string member, or the empty string.
pub(super) fn string(value: &Value, member: &str) -> String {
    value[member].as_str().unwrap_or_default().to_owned()
}

/// Returns the items of an array member, or none.
pub(super) fn items<'a>(value: &'a Value, member: &str) -> &'a [Value] {
    value[member].as_array().map_or(&[], Vec::as_slice)
}

/// Joins the text of content that is a string or an array of parts with a `text` member.
pub(super) fn text_of(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts
            .iter()
            .filter_map(|part| part["text"].as_str())
            .collect::<Vec<_>>()
            .join("\n"),
        _ => String::new(),
    }
}
