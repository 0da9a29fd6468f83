//! Writes a messages request.

use domain::Tokens;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::dialogue::{self, Block as _, Spoken, messages};
use crate::json::Fields;
use crate::schema::spelled_out;
use crate::transcript::{Call, CallResult, turns};
use crate::{ChatRequest, Error};

/// The format demands a limit; this one is taken when nobody gives one.
const DEFAULT_MAX_TOKENS: Tokens = Tokens(8192);
/// Models that take no sampling settings any more.
const WITHOUT_SAMPLING: [&str; 7] = [
    "opus-4-7", "opus-4-8", "opus-5", "sonnet-5", "haiku-5", "fable", "mythos",
];
/// The name under which plans of answers are kept.
pub(super) const FORMAT: &str = "anthropic";

/// The body of the request.
pub(super) fn body(request: &ChatRequest<'_>) -> Result<Vec<u8>, Error> {
    let turns = turns(request.messages);
    let is_cached = request.config.prompt_cache.unwrap_or(true);
    let mut messages: Vec<Spoken<Block<'_>>> = messages(&turns, FORMAT, &request.config.model);
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

/// Whether a model takes temperature and its like.
pub(crate) fn takes_sampling(model: &str) -> bool {
    !WITHOUT_SAMPLING.iter().any(|name| model.contains(name))
}

struct Body<'a> {
    request: &'a ChatRequest<'a>,
    messages: Vec<Spoken<Block<'a>>>,
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
        if takes_sampling(&config.model) {
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

impl<'a> dialogue::Block<'a> for Block<'a> {
    fn text(text: &'a str) -> Self {
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

    fn kept(block: &'a Value) -> Self {
        Self::Kept(block)
    }
}

impl Block<'_> {
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
