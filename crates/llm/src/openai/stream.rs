//! Reads a chat completion, streamed or whole, as OpenAI writes it and as others nearly do.

use std::collections::VecDeque;

use domain::{StopReason, Tokens, Usage};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::error::{report, status};
use crate::Chunk;
use crate::wire::{Decode, Fault, Progress};

/// The state of one answer.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    calls: Vec<Begun>,
    usage: Option<Usage>,
    stop: Option<StopReason>,
    has_refused: bool,
}

/// A call that has begun, with the place and id that the wire gave it.
#[derive(Debug)]
struct Begun {
    place: Option<u64>,
    id: String,
}

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow, default)]
    choices: Option<Vec<Choice<'a>>>,
    usage: Option<WireUsage>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Choice<'a> {
    #[serde(default)]
    index: u64,
    #[serde(borrow)]
    delta: Option<Delta<'a>>,
    /// The whole answer, from a server that does not stream.
    #[serde(borrow)]
    message: Option<Delta<'a>>,
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct Delta<'a> {
    #[serde(borrow)]
    content: Option<&'a RawValue>,
    refusal: Option<String>,
    #[serde(borrow)]
    tool_calls: Option<Vec<WireCall<'a>>>,
}

#[derive(Deserialize)]
struct WireCall<'a> {
    index: Option<u64>,
    id: Option<String>,
    #[serde(borrow)]
    function: Option<WireFunction<'a>>,
}

#[derive(Deserialize)]
struct WireFunction<'a> {
    name: Option<String>,
    #[serde(borrow)]
    arguments: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct WireUsage {
    prompt_tokens: Option<u64>,
    completion_tokens: Option<u64>,
    prompt_tokens_details: Option<WireDetails>,
}

#[derive(Deserialize)]
struct WireDetails {
    cached_tokens: Option<u64>,
}

#[derive(Deserialize)]
struct Part {
    text: Option<String>,
}

impl Decode for Decoder {
    fn read(&mut self, event: &[u8], out: &mut VecDeque<Chunk>) -> Result<Progress, Fault> {
        if event.trim_ascii() == b"[DONE]" {
            self.end(out)?;
            return Ok(Progress::Done);
        }
        let read: Event<'_> =
            serde_json::from_slice(event).map_err(|error| Fault::unreadable(&error, event))?;
        if let Some(error) = read.error {
            return Err(reported(error));
        }
        if let Some(usage) = read.usage {
            self.usage = Some(usage.into());
        }
        // Only the first choice is asked for; a server that sends more is not believed.
        for choice in read.choices.into_iter().flatten() {
            if choice.index == 0 {
                self.choice(choice, out)?;
            }
        }
        Ok(Progress::More)
    }

    fn end(&mut self, out: &mut VecDeque<Chunk>) -> Result<(), Fault> {
        let stop = self.stop.take().ok_or(Fault::CutOff)?;
        out.extend(self.usage.take().map(Chunk::Usage));
        out.push_back(Chunk::Stop(if self.has_refused {
            StopReason::Refusal
        } else {
            stop
        }));
        Ok(())
    }
}

impl Decoder {
    fn choice(&mut self, choice: Choice<'_>, out: &mut VecDeque<Chunk>) -> Result<(), Fault> {
        if let Some(delta) = choice.delta.or(choice.message) {
            push_text(text_of(delta.content)?, out);
            if let Some(refusal) = delta.refusal.filter(|text| !text.is_empty()) {
                self.has_refused = true;
                push_text(refusal, out);
            }
            for call in delta.tool_calls.into_iter().flatten() {
                self.call(call, out)?;
            }
        }
        if let Some(reason) = choice.finish_reason.filter(|reason| !reason.is_empty()) {
            self.stop = Some(stop_reason(&reason));
        }
        Ok(())
    }

    fn call(&mut self, call: WireCall<'_>, out: &mut VecDeque<Chunk>) -> Result<(), Fault> {
        let id = call.id.filter(|id| !id.is_empty());
        let function = call.function;
        let (name, arguments) = function.map_or((None, None), |function| {
            (
                function.name.filter(|name| !name.is_empty()),
                function.arguments,
            )
        });
        let index = match self.known(call.index, id.as_deref(), name.is_some()) {
            Some(index) => index,
            None => {
                let name = name.ok_or_else(|| {
                    Fault::Garbled("a tool call begins without a name".to_owned())
                })?;
                self.begin(call.index, id, name, out)
            }
        };
        let fragment = arguments_of(arguments)?;
        if !fragment.is_empty() {
            out.push_back(Chunk::Arguments { index, fragment });
        }
        Ok(())
    }

    /// The call that a fragment goes on with. OpenAI tells calls apart by their place. Some servers leave it out,
    /// or give every call the place 0 and an id of its own.
    fn known(&self, place: Option<u64>, id: Option<&str>, has_name: bool) -> Option<usize> {
        let is_it = |begun: &Begun| match (place, id) {
            (Some(_), Some(id)) => begun.place == place && (begun.id == id || !has_name),
            (Some(_), None) => begun.place == place,
            (None, Some(id)) => begun.id == id,
            (None, None) => !has_name,
        };
        self.calls.iter().rposition(is_it)
    }

    fn begin(
        &mut self,
        place: Option<u64>,
        id: Option<String>,
        name: String,
        out: &mut VecDeque<Chunk>,
    ) -> usize {
        let index = self.calls.len();
        let id = id.unwrap_or_else(|| format!("call_{index}"));
        self.calls.push(Begun {
            place,
            id: id.clone(),
        });
        out.push_back(Chunk::ToolCall { index, id, name });
        index
    }
}

fn push_text(text: String, out: &mut VecDeque<Chunk>) {
    if !text.is_empty() {
        out.push_back(Chunk::Text(text));
    }
}

