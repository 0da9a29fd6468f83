//! Reads a chat answer, line by line.

use std::collections::VecDeque;

use domain::{StopReason, Tokens, Usage};
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use crate::Chunk;
use crate::failure::Report;
use crate::openai::arguments_of;
use crate::wire::{Decode, Fault, Progress};

/// The most thinking that is kept, in bytes.
const MOST_THINKING: usize = 4 << 20;

/// The state of one answer.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    calls: usize,
    thinking: String,
}

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow)]
    message: Option<WireMessage<'a>>,
    #[serde(default)]
    done: bool,
    done_reason: Option<String>,
    prompt_eval_count: Option<u64>,
    eval_count: Option<u64>,
    error: Option<String>,
}

#[derive(Deserialize)]
struct WireMessage<'a> {
    content: Option<String>,
    thinking: Option<String>,
    #[serde(borrow)]
    tool_calls: Option<Vec<WireCall<'a>>>,
}

#[derive(Deserialize)]
struct WireCall<'a> {
    id: Option<String>,
    #[serde(borrow)]
    function: WireFunction<'a>,
}

#[derive(Deserialize)]
struct WireFunction<'a> {
    name: String,
    #[serde(borrow)]
    arguments: Option<&'a RawValue>,
}

impl Decode for Decoder {
    fn read(&mut self, line: &[u8], out: &mut VecDeque<Chunk>) -> Result<Progress, Fault> {
        let read: Line<'_> =
            serde_json::from_slice(line).map_err(|error| Fault::unreadable(&error, line))?;
        if let Some(message) = read.error {
            return Err(Fault::Reported(500, Report::saying(message)));
        }
        if let Some(message) = read.message {
            self.message(message, out)?;
        }
        if !read.done {
            return Ok(Progress::More);
        }
        if self.calls > 0 && !self.thinking.is_empty() {
            let thinking = std::mem::take(&mut self.thinking);
            out.push_back(Chunk::ProviderData(
                json!({"ollama": {"thinking": thinking}}),
            ));
        }
        out.push_back(Chunk::Usage(Usage {
            input_tokens: Tokens(read.prompt_eval_count.unwrap_or_default()),
            output_tokens: Tokens(read.eval_count.unwrap_or_default()),
            cached_tokens: Tokens(0),
        }));
        out.push_back(Chunk::Stop(self.stop(read.done_reason.as_deref())));
        Ok(Progress::Done)
    }

    fn end(&mut self, _out: &mut VecDeque<Chunk>) -> Result<(), Fault> {
        Err(Fault::CutOff)
    }
}

impl Decoder {
    fn message(
        &mut self,
        message: WireMessage<'_>,
        out: &mut VecDeque<Chunk>,
    ) -> Result<(), Fault> {
        let thinking = message.thinking.unwrap_or_default();
        if self.thinking.len() + thinking.len() > MOST_THINKING {
            return Err(Fault::Garbled(
                "more thinking than any answer has".to_owned(),
            ));
        }
        self.thinking.push_str(&thinking);
        if let Some(text) = message.content.filter(|text| !text.is_empty()) {
            out.push_back(Chunk::Text(text));
        }
        for call in message.tool_calls.into_iter().flatten() {
            let index = self.calls;
            self.calls += 1;
            // Older versions give no ids.
            let id = call.id.filter(|id| !id.is_empty());
            out.push_back(Chunk::ToolCall {
                index,
                id: id.unwrap_or_else(|| format!("call_{index}")),
                name: call.function.name,
            });
            let fragment = arguments_of(call.function.arguments)?;
            if !fragment.is_empty() {
                out.push_back(Chunk::Arguments { index, fragment });
            }
        }
        Ok(())
    }

    fn stop(&self, reason: Option<&str>) -> StopReason {
        match reason {
            Some("length") => StopReason::MaxTokens,
            _ if self.calls > 0 => StopReason::ToolUse,
            _ => StopReason::EndTurn,
        }
    }
}
