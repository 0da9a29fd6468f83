//! The pieces that an answer comes in, and the answer that they add up to.

use std::pin::Pin;

use domain::{Reply, StopReason, Usage};
use futures::Stream;
use serde_json::Value;

use crate::Error;

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

/// A whole answer and what it consumed.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The answer.
    pub reply: Reply,
    /// What it consumed.
    pub usage: Usage,
}
