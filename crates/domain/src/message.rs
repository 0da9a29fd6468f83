//! What is said between a model and its surroundings, in a form that every provider's wire format maps to.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One message of a conversation. The system prompt is not one: it belongs to the definition.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "role", rename_all = "snake_case")]
pub enum Message {
    /// What a person, an event or a schedule said to the agent.
    User {
        /// The words.
        text: String,
    },
    /// What the model answered.
    Assistant(Reply),
    /// What a tool gave back, or why it was not called.
    Tool {
        /// The id that the model gave its call; providers pair by it.
        call_id: String,
        /// The tool's name.
        name: String,
        /// The result as text.
        content: String,
        /// Whether it is an error that the model should react to.
        is_error: bool,
    },
}

impl Message {
    /// A rough size in bytes, to estimate tokens by.
    pub fn bytes(&self) -> usize {
        match self {
            Self::User { text } => text.len(),
            Self::Assistant(reply) => {
                reply.text.len()
                    + reply
                        .tool_calls
                        .iter()
                        .map(|c| c.name.len() + c.arguments.len())
                        .sum::<usize>()
            }
            Self::Tool { content, name, .. } => content.len() + name.len(),
        }
    }
}

/// A whole answer of a model: a folded stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Reply {
    /// The words; empty when the model only called tools.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub text: String,
    /// The tools that it wants called, all at once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
    /// Why it stopped.
    pub stop: StopReason,
    /// What the provider wants back unchanged in the next turn (reasoning blocks with their signatures).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider_data: Option<Value>,
}

/// A model's wish to have a tool called. Nothing in it is trusted: the name may not exist, the id may repeat.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ToolCall {
    /// The provider's id for the call; the result carries it back.
    pub id: String,
    /// The tool's name as the model wrote it.
    pub name: String,
    /// The arguments as the model wrote them: JSON text when all is well.
    pub arguments: String,
}

/// Why a model stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StopReason {
    /// It had said what it wanted.
    EndTurn,
    /// It wants tools called.
    ToolUse,
    /// It reached the limit of tokens: the answer is not whole.
    MaxTokens,
    /// It met one of the stop sequences.
    StopSequence,
    /// The provider or model declined to answer.
    Refusal,
}
