//! What a behaviour answers: a reply, an error or raw bytes, and how it travels.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::faults::{Delivery, Fault};
use super::request::Request;

/// One answer of the stand-in. Each face writes it in its own format.
///
/// Also the shape of an answer in a script file, where every member may be left out.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Answer {
    /// What the model says.
    pub text: String,
    /// What it thinks before, for models that show it.
    pub thinking: String,
    /// The tools that it calls, all in one turn.
    pub tool_calls: Vec<ToolCall>,
    /// Why it stopped. By default `tool_calls` if there are any, else `end_turn`.
    pub stop: Option<Stop>,
    /// The tokens that it reports. By default a quarter of the characters.
    pub usage: Option<Usage>,
    /// An error in the provider's own shape, in place of a reply.
    pub error: Option<ProviderError>,
    /// A literal HTTP answer, in place of a reply.
    pub raw: Option<Raw>,
    /// More HTTP headers, for example `retry-after`.
    pub headers: BTreeMap<String, String>,
    /// How it travels.
    pub delivery: Delivery,
}

/// A tool call of an answer.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToolCall {
    /// The tool, which need not exist.
    pub name: String,
    /// Its arguments.
    #[serde(default)]
    pub arguments: Value,
    /// Arguments that are sent as they are, for JSON that is broken.
    #[serde(default)]
    pub malformed: Option<String>,
    /// The id of the call. By default made from the number of the request.
    #[serde(default)]
    pub id: Option<String>,
}

impl ToolCall {
    /// Calls `name` with `arguments`.
    #[must_use]
    pub fn new(name: impl Into<String>, arguments: Value) -> Self {
        Self {
            name: name.into(),
            arguments,
            ..Self::default()
        }
    }

    /// Calls `name` with text that should have been JSON.
    #[must_use]
    pub fn malformed(name: impl Into<String>, arguments: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            malformed: Some(arguments.into()),
            ..Self::default()
        }
    }

    /// Returns the arguments as JSON text. A call without arguments has an empty object.
    pub(super) fn arguments_text(&self) -> String {
        match (&self.malformed, &self.arguments) {
            (Some(text), _) => text.clone(),
            (None, Value::Null) => "{}".to_owned(),
            (None, arguments) => arguments.to_string(),
        }
    }

    /// Returns the id of the call at `index` of the answer to `request`.
    pub(super) fn id(&self, prefix: &str, request: &Request, index: usize) -> String {
        let made = || format!("{prefix}{:06}_{index}", request.number);
        self.id.clone().unwrap_or_else(made)
    }
}

/// Why the model stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stop {
    /// It had said all.
    EndTurn,
    /// It waits for tools.
    ToolCalls,
    /// It hit the token limit.
    Length,
    /// It met a stop sequence.
    StopSequence,
    /// A content filter stepped in.
    ContentFilter,
}

/// The tokens that an answer reports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Usage {
    /// Prompt tokens that were neither read from nor written to the cache.
    pub input: u64,
    /// Prompt tokens that were read from the cache.
    pub cache_read: u64,
    /// Prompt tokens that were written to the cache.
    pub cache_write: u64,
    /// Tokens of the answer.
    pub output: u64,
}

/// An error in the provider's own shape.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProviderError {
    /// What went wrong; each face has its own status and type for it.
    pub kind: ErrorKind,
    /// The message; the face has a default.
    #[serde(default)]
    pub message: Option<String>,
    /// The field that is at fault (OpenAI only).
    #[serde(default)]
    pub param: Option<String>,
    /// The error code, where the face's default does not fit (OpenAI only).
    #[serde(default)]
    pub code: Option<String>,
}

impl ProviderError {
    /// Refuses an invalid request.
    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, message)
    }

    pub(super) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: Some(message.into()),
            param: None,
            code: None,
        }
    }

    pub(super) fn at(mut self, param: impl Into<String>) -> Self {
        self.param = Some(param.into());
        self
    }

    pub(super) fn coded(mut self, code: impl Into<String>) -> Self {
        self.code = Some(code.into());
        self
    }
}

/// The errors that all faces know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// 400: the request is wrong.
    Invalid,
    /// 400: the conversation is longer than the model can read.
    ContextTooLong,
    /// 401: the key is missing or wrong.
    Unauthorized,
    /// 403: the key may not do this.
    Forbidden,
    /// 404: there is no such model.
    NotFound,
    /// 413: the body is too large.
    TooLarge,
    /// 429: too many requests; comes with `retry-after`.
    RateLimited,
    /// 429 at OpenAI, 400 elsewhere: the credit is used up. Waiting does not help.
    QuotaExceeded,
    /// 500: the provider failed.
    Internal,
    /// 529 at Anthropic, 503 elsewhere: the provider has too much to do.
    Overloaded,
}

/// A literal HTTP answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Raw {
    /// The HTTP status.
    pub status: u16,
    /// The `content-type`.
    pub content_type: String,
    /// The body.
    pub body: String,
}

