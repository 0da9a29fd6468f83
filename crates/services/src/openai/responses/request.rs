//! What a client asks for, and what was said before.

use domain::definition::Definition;
use domain::{ConversationId, Message, Outcome, Reply, StopReason};
use http::HeaderMap;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use store::ExecutionRow;
use utoipa::ToSchema;

use crate::http::Answer;
use crate::http::body::Payload;
use crate::openai::request::{Asked, conversation, invalid};

/// The note of an execution that holds what only a response has.
pub(super) const NOTE: &str = "response";

/// A response that is asked for. Fields that are not named here are taken and not looked at: how an agent answers is in its
/// file.
#[derive(Debug, Deserialize, ToSchema)]
pub(in crate::openai) struct ResponseIn {
    /// The agent's name.
    #[schema(example = "incident-writer")]
    pub(super) model: String,
    /// What is to be done: a text, or messages, of which the last is the user's and is the task.
    #[schema(value_type = InputSchema)]
    input: Input,
    /// The response that it goes on from: what was said before comes along.
    #[serde(default)]
    pub(super) previous_response_id: Option<String>,
    /// What the agent is told before all others, this time.
    #[serde(default)]
    instructions: Option<String>,
    /// Whether to answer while it is written.
    #[serde(default)]
    stream: Option<bool>,
    /// Whether to answer at once; `GET /v1/responses/{id}` has the answer later.
    #[serde(default)]
    background: Option<bool>,
    /// Who asks. For a continuous agent it is the conversation, unless the header `X-Conversation-Id` names one.
    #[serde(default)]
    user: Option<String>,
    /// Not taken: an agent has its own.
    #[serde(default)]
    #[schema(value_type = Option<Vec<Object>>)]
    tools: Option<Vec<Value>>,
    /// Your own notes, texts by name, kept and given back.
    #[serde(default)]
    #[schema(value_type = Option<std::collections::BTreeMap<String, String>>)]
    metadata: Option<Map<String, Value>>,
}

impl Payload for ResponseIn {}

/// A text, or messages.
#[derive(ToSchema)]
#[schema(as = ResponseInput)]
#[serde(untagged)]
#[expect(dead_code, reason = "it is only described")]
enum InputSchema {
    #[schema(example = "Summarise the log.")]
    Text(String),
    Items(Vec<Item>),
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Input {
    Text(String),
    Items(Vec<Item>),
}

/// A message.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = ResponseInputItem)]
struct Item {
    /// `message`.
    #[serde(default, rename = "type")]
    #[schema(example = "message")]
    kind: Option<String>,
    /// system, developer, user or assistant.
    #[serde(default)]
    #[schema(example = "user")]
    role: Option<String>,
    /// What is said: a text, or parts of type `input_text` or `output_text`.
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "Summarise the log.")]
    content: Option<Content>,
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

/// What was said up to another response, it included.
#[derive(Debug)]
pub(super) struct Before {
    id: String,
    agent: String,
    said: Vec<Message>,
    conversation: Option<ConversationId>,
}

impl Before {
    /// What was said there.
    ///
    /// # Errors
    /// It has no answer.
    pub(super) fn of(row: ExecutionRow) -> Answer<Self> {
        let field = "previous_response_id";
        let Some(Outcome::Completed { output, .. }) = &row.outcome else {
            let why = format!(
                "that response is {}, and not completed; wait for it, or go on from another",
                row.status
            );
            return Err(invalid(field, &why));
        };
        let answer = assistant(output.clone());
        let execution = row.execution;
        let mut said = execution.history.clone();
        // They were of that request alone.
        let note = execution.metadata.get(NOTE);
        if note.is_some_and(|note| note.get("instructions").is_some_and(Value::is_string))
            && !said.is_empty()
        {
            said.remove(0);
        }
        said.push(Message::User {
            text: execution.prompt(),
        });
        said.push(answer);
        Ok(Self {
            id: super::answer::response_id(execution.id),
            agent: execution.agent.to_string(),
            said,
            conversation: execution.conversation,
        })
    }
}

