//! Reads a message, streamed or whole.

use std::collections::VecDeque;

use domain::{StopReason, Tokens, Usage};
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::error::{WireError, status};
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
    usage: WireUsage,
    stop: Option<StopReason>,
}

#[derive(Debug)]
enum Block {
    Text {
        bytes: usize,
    },
    Call {
        index: usize,
        input: String,
    },
    Thinking {
        text: String,
        signature: String,
    },
    /// Of no use to us, or already dealt with.
    Other,
}

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    index: u64,
    #[serde(borrow)]
    message: Option<Whole<'a>>,
    #[serde(borrow)]
    content_block: Option<&'a RawValue>,
    delta: Option<Delta>,
    usage: Option<WireUsage>,
    error: Option<WireError>,
    /// The rest is there when the whole answer comes in one piece.
    #[serde(borrow)]
    content: Option<Vec<&'a RawValue>>,
    stop_reason: Option<String>,
}

#[derive(Deserialize)]
struct Whole<'a> {
    usage: Option<WireUsage>,
    #[serde(borrow, default)]
    content: Option<Vec<&'a RawValue>>,
}

#[derive(Deserialize)]
struct Start<'a> {
    #[serde(rename = "type")]
    kind: String,
    id: Option<String>,
    name: Option<String>,
    text: Option<String>,
    thinking: Option<String>,
    signature: Option<String>,
    #[serde(borrow)]
    input: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Delta {
    text: Option<String>,
    partial_json: Option<String>,
    thinking: Option<String>,
    signature: Option<String>,
    stop_reason: Option<String>,
}

/// Counts as they stand; each event may correct some of them.
#[derive(Debug, Default, Deserialize)]
struct WireUsage {
    input_tokens: Option<u64>,
    cache_creation_input_tokens: Option<u64>,
    cache_read_input_tokens: Option<u64>,
    output_tokens: Option<u64>,
}

impl Decode for Decoder {
    fn read(&mut self, event: &[u8], out: &mut VecDeque<Chunk>) -> Result<Progress, Fault> {
        let read: Event<'_> =
            serde_json::from_slice(event).map_err(|error| Fault::unreadable(&error, event))?;
        match read.kind.as_str() {
            "message_start" => {
                if let Some(message) = read.message {
                    self.usage.update(message.usage);
                    self.whole(message.content.unwrap_or_default(), out)?;
                }
            }
            "content_block_start" => {
                if let Some(block) = read.content_block {
                    self.start(read.index, block, out)?;
                }
            }
            "content_block_delta" => {
                if let Some(delta) = read.delta {
                    self.delta(read.index, delta, out)?;
                }
            }
            "content_block_stop" => self.close(read.index, out),
            "message_delta" => {
                self.usage.update(read.usage);
                self.stopped(read.delta.and_then(|delta| delta.stop_reason));
            }
            "message_stop" => {
                self.end(out)?;
                return Ok(Progress::Done);
            }
            "message" => {
                self.usage.update(read.usage);
                self.whole(read.content.unwrap_or_default(), out)?;
                self.stopped(read.stop_reason);
            }
            "error" => {
                let report = read.error.map(Report::from).unwrap_or_default();
                return Err(Fault::Reported(status(&report), report));
            }
            // `ping`, and events of later versions, which the format tells us to pass over.
            _ => {}
        }
        Ok(Progress::More)
    }

