//! Spans: what a trace shows of an execution. They follow from the journal and from nothing else ([`spans`]), with ids that
//! follow from the journal too: whoever ends an execution, after whatever crash, tells the same ones.

mod journal;
mod sampling;

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::Time;
use crate::execution::Parent;
use crate::id::{ExecutionId, InvalidId, Seq, TraceId};

pub use journal::{Telling, spans};
pub use sampling::Sampling;

/// Names a span within its trace, as W3C Trace Context spells it: 16 lowercase hex digits, not all zero.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct SpanId(u64);

impl SpanId {
    /// A span of its own, for what happens once: made of the 128 bits of a UUID.
    pub fn from_uuid(uuid: Uuid) -> Self {
        Self::of(uuid.as_bytes())
    }

    /// The span of an execution.
    pub fn of_execution(id: ExecutionId) -> Self {
        Self::of(id.to_string().as_bytes())
    }

    /// The span that begins with a step.
    pub fn of_step(id: ExecutionId, seq: Seq) -> Self {
        Self::of_key(&format!("{id}-{seq}"))
    }

    /// The span of a tool call, by the key that is sent with it; the key names the step that began it.
    pub fn of_key(key: &str) -> Self {
        Self::of(key.as_bytes())
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }

    fn of(bytes: &[u8]) -> Self {
        let hash = Sha256::digest(bytes);
        let number = hash
            .iter()
            .take(8)
            .fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        Self(number.max(1))
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl TryFrom<String> for SpanId {
    type Error = InvalidId;
    fn try_from(value: String) -> Result<Self, InvalidId> {
        let is_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        let number = (value.len() == 16 && value.bytes().all(is_hex))
            .then(|| u64::from_str_radix(&value, 16).ok())
            .flatten()
            .filter(|number| *number != 0);
        number.map(Self).ok_or_else(|| {
            InvalidId::new(
                "span id",
                &value,
                "it is 16 lowercase hex digits, not all zero",
            )
        })
    }
}

impl FromStr for SpanId {
    type Err = InvalidId;
    fn from_str(s: &str) -> Result<Self, InvalidId> {
        Self::try_from(s.to_owned())
    }
}

impl From<SpanId> for String {
    fn from(id: SpanId) -> String {
        id.to_string()
    }
}

/// The span that an execution was asked for in, and whether its trace is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Upstream {
    /// The span.
    pub span: SpanId,
    /// Whether whoever began the trace has it recorded.
    pub sampled: bool,
}

impl Upstream {
    /// The same recording, under the step that delegates.
    pub fn below(self, parent: &Parent) -> Self {
        Self {
            span: SpanId::of_step(parent.id, parent.seq),
            ..self
        }
    }
}

/// The `traceparent` of W3C Trace Context.
pub fn traceparent(trace: &TraceId, span: SpanId, sampled: bool) -> String {
    format!("00-{trace}-{span}-{:02x}", u8::from(sampled))
}

/// One thing that was done, with its beginning and its end.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    /// The trace that it belongs to.
    pub trace_id: TraceId,
    /// Its name in that trace.
    pub id: SpanId,
    /// What it is a part of.
    pub parent: Option<SpanId>,
    /// What is done, and with what.
    pub name: String,
    /// On which side of a call it stands.
    pub kind: Kind,
    /// When it began.
    pub start: Time,
    /// When it ended.
    pub end: Time,
    /// What is known of it, by OpenTelemetry's names.
    pub attributes: Vec<(&'static str, Attribute)>,
    /// Whether it failed.
    pub failed: bool,
}

/// On which side of a call a span stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It answers a request.
    Server,
    /// It asks another program.
    Client,
    /// Neither.
    Internal,
}

/// What can be known of a span.
#[derive(Debug, Clone, PartialEq)]
pub enum Attribute {
    /// A text.
    Text(String),
    /// Several.
    Texts(Vec<String>),
    /// A whole number.
    Int(i64),
    /// Any number.
    Float(f64),
}

impl From<&str> for Attribute {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Attribute {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<u64> for Attribute {
    fn from(number: u64) -> Self {
        Self::Int(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<f64> for Attribute {
    fn from(number: f64) -> Self {
        Self::Float(number)
    }
}
