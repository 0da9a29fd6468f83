//! Writes a messages request.

use domain::{Reply, Tokens};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::json::Fields;
use crate::schema::spelled_out;
use crate::transcript::{Call, CallResult, Turn, turns};
use crate::{ChatRequest, Error};

/// The format demands a limit; this one is taken when nobody gives one.
const DEFAULT_MAX_TOKENS: Tokens = Tokens(8192);
/// Models that take no sampling settings any more.
const WITHOUT_SAMPLING: [&str; 7] = [
    "opus-4-7", "opus-4-8", "opus-5", "sonnet-5", "haiku-5", "fable", "mythos",
];
/// What opens a conversation whose first message is the model's: the format demands the user's.
const OPENING: &str = "(the conversation goes on)";

/// The body of the request.
pub(super) fn body(request: &ChatRequest<'_>) -> Result<Vec<u8>, Error> {
    let turns = turns(request.messages);
    let is_cached = request.config.prompt_cache.unwrap_or(true);
    let mut messages = messages(&turns, &request.config.model);
    if let Some(block) = messages.last_mut().and_then(|last| last.content.last_mut()) {
        block.mark(is_cached);
    }
    let body = Body {
        request,
        messages,
        cache_control: CacheControl::when(is_cached),
    };
    serde_json::to_vec(&body)
        .map_err(|error| Error::invalid("the request can't be written as JSON").because(error))
}

struct Body<'a> {
    request: &'a ChatRequest<'a>,
    messages: Vec<Spoken<'a>>,
    cache_control: Option<CacheControl>,
}

impl Serialize for Body<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let config = self.request.config;
        let mut fields = Fields::new(
            serializer.serialize_map(None)?,
            config.additional_params.as_ref(),
            &["model", "messages", "stream"],
        );
        fields.put("model", &config.model)?;
        let limit = self.request.longest_answer().unwrap_or(DEFAULT_MAX_TOKENS);
        fields.put("max_tokens", &limit)?;
        fields.put("stream", &true)?;
        // What changes least comes first: the cache works on the beginning that two requests share.
        if !self.request.tools.is_empty() {
            fields.put("tools", &self.tools())?;
        }
        let system = spelled_out(self.request.system, self.request.output_schema);
        if !system.trim().is_empty() {
            fields.put("system", &[Block::text(&system).with(self.cache_control)])?;
        }
        fields.put("messages", &self.messages)?;
        fields.list("stop_sequences", &config.stop_sequences)?;
        if !WITHOUT_SAMPLING
            .iter()
            .any(|name| config.model.contains(name))
        {
            fields.some("temperature", config.temperature)?;
            fields.some("top_p", config.top_p)?;
            fields.some("top_k", config.top_k)?;
        }
        fields.end()
    }
}

impl Body<'_> {
    fn tools(&self) -> Vec<Tool<'_>> {
        let last = self.request.tools.len().saturating_sub(1);
        let tools = self.request.tools.iter().enumerate();
        tools
            .map(|(at, tool)| Tool {
                name: tool.name,
                description: tool.description,
                input_schema: tool.parameters,
                cache_control: self.cache_control.filter(|_| at == last),
            })
            .collect()
    }
}

#[derive(Serialize)]
struct Tool<'a> {
    name: &'a str,
    description: &'a str,
    input_schema: &'a Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    cache_control: Option<CacheControl>,
}

/// A mark: the prompt up to here is worth caching.
#[derive(Clone, Copy)]
struct CacheControl;

impl CacheControl {
    fn when(is_cached: bool) -> Option<Self> {
        is_cached.then_some(Self)
    }
}

impl Serialize for CacheControl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry("type", "ephemeral")?;
        map.end()
    }
}