/// Text that is a string, or a list of parts.
fn text_of(raw: Option<&RawValue>) -> Result<String, Fault> {
    let raw = raw.map_or("", RawValue::get);
    match raw.as_bytes().first() {
        Some(b'"') => parsed(raw),
        Some(b'[') => {
            let parts: Vec<Part> = parsed(raw)?;
            Ok(parts.into_iter().filter_map(|part| part.text).collect())
        }
        _ => Ok(String::new()),
    }
}

/// Arguments are JSON inside a string; some servers send the object itself.
pub(crate) fn arguments_of(raw: Option<&RawValue>) -> Result<String, Fault> {
    let raw = raw.map_or("", RawValue::get);
    match raw.as_bytes().first() {
        Some(b'"') => parsed(raw),
        Some(b'{') => Ok(raw.to_owned()),
        _ => Ok(String::new()),
    }
}

/// A value that is JSON already, but whose text may still be none: half of a character, say.
fn parsed<'a, T: Deserialize<'a>>(raw: &'a str) -> Result<T, Fault> {
    serde_json::from_str(raw).map_err(|error| Fault::unreadable(&error, raw.as_bytes()))
}

fn reported(error: &RawValue) -> Fault {
    let value = serde_json::from_str(error.get()).unwrap_or_default();
    let report = report(&value);
    Fault::Reported(status(&report), report)
}

fn stop_reason(reason: &str) -> StopReason {
    match reason {
        "length" => StopReason::MaxTokens,
        "tool_calls" | "function_call" => StopReason::ToolUse,
        "content_filter" => StopReason::Refusal,
        // `stop` is said for a stop sequence too; and what is unknown is an end all the same.
        _ => StopReason::EndTurn,
    }
}

impl From<WireUsage> for Usage {
    fn from(usage: WireUsage) -> Self {
        let cached = usage
            .prompt_tokens_details
            .and_then(|details| details.cached_tokens);
        Self {
            input_tokens: Tokens(usage.prompt_tokens.unwrap_or_default()),
            output_tokens: Tokens(usage.completion_tokens.unwrap_or_default()),
            cached_tokens: Tokens(cached.unwrap_or_default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(events: &[serde_json::Value]) -> Vec<Chunk> {
        let mut decoder = Decoder::default();
        let mut out = VecDeque::new();
        for event in events {
            let bytes = event.to_string().into_bytes();
            decoder.read(&bytes, &mut out).unwrap();
        }
        decoder.end(&mut out).unwrap();
        out.into()
    }

    fn delta(delta: serde_json::Value) -> serde_json::Value {
        json!({"choices": [{"index": 0, "delta": delta, "finish_reason": null}]})
    }

    fn finish() -> serde_json::Value {
        json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    }

    fn call(index: usize, id: &str, arguments: &str) -> [Chunk; 2] {
        [
            Chunk::ToolCall {
                index,
                id: id.to_owned(),
                name: "t".to_owned(),
            },
            Chunk::Arguments {
                index,
                fragment: arguments.to_owned(),
            },
        ]
    }

    #[test]
    fn calls_without_ids_and_places_are_told_apart() {
        let one = json!({"function": {"name": "t", "arguments": "{}"}});
        let found = read(&[delta(json!({"tool_calls": [one, one]})), finish()]);
        let wanted = [call(0, "call_0", "{}"), call(1, "call_1", "{}")].concat();
        assert_eq!(found.get(..4), Some(wanted.as_slice()));
    }

    #[test]
    fn calls_that_all_claim_place_0_are_told_apart_by_id() {
        let one = |id: &str| {
            let function = json!({"name": "t", "arguments": {"a": 1}});
            delta(json!({"tool_calls": [{"index": 0, "id": id, "function": function}]}))
        };
        let found = read(&[one("a"), one("b"), finish()]);
        let wanted = [call(0, "a", "{\"a\":1}"), call(1, "b", "{\"a\":1}")].concat();
        assert_eq!(found.get(..4), Some(wanted.as_slice()));
    }

    #[test]
    fn a_server_that_repeats_id_and_name_begins_one_call() {
        let one = |arguments: &str| {
            let function = json!({"name": "t", "arguments": arguments});
            delta(json!({"tool_calls": [{"index": 3, "id": "a", "function": function}]}))
        };
        let found = read(&[one("{"), one("}"), finish()]);
        let begun = |chunk: &&Chunk| matches!(chunk, Chunk::ToolCall { .. });
        assert_eq!(found.iter().filter(begun).count(), 1);
    }

    #[test]
    fn content_may_be_null_or_parts_and_choices_may_be_missing() {
        let parts = json!([{"type": "text", "text": "a"}, {"type": "thinking"}, {"text": "b"}]);
        let found = read(&[
            json!({"choices": []}),
            json!({"choices": null, "usage": null}),
            delta(json!({"content": null, "tool_calls": null})),
            delta(json!({"content": parts})),
            finish(),
        ]);
        let wanted = [
            Chunk::Text("ab".to_owned()),
            Chunk::Stop(StopReason::EndTurn),
        ];
        assert_eq!(found, wanted);
    }

    #[test]
    fn a_refusal_is_said_and_marked() {
        let found = read(&[delta(json!({"refusal": "no"})), finish()]);
        let wanted = [
            Chunk::Text("no".to_owned()),
            Chunk::Stop(StopReason::Refusal),
        ];
        assert_eq!(found, wanted);
    }

    #[test]
    fn done_without_a_finish_is_cut_off() {
        let mut out = VecDeque::new();
        let read = Decoder::default().read(b" [DONE]", &mut out);
        assert!(matches!(read, Err(Fault::CutOff)));
    }
}
