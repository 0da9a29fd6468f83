//! Reads the frames of a streamed answer. Each is a message with headers, which say what it is, and JSON.

use std::collections::VecDeque;

use aws_smithy_eventstream::frame::read_message_from;
use domain::{StopReason, Tokens, Usage};
use serde::Deserialize;
use serde_json::json;

use super::error::{read, status};
use super::request::FORMAT;
use crate::Chunk;
use crate::dialogue::Plan;
use crate::failure::Report;
use crate::wire::{Decode, Fault, Progress};

/// The most blocks of an answer that may be open at once; in truth it is one.
const MOST_OPEN: usize = 64;
/// The most blocks of an answer.
const MOST_BLOCKS: usize = 4096;
/// The most thinking that is kept, in bytes.
const MOST_THINKING: usize = 4 << 20;

/// The state of one answer.
#[derive(Debug)]
pub(super) struct Decoder {
    model: String,
    open: Vec<(u64, Block)>,
    blocks: usize,
    calls: usize,
    plan: Plan,
    thinking: usize,
    usage: Usage,
    stop: Option<StopReason>,
}

#[derive(Debug)]
enum Block {
    Text {
        bytes: usize,
    },
    Call {
        index: usize,
    },
    Thinking {
        text: String,
        signature: String,
    },
    /// Thinking that only AWS can read, in base64.
    Redacted {
        data: String,
    },
    /// Of no use to us.
    Other,
}

