//! What a client asks: read leniently where it says how a model should answer, strictly where it says what.

use domain::definition::Definition;
use domain::{ConversationId, ExecutionMode, Message, Reply, StopReason};
use http::HeaderMap;
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::http::body::Payload;
use crate::http::{Answer, ApiError, Code};

/// The header that names the conversation.
const CONVERSATION: &str = "x-conversation-id";

/// A chat completion that is asked for. Fields that are not named here are taken and not looked at: how an agent answers
/// is in its file.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct ChatIn {
    /// The agent's name.
    #[schema(example = "incident-writer")]
    pub(super) model: String,
    /// What was said so far; the last message is the user's, and is the task.
    messages: Vec<MessageIn>,
    /// Whether to answer while it is written.
    #[serde(default)]
    stream: Option<bool>,
    /// What to stream.
    #[serde(default)]
    stream_options: Option<StreamOptions>,
    /// Who asks. For a continuous agent it is the conversation, unless the header `X-Conversation-Id` names one.
    #[serde(default)]
    user: Option<String>,
    /// How many answers; one is made.
    #[serde(default)]
    n: Option<u32>,
    /// Not taken: an agent has its own.
    #[serde(default)]
    #[schema(value_type = Option<Vec<Object>>)]
    tools: Option<Vec<Value>>,
    /// Your own notes, kept with the execution.
    #[serde(default)]
    #[schema(value_type = Value)]
    metadata: Option<Value>,
}

impl Payload for ChatIn {}

/// What to stream.
#[derive(Debug, Default, Deserialize, ToSchema)]
struct StreamOptions {
    /// Whether the last frame says what was consumed.
    #[serde(default)]
    include_usage: Option<bool>,
}

/// A message.
#[derive(Debug, Deserialize, ToSchema)]
struct MessageIn {
    /// system, developer, user or assistant.
    #[schema(example = "user")]
    role: String,
    /// What is said: a text, or parts of type `text`.
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "Summarise the log.")]
    content: Option<Content>,
    #[serde(default)]
    #[schema(ignore)]
    tool_calls: Option<Vec<Value>>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Content {
    Text(String),
    Parts(Vec<Part>),
}

#[derive(Debug, Deserialize)]
struct Part {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    text: Option<String>,
}

/// What is to be done, in the engine's terms.
#[derive(Debug)]
pub(super) struct Asked {
    /// The last message.
    pub(super) input: Value,
    /// What was said before, where the client keeps it.
    pub(super) history: Vec<Message>,
    /// The conversation, where we keep it.
    pub(super) conversation: Option<ConversationId>,
    /// The caller's notes.
    pub(super) metadata: Value,
}

impl ChatIn {
    /// Whether to answer while it is written.
    pub(super) fn streams(&self) -> bool {
        self.stream.unwrap_or_default()
    }

    /// Whether the last frame says what was consumed.
    pub(super) fn wants_usage(&self) -> bool {
        let options = self.stream_options.as_ref();
        options
            .and_then(|options| options.include_usage)
            .unwrap_or_default()
    }

    /// Reads the task for this agent.
    ///
    /// # Errors
    /// It asks for what no agent does, or says nothing.
    pub(super) fn read(self, definition: &Definition, headers: &HeaderMap) -> Answer<Asked> {
        if self.n.is_some_and(|n| n != 1) {
            return Err(invalid("n", "an agent gives one answer; leave it out"));
        }
        if self.tools.is_some_and(|tools| !tools.is_empty()) {
            let why = "an agent has tools of its own, and calls none of its caller's; leave it out";
            return Err(invalid("tools", why));
        }
        let conversation = conversation(definition, headers, self.user.as_deref())?;
        let mut said = Vec::with_capacity(self.messages.len());
        for (index, message) in self.messages.into_iter().enumerate() {
            said.push(message.read(index)?);
        }
        let Some(Message::User { text }) = said.pop() else {
            return Err(invalid(
                "messages",
                "the last message is the task, so it is the user's",
            ));
        };
        if text.trim().is_empty() {
            return Err(invalid("messages", "the last message is empty"));
        }
        // What the conversation holds is known here; what the client holds of it may be old.
        let history = if conversation.is_some() {
            Vec::new()
        } else {
            said
        };
        let metadata = match (self.metadata, self.user) {
            (Some(metadata), _) => metadata,
            (None, Some(user)) => json!({"user": user}),
            (None, None) => Value::Null,
        };
        Ok(Asked {
            input: json!({"prompt": text}),
            history,
            conversation,
            metadata,
        })
    }
}

impl MessageIn {
    fn read(self, index: usize) -> Answer<Message> {
        let field = |name: &str| format!("messages[{index}].{name}");
        if self.tool_calls.is_some_and(|calls| !calls.is_empty()) {
            let why = "an agent calls no tools of its caller; leave such messages out";
            return Err(invalid(&field("tool_calls"), why));
        }
        let text = match self.content {
            None => String::new(),
            Some(Content::Text(text)) => text,
            Some(Content::Parts(parts)) => {
                let mut texts = Vec::with_capacity(parts.len());
                for part in parts {
                    match (part.kind.as_str(), part.text) {
                        ("text", Some(text)) => texts.push(text),
                        (kind, _) => {
                            let shown: String = kind.chars().take(40).collect();
                            let why = format!("parts of type {shown:?} are not taken; send text");
                            return Err(invalid(&field("content"), &why));
                        }
                    }
                }
                texts.join("\n")
            }
        };
        match self.role.as_str() {
            // What a caller calls its system prompt is a caller's word: the agent's own goes before it.
            "user" | "system" | "developer" => Ok(Message::User { text }),
            "assistant" => Ok(Message::Assistant(Reply {
                text,
                tool_calls: Vec::new(),
                stop: StopReason::EndTurn,
                provider_data: None,
            })),
            role => {
                let shown: String = role.chars().take(40).collect();
                let why =
                    format!("{shown:?} is not taken; it is system, developer, user or assistant");
                Err(invalid(&field("role"), &why))
            }
        }
    }
}

/// The conversation that is meant: by the header, or for an agent that holds conversations by who asks.
pub(super) fn conversation(
    definition: &Definition,
    headers: &HeaderMap,
    user: Option<&str>,
) -> Answer<Option<ConversationId>> {
    let (field, named) = match headers.get(CONVERSATION) {
        Some(value) => (CONVERSATION, Some(value.to_str().unwrap_or_default())),
        None if definition.execution_mode == ExecutionMode::Continuous => ("user", user),
        None => ("user", None),
    };
    let id = named.map(|named| ConversationId::try_from(named.to_owned()));
    id.transpose()
        .map_err(|why| invalid(field, &why.to_string()))
}

pub(super) fn invalid(field: &str, why: &str) -> ApiError {
    ApiError::new(Code::InvalidRequest, format!("{field}: {why}")).with_field(field, why, "")
}