impl ResponseIn {
    /// Whether to answer while it is written.
    pub(super) fn streams(&self) -> bool {
        self.stream.unwrap_or_default()
    }

    /// Whether to answer at once.
    pub(super) fn is_background(&self) -> bool {
        self.background.unwrap_or_default()
    }

    /// Reads the task for this agent.
    ///
    /// # Errors
    /// It asks for what no agent does, or says nothing.
    pub(super) fn read(
        self,
        definition: &Definition,
        headers: &HeaderMap,
        before: Option<Before>,
    ) -> Answer<Asked> {
        if self.tools.is_some_and(|tools| !tools.is_empty()) {
            let why = "an agent has tools of its own, and calls none of its caller's; leave it out";
            return Err(invalid("tools", why));
        }
        let metadata = self.metadata.unwrap_or_default();
        if let Some((name, _)) = metadata.iter().find(|(_, value)| !value.is_string()) {
            let shown: String = name.chars().take(40).collect();
            let why = format!("the value of {shown:?} is no text; notes are texts by name");
            return Err(invalid("metadata", &why));
        }
        let mut said = match self.input {
            Input::Text(text) => vec![Message::User { text }],
            Input::Items(items) => {
                let items = items.into_iter().enumerate();
                items
                    .map(|(index, item)| item.read(index))
                    .collect::<Answer<Vec<Message>>>()?
            }
        };
        let Some(Message::User { text }) = said.pop() else {
            let why = "the last message is the task, so it is the user's";
            return Err(invalid("input", why));
        };
        if text.trim().is_empty() {
            return Err(invalid("input", "the last message is empty"));
        }
        let same = before
            .as_ref()
            .filter(|before| before.agent == definition.name.as_str());
        let conversation = match same.and_then(|before| before.conversation.clone()) {
            Some(conversation) => Some(conversation),
            None => conversation(definition, headers, self.user.as_deref())?,
        };
        let note = json!({
            "previous_response_id": before.as_ref().map(|before| &before.id),
            "instructions": self.instructions,
        });
        // What the conversation holds is known here; what the client holds of it may be old.
        let history = if conversation.is_some() {
            Vec::new()
        } else {
            let instructions = self.instructions.map(|text| Message::User { text });
            let before = before.into_iter().flat_map(|before| before.said);
            instructions.into_iter().chain(before).chain(said).collect()
        };
        let mut metadata = metadata;
        metadata.insert(NOTE.to_owned(), note);
        if let Some(user) = self.user {
            metadata.entry("user").or_insert(Value::String(user));
        }
        Ok(Asked {
            input: json!({ "prompt": text }),
            history,
            conversation,
            metadata: Value::Object(metadata),
        })
    }
}

impl Item {
    fn read(self, index: usize) -> Answer<Message> {
        let field = |name: &str| format!("input[{index}].{name}");
        if let Some(kind) = self.kind.as_deref().filter(|kind| *kind != "message") {
            let shown: String = kind.chars().take(40).collect();
            let why = format!("items of type {shown:?} are not taken; send messages");
            return Err(invalid(&field("type"), &why));
        }
        let text = match self.content {
            None => String::new(),
            Some(Content::Text(text)) => text,
            Some(Content::Parts(parts)) => {
                let mut texts = Vec::with_capacity(parts.len());
                for part in parts {
                    match (part.kind.as_str(), part.text) {
                        ("input_text" | "output_text" | "text", Some(text)) => texts.push(text),
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
        match self.role.as_deref() {
            // What a caller calls its system prompt is a caller's word: the agent's own goes before it.
            Some("user" | "system" | "developer") => Ok(Message::User { text }),
            Some("assistant") => Ok(assistant(text)),
            role => {
                let shown: String = role.unwrap_or_default().chars().take(40).collect();
                let why =
                    format!("{shown:?} is not taken; it is system, developer, user or assistant");
                Err(invalid(&field("role"), &why))
            }
        }
    }
}

fn assistant(text: String) -> Message {
    Message::Assistant(Reply {
        text,
        tool_calls: Vec::new(),
        stop: StopReason::EndTurn,
        provider_data: None,
    })
}
