//! What is asked of a model, and the trait of one that answers.

use async_trait::async_trait;
use domain::definition::LlmConfig;
use domain::{Message, Tokens};
use serde_json::Value;

use crate::{ChatStream, Error};

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
    pub tools: &'a [ToolSpec<'a>],
    /// A schema that the answer must meet, for providers that can enforce it.
    pub output_schema: Option<&'a Value>,
    /// The longest answer.
    pub max_tokens: Option<Tokens>,
    /// For the provider's own records and for sending the trace on.
    pub trace_id: &'a str,
}

impl ChatRequest<'_> {
    /// The longest answer, of the request or else of the configuration.
    pub(crate) fn longest_answer(&self) -> Option<Tokens> {
        self.max_tokens.or(self.config.max_tokens)
    }
}

/// A tool as the model is told of it. Borrowed: a thousand calls at once describe the same tools, and a schema can be
/// large.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ToolSpec<'a> {
    /// Its name.
    pub name: &'a str,
    /// What it does.
    pub description: &'a str,
    /// The JSON Schema of its arguments: an object.
    pub parameters: &'a Value,
}

/// A model behind a wire.
#[async_trait]
pub trait ChatModel: Send + Sync + 'static {
    /// Asks. Dropping the stream closes the connection.
    async fn chat(&self, request: ChatRequest<'_>) -> Result<ChatStream, Error>;
}
