//! The APIs that the stand-in speaks, and what each must be able to do.

use std::collections::BTreeMap;
use std::fmt;

use axum::http::StatusCode;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::answer::{Answer, ProviderError};
use super::faults::Frames;
use super::request::{Message, Request, Tool};
use super::{anthropic, bedrock, ollama, openai};

/// An API of a provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Face {
    /// OpenAI chat completions.
    Openai,
    /// Anthropic messages.
    Anthropic,
    /// Ollama chat.
    Ollama,
    /// AWS Bedrock's Converse.
    Bedrock,
}

impl fmt::Display for Face {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Openai => "openai",
            Self::Anthropic => "anthropic",
            Self::Ollama => "ollama",
            Self::Bedrock => "bedrock",
        })
    }
}

impl Face {
    pub(super) fn dialect(self) -> &'static dyn Dialect {
        match self {
            Self::Openai => &openai::Openai,
            Self::Anthropic => &anthropic::Anthropic,
            Self::Ollama => &ollama::Ollama,
            Self::Bedrock => &bedrock::Bedrock,
        }
    }
}

/// HTTP headers, names in lower case.
pub(super) type Headers = BTreeMap<String, String>;

/// A request as it arrived.
pub(super) struct Arrived<'a> {
    pub(super) method: &'a str,
    /// Still escaped.
    pub(super) path: &'a str,
    pub(super) headers: &'a Headers,
    pub(super) body: &'a [u8],
    /// The body as JSON, or null.
    pub(super) raw: &'a Value,
}

/// Reads and writes one provider's wire format.
pub(super) trait Dialect: Sync {
    /// Refuses what the real provider refuses.
    fn check(&self, arrived: &Arrived<'_>) -> Result<(), ProviderError>;
    /// Reads which model is asked.
    fn model(&self, arrived: &Arrived<'_>) -> String {
        arrived.raw["model"].as_str().unwrap_or_default().to_owned()
    }
    /// Tells whether a streamed answer is asked for.
    fn wants_stream(&self, arrived: &Arrived<'_>) -> bool;
    /// Reads the conversation, leniently.
    fn messages(&self, raw: &Value) -> Vec<Message>;
    /// Reads the tools, leniently.
    fn tools(&self, raw: &Value) -> Vec<Tool>;
    /// Writes the answer as one JSON text.
    fn whole(&self, request: &Request, answer: &Answer) -> Value;
    /// Writes the answer as a stream of events.
    fn frames(&self, request: &Request, answer: &Answer) -> Frames;
    /// The `content-type` of a stream.
    fn stream_type(&self) -> &'static str;
    /// Writes an error that takes the place of an answer.
    fn error(&self, number: usize, error: &ProviderError) -> (StatusCode, Value);
    /// Writes an error that comes in the middle of a stream.
    fn error_event(&self, error: &ProviderError) -> Bytes;
    /// The headers of every answer.
    fn headers(&self, number: usize) -> Vec<(&'static str, String)>;
    /// The headers of an error that takes the place of an answer.
    fn error_headers(&self, _error: &ProviderError) -> Vec<(&'static str, String)> {
        Vec::new()
    }
}

/// Writes one event of a stream of server-sent events.
pub(super) fn event(name: Option<&str>, data: &Value) -> Bytes {
    match name {
        Some(name) => format!("event: {name}\ndata: {data}\n\n").into(),
        None => format!("data: {data}\n\n").into(),
    }
}

/// When the stand-in's first answer was made, in Unix seconds. Fixed, so that answers repeat exactly.
pub(super) const EPOCH: u64 = 1_760_000_000;