#[derive(Serialize)]
struct Spoken<'a> {
    role: &'static str,
    content: Vec<Block<'a>>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Block<'a> {
    Own(OwnBlock<'a>),
    /// A block of an earlier answer, as it was.
    Kept(&'a Value),
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum OwnBlock<'a> {
    Text {
        text: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        cache_control: Option<CacheControl>,
    },
    ToolUse {
        id: &'a str,
        name: &'a str,
        input: &'a RawValue,
    },
    ToolResult {
        tool_use_id: &'a str,
        content: &'a str,
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        is_error: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        cache_control: Option<CacheControl>,
    },
}

impl<'a> Block<'a> {
    const fn text(text: &'a str) -> Self {
        Self::Own(OwnBlock::Text {
            text,
            cache_control: None,
        })
    }

    fn call(call: &'a Call<'_>) -> Self {
        Self::Own(OwnBlock::ToolUse {
            id: &call.id,
            name: &call.name,
            input: &call.arguments,
        })
    }

    fn result(result: &'a CallResult<'_>) -> Self {
        Self::Own(OwnBlock::ToolResult {
            tool_use_id: &result.id,
            content: result.content,
            is_error: result.is_error,
            cache_control: None,
        })
    }

    fn with(mut self, mark: Option<CacheControl>) -> Self {
        self.mark(mark.is_some());
        self
    }

    fn mark(&mut self, is_cached: bool) {
        if let Self::Own(
            OwnBlock::Text { cache_control, .. } | OwnBlock::ToolResult { cache_control, .. },
        ) = self
        {
            *cache_control = CacheControl::when(is_cached);
        }
    }
}

/// The messages: user and model in turn, the user first, all results of a turn in one message.
fn messages<'a>(turns: &'a [Turn<'a>], model: &str) -> Vec<Spoken<'a>> {
    let mut messages: Vec<Spoken<'a>> = Vec::with_capacity(turns.len() + 1);
    for turn in turns {
        let (role, blocks) = match turn {
            Turn::User(text) => ("user", vec![Block::text(text)]),
            Turn::Results(results) => ("user", results.iter().map(Block::result).collect()),
            Turn::Assistant { reply, calls } => ("assistant", answer(reply, calls, model)),
        };
        match messages.last_mut() {
            Some(last) if last.role == role => last.content.extend(blocks),
            None if role == "assistant" => {
                let content = vec![Block::text(OPENING)];
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
fn answer<'a>(reply: &'a Reply, calls: &'a [Call<'a>], model: &str) -> Vec<Block<'a>> {
    let kept = reply
        .provider_data
        .as_ref()
        .and_then(|data| data.get("anthropic"))
        .filter(|kept| kept.get("model").and_then(Value::as_str) == Some(model))
        .and_then(|kept| kept.get("blocks"))
        .and_then(Value::as_array);
    kept.and_then(|kept| rebuilt(reply, calls, kept))
        .unwrap_or_else(|| plain(&reply.text, calls))
}

fn plain<'a>(text: &'a str, calls: &'a [Call<'a>]) -> Vec<Block<'a>> {
    let text = text.trim_end();
    let text = Some(text).filter(|text| !text.is_empty()).map(Block::text);
    text.into_iter()
        .chain(calls.iter().map(Block::call))
        .collect()
}

/// Follows the plan that [`super::stream`] left: `{"text": bytes}`, `{"call": index}`, or a block as it was. A
/// plan that does not fit the answer is not followed.
fn rebuilt<'a>(
    reply: &'a Reply,
    calls: &'a [Call<'a>],
    kept: &'a [Value],
) -> Option<Vec<Block<'a>>> {
    let mut blocks = Vec::with_capacity(kept.len());
    let mut text = reply.text.as_str();
    let mut called = 0;
    for step in kept {
        if let Some(bytes) = step.get("text").and_then(Value::as_u64) {
            let (now, later) = text.split_at_checked(usize::try_from(bytes).ok()?)?;
            text = later;
            // A block of blanks is refused, and means nothing.
            blocks.extend(
                Some(now)
                    .filter(|now| !now.trim().is_empty())
                    .map(Block::text),
            );
        } else if let Some(index) = step.get("call").and_then(Value::as_u64) {
            blocks.push(Block::call(calls.get(usize::try_from(index).ok()?)?));
            called += 1;
        } else {
            blocks.push(Block::Kept(step));
        }
    }
    (text.is_empty() && called == calls.len()).then_some(blocks)
}

/// The plan for a stretch of text.
pub(super) fn text_step(bytes: usize) -> Value {
    json!({ "text": bytes })
}

/// The plan for a call.
pub(super) fn call_step(index: usize) -> Value {
    json!({ "call": index })
}
