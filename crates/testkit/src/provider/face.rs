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
use super::{anthropic, ollama, openai};

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
}

impl fmt::Display for Face {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Openai => "openai",
            Self::Anthropic => "anthropic",
            Self::Ollama => "ollama",
        })
    }
}

impl Face {
    pub(super) fn dialect(self) -> &'static dyn Dialect {
        match self {
            Self::Openai => &openai::Openai,
            Self::Anthropic => &anthropic::Anthropic,
            Self::Ollama => &ollama::Ollama,
        }
    }
}

/// HTTP headers, names in lower case.
pub(super) type Headers = BTreeMap<String, String>;

/// Reads and writes one provider's wire format.
pub(super) trait Dialect: Sync {
    /// Refuses what the real provider refuses.
    fn check(&self, headers: &Headers, raw: &Value) -> Result<(), ProviderError>;
    /// Tells whether a streamed answer is asked for.
    fn wants_stream(&self, raw: &Value) -> bool;
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
