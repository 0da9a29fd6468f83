//! One streaming model call behind one trait: OpenAI, Anthropic, Ollama, scripted. A whole answer is a folded stream.

use std::pin::Pin;
use std::time::Duration;

use async_trait::async_trait;
use domain::definition::LlmConfig;
use domain::retry::ModelErrorClass;
use domain::{Message, Money, Reply, StopReason, Tokens, Usage};
use futures::Stream;
use serde_json::Value;

/// What is asked of a model.
#[derive(Debug, Clone)]
pub struct ChatRequest<'a> {
    /// Which model, and how.
    pub config: &'a LlmConfig,
    /// Who the agent is.
    pub system: &'a str,
    /// What was said so far.
    pub messages: &'a [Message],
    /// What it may call.
    pub tools: &'a [ToolSpec],
    /// A schema that the answer must meet, for providers that can enforce it.
    pub output_schema: Option<&'a Value>,
    /// The longest answer.
    pub max_tokens: Option<Tokens>,
    /// For the provider's own records and for sending the trace on.
    pub trace_id: &'a str,
}

/// A tool as the model is told of it.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolSpec {
    /// Its name.
    pub name: String,
    /// What it does.
    pub description: String,
    /// The JSON Schema of its arguments: an object.
    pub parameters: Value,
}

/// A piece of an answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Chunk {
    /// More words.
    Text(String),
    /// A tool call begins; `index` tells parallel ones apart.
    ToolCall {
        /// Its place.
        index: usize,
        /// The provider's id; adapters make one where the provider has none.
        id: String,
        /// The tool's name.
        name: String,
    },
    /// More of a tool call's arguments.
    Arguments {
        /// Its place.
        index: usize,
        /// JSON text.
        fragment: String,
    },
    /// What the provider wants back unchanged next time.
    ProviderData(Value),
    /// What was consumed so far; the last one counts.
    Usage(Usage),
    /// The end: an answer without it is cut off and never counts as whole.
    Stop(StopReason),
}

/// The pieces of an answer as they come.
pub type ChatStream = Pin<Box<dyn Stream<Item = Result<Chunk, Error>> + Send>>;

/// A model behind a wire.
#[async_trait]
pub trait ChatModel: Send + Sync + 'static {
    /// Asks. Dropping the stream closes the connection.
    async fn chat(&self, request: ChatRequest<'_>) -> Result<ChatStream, Error>;
}

/// Why a model call failed.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// What kind.
    pub class: ModelErrorClass,
    /// What the provider said, or what happened, and what to do. Holds no key.
    pub message: String,
    /// How long the provider wants us to wait.
    pub retry_after: Option<Duration>,
    /// What is behind it.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// A whole answer and what it consumed.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The answer.
    pub reply: Reply,
    /// What it consumed.
    pub usage: Usage,
}

/// The price of a model's tokens, in dollars for a million.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Price {
    /// Of the prompt.
    pub input: Money,
    /// Of the prompt read from the provider's cache.
    pub cached: Money,
    /// Of the answer.
    pub output: Money,
}
