//! A conversation as the formats want it that know two sides only: user and model in turn, the user first, all results
//! of a turn in one message, each message a list of blocks. Anthropic's messages and Bedrock's Converse are such.
//!
//! An answer with thinking keeps a plan of its blocks in [`Reply::provider_data`], by which it is put together again
//! for the model that wrote it: another model could not read its thoughts.

use domain::Reply;
use serde::Serialize;
use serde_json::{Value, json};

use crate::transcript::{Call, CallResult, Turn};

/// What opens a conversation whose first message is the model's: the formats demand the user's.
const OPENING: &str = "(the conversation goes on)";

/// A block of a message, as one format writes it.
pub(crate) trait Block<'a>: Sized {
    /// Words.
    fn text(text: &'a str) -> Self;
    /// A call of a tool.
    fn call(call: &'a Call<'_>) -> Self;
    /// The result of a call.
    fn result(result: &'a CallResult<'_>) -> Self;
    /// A block of an earlier answer, as it was.
    fn kept(block: &'a Value) -> Self;
}

/// One message.
#[derive(Serialize)]
pub(crate) struct Spoken<B> {
    /// `user` or `assistant`.
    pub(crate) role: &'static str,
    /// Never empty.
    pub(crate) content: Vec<B>,
}

/// The messages for `model`, in the format whose plans stand under `format`.
pub(crate) fn messages<'a, B: Block<'a>>(
    turns: &'a [Turn<'a>],
    format: &str,
    model: &str,
) -> Vec<Spoken<B>> {
    let mut messages: Vec<Spoken<B>> = Vec::with_capacity(turns.len() + 1);
    for turn in turns {
        let (role, blocks) = match turn {
            Turn::User(text) => ("user", vec![B::text(text)]),
            Turn::Results(results) => ("user", results.iter().map(B::result).collect()),
            Turn::Assistant { reply, calls } => ("assistant", answer(reply, calls, format, model)),
        };
        match messages.last_mut() {
            Some(last) if last.role == role => last.content.extend(blocks),
            None if role == "assistant" => {
                let content = vec![B::text(OPENING)];
                messages.push(Spoken {
                    role: "user",
                    content,
                });
                messages.push(Spoken {
                    role,
                    content: blocks,
                });
            }
            _ => messages.push(Spoken {
                role,
                content: blocks,
            }),
        }
    }
    messages
}

/// The blocks of an earlier answer: with its thinking in its place if this model wrote it.
fn answer<'a, B: Block<'a>>(
    reply: &'a Reply,
    calls: &'a [Call<'a>],
    format: &str,
    model: &str,
) -> Vec<B> {
    let kept = reply
        .provider_data
        .as_ref()
        .and_then(|data| data.get(format))
        .filter(|kept| kept.get("model").and_then(Value::as_str) == Some(model))
        .and_then(|kept| kept.get("blocks"))
        .and_then(Value::as_array);
    kept.and_then(|kept| rebuilt(reply, calls, kept))
        .unwrap_or_else(|| plain(&reply.text, calls))
}

fn plain<'a, B: Block<'a>>(text: &'a str, calls: &'a [Call<'a>]) -> Vec<B> {
    let text = text.trim_end();
    let text = Some(text).filter(|text| !text.is_empty()).map(B::text);
    text.into_iter().chain(calls.iter().map(B::call)).collect()
}

/// Follows a [`Plan`]. One that does not fit the answer is not followed.
fn rebuilt<'a, B: Block<'a>>(
    reply: &'a Reply,
    calls: &'a [Call<'a>],
    kept: &'a [Value],
) -> Option<Vec<B>> {
    let mut blocks = Vec::with_capacity(kept.len());
    let mut text = reply.text.as_str();
    let mut called = 0;
    for step in kept {
        if let Some(bytes) = step.get("text").and_then(Value::as_u64) {
            let (now, later) = text.split_at_checked(usize::try_from(bytes).ok()?)?;
            text = later;
            // A block of blanks is refused, and means nothing.
            blocks.extend(Some(now).filter(|now| !now.trim().is_empty()).map(B::text));
        } else if let Some(index) = step.get("call").and_then(Value::as_u64) {
            blocks.push(B::call(calls.get(usize::try_from(index).ok()?)?));
            called += 1;
        } else {
            blocks.push(B::kept(step));
        }
    }
    (text.is_empty() && called == calls.len()).then_some(blocks)
}

/// How an answer is to be put together again, should it hold thinking: `{"text": bytes}`, `{"call": index}`, or a block
/// as it was.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    steps: Vec<Value>,
    has_thoughts: bool,
}

impl Plan {
    /// A stretch of text of this many bytes.
    pub(crate) fn text(&mut self, bytes: usize) {
        self.steps.push(json!({ "text": bytes }));
    }

    /// The call at this place.
    pub(crate) fn call(&mut self, index: usize) {
        self.steps.push(json!({ "call": index }));
    }

    /// A thought, as the format writes it.
    pub(crate) fn thought(&mut self, block: Value) {
        self.has_thoughts = true;
        self.steps.push(block);
    }

    /// What is kept with the answer of `model`; nothing if it holds no thoughts.
    pub(crate) fn kept(&mut self, format: &str, model: &str) -> Option<Value> {
        let blocks = std::mem::take(&mut self.steps);
        self.has_thoughts
            .then(|| json!({format: {"model": model, "blocks": blocks}}))
    }
}