    fn end(&mut self, out: &mut VecDeque<Chunk>) -> Result<(), Fault> {
        let stop = self.stop.take().ok_or(Fault::CutOff)?;
        let kept = self.plan.kept(FORMAT, &self.model);
        out.extend(kept.map(Chunk::ProviderData));
        out.push_back(Chunk::Usage(self.usage.sum()));
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
            usage: WireUsage::default(),
            stop: None,
        }
    }

    fn whole(&mut self, blocks: Vec<&RawValue>, out: &mut VecDeque<Chunk>) -> Result<(), Fault> {
        for block in blocks {
            self.start(0, block, out)?;
            self.close(0, out);
        }
        Ok(())
    }

    fn start(
        &mut self,
        place: u64,
        raw: &RawValue,
        out: &mut VecDeque<Chunk>,
    ) -> Result<(), Fault> {
        let start: Start<'_> = serde_json::from_str(raw.get())
            .map_err(|error| Fault::unreadable(&error, raw.get().as_bytes()))?;
        let block = match start.kind.as_str() {
            "text" => {
                let text = start.text.unwrap_or_default();
                let bytes = text.len();
                push_text(text, out);
                Block::Text { bytes }
            }
            "tool_use" => {
                let index = self.calls;
                self.calls += 1;
                self.plan.call(index);
                out.push_back(Chunk::ToolCall {
                    index,
                    id: start.id.unwrap_or_else(|| format!("call_{index}")),
                    name: start.name.unwrap_or_default(),
                });
                let input = start.input.map(|input| input.get().to_owned());
                Block::Call {
                    index,
                    input: input.unwrap_or_default(),
                }
            }
            "thinking" => Block::Thinking {
                text: start.thinking.unwrap_or_default(),
                signature: start.signature.unwrap_or_default(),
            },
            "redacted_thinking" => {
                self.think(raw.get().len())?;
                self.plan
                    .thought(serde_json::from_str(raw.get()).unwrap_or_default());
                Block::Other
            }
            _ => Block::Other,
        };
        self.blocks += 1;
        if self.blocks > MOST_BLOCKS || self.open.len() >= MOST_OPEN {
            return Err(Fault::Garbled("more blocks than any answer has".to_owned()));
        }
        // A place that is used twice means the newer block.
        self.open.retain(|(open, _)| *open != place);
        self.open.push((place, block));
        Ok(())
    }

    fn think(&mut self, bytes: usize) -> Result<(), Fault> {
        self.thinking += bytes;
        if self.thinking > MOST_THINKING {
            return Err(Fault::Garbled(
                "more thinking than any answer has".to_owned(),
            ));
        }
        Ok(())
    }

    fn delta(&mut self, place: u64, delta: Delta, out: &mut VecDeque<Chunk>) -> Result<(), Fault> {
        let thought = delta.thinking.as_ref().map_or(0, String::len)
            + delta.signature.as_ref().map_or(0, String::len);
        self.think(thought)?;
        let Some((_, block)) = self.open.iter_mut().find(|(open, _)| *open == place) else {
            return Err(Fault::Garbled(format!(
                "block {place} goes on but never began"
            )));
        };
        match block {
            Block::Text { bytes } => {
                let text = delta.text.unwrap_or_default();
                *bytes += text.len();
                push_text(text, out);
            }
            Block::Call { index, input } => {
                let fragment = delta.partial_json.unwrap_or_default();
                if !fragment.is_empty() {
                    // What streams replaces the empty object that the block began with.
                    input.clear();
                    out.push_back(Chunk::Arguments {
                        index: *index,
                        fragment,
                    });
                }
            }
            Block::Thinking { text, signature } => {
                text.push_str(&delta.thinking.unwrap_or_default());
                signature.push_str(&delta.signature.unwrap_or_default());
            }
            Block::Other => {}
        }
        Ok(())
    }

    fn close(&mut self, place: u64, out: &mut VecDeque<Chunk>) {
        let Some(at) = self.open.iter().position(|(open, _)| *open == place) else {
            return;
        };
        let (_, block) = self.open.swap_remove(at);
        match block {
            Block::Text { bytes } => self.plan.text(bytes),
            Block::Call { index, input } if !input.is_empty() => {
                out.push_back(Chunk::Arguments {
                    index,
                    fragment: input,
                });
            }
            Block::Thinking { text, signature } => {
                let block = json!({"type": "thinking", "thinking": text, "signature": signature});
                self.plan.thought(block);
            }
            Block::Call { .. } | Block::Other => {}
        }
    }

    fn stopped(&mut self, reason: Option<String>) {
        if let Some(reason) = reason {
            self.stop = Some(stop_reason(&reason));
        }
    }
}

impl WireUsage {
    fn update(&mut self, newer: Option<Self>) {
        let Some(newer) = newer else { return };
        self.input_tokens = newer.input_tokens.or(self.input_tokens);
        self.output_tokens = newer.output_tokens.or(self.output_tokens);
        self.cache_read_input_tokens = newer
            .cache_read_input_tokens
            .or(self.cache_read_input_tokens);
        self.cache_creation_input_tokens = newer
            .cache_creation_input_tokens
            .or(self.cache_creation_input_tokens);
    }

    /// Anthropic counts what it reads from and writes to its cache apart; we count the whole prompt.
    fn sum(&self) -> Usage {
        let tokens = |count: Option<u64>| Tokens(count.unwrap_or_default());
        let cached = tokens(self.cache_read_input_tokens);
        Usage {
            input_tokens: tokens(self.input_tokens)
                + cached
                + tokens(self.cache_creation_input_tokens),
            output_tokens: tokens(self.output_tokens),
            cached_tokens: cached,
        }
    }
}

fn push_text(text: String, out: &mut VecDeque<Chunk>) {
    if !text.is_empty() {
        out.push_back(Chunk::Text(text));
    }
}

fn stop_reason(reason: &str) -> StopReason {
    match reason {
        "tool_use" => StopReason::ToolUse,
        // After `pause_turn`, too, the answer is not whole: a tool on Anthropic's side took too long.
        "max_tokens" | "model_context_window_exceeded" | "pause_turn" => StopReason::MaxTokens,
        "stop_sequence" => StopReason::StopSequence,
        "refusal" => StopReason::Refusal,
        _ => StopReason::EndTurn,
    }
}