impl Answer {
    /// Answers with a text and ends the turn.
    #[must_use]
    pub fn say(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            ..Self::default()
        }
    }

    /// Calls one tool. More calls of the same turn are added by [`Answer::and_call`].
    #[must_use]
    pub fn call(tool: impl Into<String>, arguments: Value) -> Self {
        Self::default().and_call(tool, arguments)
    }

    /// Adds a tool call.
    #[must_use]
    pub fn and_call(mut self, tool: impl Into<String>, arguments: Value) -> Self {
        self.tool_calls.push(ToolCall::new(tool, arguments));
        self
    }

    /// Calls a tool with arguments that are no JSON.
    #[must_use]
    pub fn call_malformed(tool: impl Into<String>, arguments: impl Into<String>) -> Self {
        let tool_calls = vec![ToolCall::malformed(tool, arguments)];
        Self {
            tool_calls,
            ..Self::default()
        }
    }

    /// Answers with an error in the provider's own shape.
    #[must_use]
    pub fn error(kind: ErrorKind) -> Self {
        let error = ProviderError {
            kind,
            message: None,
            param: None,
            code: None,
        };
        Self {
            error: Some(error),
            ..Self::default()
        }
    }

    /// Answers 429 and asks to wait for this many seconds.
    #[must_use]
    pub fn rate_limited(retry_after_seconds: u64) -> Self {
        Self::error(ErrorKind::RateLimited).header("retry-after", retry_after_seconds.to_string())
    }

    /// Answers with these literal bytes.
    #[must_use]
    pub fn raw(status: u16, content_type: impl Into<String>, body: impl Into<String>) -> Self {
        let raw = Raw {
            status,
            content_type: content_type.into(),
            body: body.into(),
        };
        Self {
            raw: Some(raw),
            ..Self::default()
        }
    }

    /// Answers 200 with a page, as a captive portal or a proxy does.
    #[must_use]
    pub fn html() -> Self {
        let page = "<!doctype html><html><body><h1>502 Bad Gateway</h1></body></html>";
        Self::raw(200, "text/html; charset=utf-8", page)
    }

    /// Sets what the model thinks before it answers.
    #[must_use]
    pub fn thinking(mut self, text: impl Into<String>) -> Self {
        self.thinking = text.into();
        self
    }

    /// Sets why the model stopped.
    #[must_use]
    pub fn stop(mut self, stop: Stop) -> Self {
        self.stop = Some(stop);
        self
    }

    /// Sets the tokens that are reported.
    #[must_use]
    pub fn usage(mut self, usage: Usage) -> Self {
        self.usage = Some(usage);
        self
    }

    /// Adds an HTTP header.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.insert(name.into(), value.into());
        self
    }

    /// Waits before the first byte.
    #[must_use]
    pub fn after(mut self, delay: Duration) -> Self {
        self.delivery.first_byte_ms = millis(delay);
        self
    }

    /// Waits before each chunk.
    #[must_use]
    pub fn pace(mut self, delay: Duration) -> Self {
        self.delivery.chunk_ms = millis(delay);
        self
    }

    /// Cuts the bytes of the body into chunks of this size, also inside events and inside characters.
    #[must_use]
    pub fn in_chunks_of(mut self, bytes: usize) -> Self {
        self.delivery.chunk_bytes = Some(bytes);
        self
    }

    /// Sends one byte at a time, with this delay before each.
    #[must_use]
    pub fn drip(self, delay: Duration) -> Self {
        self.in_chunks_of(1).pace(delay)
    }

    /// Lets the transport fail.
    #[must_use]
    pub fn fault(mut self, fault: Fault) -> Self {
        self.delivery.fault = Some(fault);
        self
    }

    pub(super) fn stopped(&self) -> Stop {
        let natural = if self.tool_calls.is_empty() {
            Stop::EndTurn
        } else {
            Stop::ToolCalls
        };
        self.stop.unwrap_or(natural)
    }

    pub(super) fn usage_for(&self, request: &Request) -> Usage {
        let tokens = |length: usize| (length as u64).div_ceil(4);
        let spoken = self
            .tool_calls
            .iter()
            .map(|call| call.arguments_text().len())
            .sum::<usize>();
        self.usage.unwrap_or_else(|| Usage {
            input: tokens(request.raw.to_string().len()),
            output: tokens(self.text.len() + self.thinking.len() + spoken).max(1),
            ..Usage::default()
        })
    }

    /// Cuts a text into the pieces that go into one event each.
    pub(super) fn pieces<'a>(&self, text: &'a str) -> Vec<&'a str> {
        let length = self.delivery.piece_chars.max(1);
        let starts = text.char_indices().map(|(at, _)| at).step_by(length);
        let mut bounds: Vec<usize> = starts.collect();
        bounds.push(text.len());
        bounds
            .windows(2)
            .map(|pair| &text[pair[0]..pair[1]])
            .collect()
    }
}

fn millis(delay: Duration) -> u64 {
    u64::try_from(delay.as_millis()).expect("a test's delay")
}