/// The members of all kinds of events. AWS adds padding, and members of later versions, which are passed over.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Event {
    content_block_index: u64,
    start: Option<Start>,
    delta: Option<Delta>,
    stop_reason: Option<String>,
    usage: Option<WireUsage>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Start {
    tool_use: Option<ToolUse>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ToolUse {
    tool_use_id: Option<String>,
    name: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Delta {
    text: Option<String>,
    tool_use: Option<Input>,
    reasoning_content: Option<Reasoning>,
}

#[derive(Deserialize)]
struct Input {
    input: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Reasoning {
    text: Option<String>,
    signature: Option<String>,
    redacted_content: Option<String>,
}

/// AWS counts what it reads from and writes to its cache apart.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct WireUsage {
    input_tokens: Option<u64>,
    output_tokens: Option<u64>,
    cache_read_input_tokens: Option<u64>,
    cache_write_input_tokens: Option<u64>,
}

impl Decode for Decoder {
    fn read(&mut self, frame: &[u8], out: &mut VecDeque<Chunk>) -> Result<Progress, Fault> {
        let message = read_message_from(frame)
            .map_err(|error| Fault::Garbled(format!("a frame can't be read: {error}")))?;
        let header = |name: &str| {
            let found = message.headers().iter().find(|h| h.name().as_str() == name);
            let text = found.and_then(|header| header.value().as_string().ok());
            text.map_or("", |text| text.as_str())
        };
        match header(":message-type") {
            "exception" => {
                let mut report = read(message.payload());
                header(":exception-type").clone_into(&mut report.kind);
                return Err(Fault::Reported(status(&report.kind), report));
            }
            "error" => {
                let report = Report {
                    kind: header(":error-code").to_owned(),
                    code: String::new(),
                    message: header(":error-message").to_owned(),
                };
                return Err(Fault::Reported(status(&report.kind), report));
            }
            _ => {}
        }
        let payload = message.payload().as_ref();
        let event = || -> Result<Event, Fault> {
            serde_json::from_slice(payload).map_err(|error| Fault::unreadable(&error, payload))
        };
        match header(":event-type") {
            "contentBlockStart" => self.start(event()?, out)?,
            "contentBlockDelta" => self.delta(event()?, out)?,
            "contentBlockStop" => self.close(event()?.content_block_index),
            "messageStop" => self.stop = Some(stop_reason(event()?.stop_reason)?),
            "metadata" => {
                self.usage = event()?.usage.unwrap_or_default().sum();
                // It is the last one, and comes after the answer's end.
                if self.stop.is_some() {
                    self.end(out)?;
                    return Ok(Progress::Done);
                }
            }
            // `messageStart`, and events of later versions.
            _ => {}
        }
        Ok(Progress::More)
    }

    fn end(&mut self, out: &mut VecDeque<Chunk>) -> Result<(), Fault> {
        let stop = self.stop.take().ok_or(Fault::CutOff)?;
        let kept = self.plan.kept(FORMAT, &self.model);
        out.extend(kept.map(Chunk::ProviderData));
        out.push_back(Chunk::Usage(self.usage));
        out.push_back(Chunk::Stop(stop));
        Ok(())
    }
}

impl Decoder {
    /// A decoder for an answer of this model.
    pub(super) fn new(model: &str) -> Self {
        Self {
            model: model.to_owned(),
            open: Vec::new(),
            blocks: 0,
            calls: 0,
            plan: Plan::default(),
            thinking: 0,
            usage: Usage::default(),
            stop: None,
        }
    }

    /// Only calls announce themselves; other blocks begin with their first piece.
    fn start(&mut self, event: Event, out: &mut VecDeque<Chunk>) -> Result<(), Fault> {
        let Some(call) = event.start.and_then(|start| start.tool_use) else {
            return Ok(());
        };
        let index = self.calls;
        self.calls += 1;
        self.plan.call(index);
        out.push_back(Chunk::ToolCall {
            index,
            id: call.tool_use_id.unwrap_or_else(|| format!("call_{index}")),
            name: call.name.unwrap_or_default(),
        });
        self.begin(event.content_block_index, Block::Call { index })
    }

    fn begin(&mut self, place: u64, block: Block) -> Result<(), Fault> {
        self.blocks += 1;
        if self.blocks > MOST_BLOCKS || self.open.len() >= MOST_OPEN {
            return Err(Fault::Garbled("more blocks than any answer has".to_owned()));
        }
        // A place that is used twice means the newer block.
        self.open.retain(|(open, _)| *open != place);
        self.open.push((place, block));
        Ok(())
    }

    fn delta(&mut self, event: Event, out: &mut VecDeque<Chunk>) -> Result<(), Fault> {
        let place = event.content_block_index;
        let Some(delta) = event.delta else {
            return Ok(());
        };
        if let Some(thought) = &delta.reasoning_content {
            let parts = [&thought.text, &thought.signature, &thought.redacted_content];
            self.thinking += parts.into_iter().flatten().map(String::len).sum::<usize>();
            if self.thinking > MOST_THINKING {
                return Err(Fault::Garbled(
                    "more thinking than any answer has".to_owned(),
                ));
            }
        }
        if !self.open.iter().any(|(open, _)| *open == place) {
            self.begin(place, opened_by(&delta, place)?)?;
        }
        let Some((_, block)) = self.open.iter_mut().find(|(open, _)| *open == place) else {
            return Ok(());
        };
        match block {
            Block::Text { bytes } => {
                let text = delta.text.unwrap_or_default();
                *bytes += text.len();
                if !text.is_empty() {
                    out.push_back(Chunk::Text(text));
                }
            }
            Block::Call { index } => {
                let fragment = delta.tool_use.and_then(|call| call.input);
                if let Some(fragment) = fragment.filter(|fragment| !fragment.is_empty()) {
                    let index = *index;
                    out.push_back(Chunk::Arguments { index, fragment });
                }
            }
            Block::Thinking { text, signature } => {
                if let Some(thought) = delta.reasoning_content {
                    text.push_str(&thought.text.unwrap_or_default());
                    signature.push_str(&thought.signature.unwrap_or_default());
                }
            }
            Block::Redacted { data } => {
                let more = delta
                    .reasoning_content
                    .and_then(|thought| thought.redacted_content);
                data.push_str(&more.unwrap_or_default());
            }
            Block::Other => {}
        }
        Ok(())
    }

    fn close(&mut self, place: u64) {
        let Some(at) = self.open.iter().position(|(open, _)| *open == place) else {
            return;
        };
        let (_, block) = self.open.swap_remove(at);
        match block {
            Block::Text { bytes } => self.plan.text(bytes),
            Block::Thinking { text, signature } => {
                // Not every model signs its thoughts.
                let thought = if signature.is_empty() {
                    json!({ "text": text })
                } else {
                    json!({ "text": text, "signature": signature })
                };
                self.plan
                    .thought(json!({"reasoningContent": {"reasoningText": thought}}));
            }
            Block::Redacted { data } => {
                self.plan
                    .thought(json!({"reasoningContent": {"redactedContent": data}}));
            }
            Block::Call { .. } | Block::Other => {}
        }
    }
}

/// The block that a first piece opens.
fn opened_by(delta: &Delta, place: u64) -> Result<Block, Fault> {
    if delta.tool_use.is_some() {
        return Err(Fault::Garbled(format!(
            "call {place} goes on but never began"
        )));
    }
    Ok(match (&delta.text, &delta.reasoning_content) {
        (Some(_), _) => Block::Text { bytes: 0 },
        (None, Some(thought)) if thought.redacted_content.is_some() => Block::Redacted {
            data: String::new(),
        },
        (None, Some(_)) => Block::Thinking {
            text: String::new(),
            signature: String::new(),
        },
        (None, None) => Block::Other,
    })
}

impl WireUsage {
    /// We count the whole prompt.
    fn sum(&self) -> Usage {
        let tokens = |count: Option<u64>| Tokens(count.unwrap_or_default());
        let cached = tokens(self.cache_read_input_tokens);
        Usage {
            input_tokens: tokens(self.input_tokens)
                + cached
                + tokens(self.cache_write_input_tokens),
            output_tokens: tokens(self.output_tokens),
            cached_tokens: cached,
        }
    }
}

fn stop_reason(reason: Option<String>) -> Result<StopReason, Fault> {
    Ok(match reason.unwrap_or_default().as_str() {
        "tool_use" => StopReason::ToolUse,
        "max_tokens" | "model_context_window_exceeded" => StopReason::MaxTokens,
        "stop_sequence" => StopReason::StopSequence,
        "guardrail_intervened" | "content_filtered" => StopReason::Refusal,
        malformed if malformed.starts_with("malformed_") => {
            return Err(Fault::Garbled(format!("the model ended with {malformed}")));
        }
        _ => StopReason::EndTurn,
    })
}
