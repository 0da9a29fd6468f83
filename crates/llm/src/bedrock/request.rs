//! Writes a Converse request.

use std::collections::BTreeSet;

use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use crate::anthropic::takes_sampling;
use crate::dialogue::{self, Spoken, messages};
use crate::json::Fields;
use crate::schema::spelled_out;
use crate::transcript::{Call, CallResult, Turn, turns};
use crate::{ChatRequest, Error};

/// The name under which plans of answers are kept.
pub(super) const FORMAT: &str = "bedrock";
/// Converse's own fields that an agent may set by `additional_params`. All others are the model's.
const CONVERSES: [&str; 7] = [
    "additionalModelResponseFieldPaths",
    "guardrailConfig",
    "outputConfig",
    "performanceConfig",
    "projectIdentifier",
    "requestMetadata",
    "serviceTier",
];
/// What stands for a result of blanks, which the format refuses.
const NO_OUTPUT: &str = "(no output)";
/// What the model is told of a tool that it called earlier and that is not offered now.
const NOT_OFFERED: &str = "Not available any more. Do not call it.";
/// Models of Anthropic without a cache.
const UNCACHED: [&str; 6] = [
    "claude-v2",
    "claude-instant",
    "claude-3-haiku",
    "claude-3-opus",
    "claude-3-sonnet",
    "claude-3-5-sonnet-20240620",
];

/// Whose model it is, as far as requests differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    Claude,
    Nova,
    /// Another's, or an ARN that does not tell.
    Other,
}

impl Family {
    fn of(model: &str) -> Self {
        if model.contains("claude") {
            Self::Claude
        } else if model.contains("amazon.nova") {
            Self::Nova
        } else {
            Self::Other
        }
    }
}

/// The body of the request.
pub(super) fn body(request: &ChatRequest<'_>) -> Result<Vec<u8>, Error> {
    let turns = turns(request.messages);
    let model = &request.config.model;
    let family = Family::of(model);
    let can_cache = family != Family::Other && !UNCACHED.iter().any(|name| model.contains(name));
    let is_cached = request.config.prompt_cache.unwrap_or(can_cache);
    let mut messages: Vec<Spoken<Block<'_>>> = messages(&turns, FORMAT, model);
    for message in &mut messages {
        for block in &mut message.content {
            block.fit(family);
        }
    }
    if is_cached && let Some(last) = messages.last_mut() {
        last.content.push(Block::Own(OwnBlock::CachePoint(MARK)));
    }
    let body = Body {
        request,
        family,
        tools: tools(request, &turns, is_cached && family != Family::Nova),
        messages,
        is_cached,
    };
    serde_json::to_vec(&body)
        .map_err(|error| Error::invalid("the request can't be written as JSON").because(error))
}

struct Body<'a> {
    request: &'a ChatRequest<'a>,
    family: Family,
    tools: Vec<Tool<'a>>,
    messages: Vec<Spoken<Block<'a>>>,
    is_cached: bool,
}

impl Serialize for Body<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let config = self.request.config;
        let (own, fields_of_model) = self.additional();
        let mut fields = Fields::new(serializer.serialize_map(None)?, Some(&own), &[]);
        // What changes least comes first: the cache works on the beginning that two requests share.
        if !self.tools.is_empty() {
            let choice = config.additional_params.as_ref();
            let choice = choice.and_then(|params| params.get("toolChoice"));
            fields.put(
                "toolConfig",
                &ToolConfig {
                    tools: &self.tools,
                    tool_choice: choice,
                },
            )?;
        }
        let system = spelled_out(self.request.system, self.request.output_schema);
        if !system.trim().is_empty() {
            let mut blocks = vec![json!({ "text": system })];
            if self.is_cached {
                blocks.push(json!({ "cachePoint": MARK }));
            }
            fields.put("system", &blocks)?;
        }
        fields.put("messages", &self.messages)?;
        let inference = self.inference();
        if !inference.is_empty() {
            fields.put("inferenceConfig", &inference)?;
        }
        if !fields_of_model.is_empty() {
            fields.put("additionalModelRequestFields", &fields_of_model)?;
        }
        fields.end()
    }
}

impl Body<'_> {
    fn inference(&self) -> Map<String, Value> {
        let config = self.request.config;
        let mut all = Map::new();
        if let Some(limit) = self.request.longest_answer() {
            all.insert("maxTokens".to_owned(), json!(limit));
        }
        if !config.stop_sequences.is_empty() {
            all.insert("stopSequences".to_owned(), json!(config.stop_sequences));
        }
        if takes_sampling(&config.model) {
            let sampling = [("temperature", config.temperature), ("topP", config.top_p)];
            for (name, value) in sampling {
                if let Some(value) = value {
                    all.insert(name.to_owned(), json!(value));
                }
            }
        }
        all
    }

    /// What the agent adds: to the request, and to the fields that only its model knows.
    fn additional(&self) -> (Map<String, Value>, Map<String, Value>) {
        let config = self.request.config;
        let (mut own, mut models) = (Map::new(), Map::new());
        if let Some(top_k) = config.top_k.filter(|_| takes_sampling(&config.model)) {
            match self.family {
                Family::Nova => models.insert("inferenceConfig".to_owned(), json!({"topK": top_k})),
                Family::Claude | Family::Other => models.insert("top_k".to_owned(), json!(top_k)),
            };
        }
        for (name, value) in config.additional_params.iter().flatten() {
            match (name.as_str(), value) {
                ("additionalModelRequestFields", Value::Object(members)) => {
                    models.extend(members.clone());
                }
                ("toolChoice", _) => {}
                (name, _) if CONVERSES.contains(&name) => {
                    own.insert(name.to_owned(), value.clone());
                }
                _ => drop(models.insert(name.clone(), value.clone())),
            }
        }
        (own, models)
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ToolConfig<'a> {
    tools: &'a [Tool<'a>],
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_choice: Option<&'a Value>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
enum Tool<'a> {
    #[serde(rename_all = "camelCase")]
    ToolSpec {
        name: &'a str,
        #[serde(skip_serializing_if = "str::is_empty")]
        description: &'a str,
        input_schema: Schema<'a>,
    },
    CachePoint(CachePoint),
}

#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum Schema<'a> {
    Json(&'a Value),
    /// Of a tool that is not offered.
    #[serde(rename = "json")]
    Any(AnyObject),
}

#[derive(Serialize)]
struct AnyObject {
    r#type: &'static str,
}

/// The tools that are offered. Where the conversation has calls the format demands tools, even if none are offered: then
/// it gets the names that were called.
fn tools<'a>(request: &ChatRequest<'a>, turns: &'a [Turn<'a>], is_cached: bool) -> Vec<Tool<'a>> {
    let mut tools: Vec<Tool<'a>> = request
        .tools
        .iter()
        .map(|tool| Tool::ToolSpec {
            name: tool.name,
            description: tool.description.trim(),
            input_schema: Schema::Json(tool.parameters),
        })
        .collect();
    if tools.is_empty() {
        let called: BTreeSet<&str> = turns
            .iter()
            .filter_map(|turn| match turn {
                Turn::Assistant { calls, .. } => Some(calls),
                Turn::User(_) | Turn::Results(_) => None,
            })
            .flatten()
            .map(|call| call.name.as_ref())
            .collect();
        tools.extend(called.into_iter().map(|name| Tool::ToolSpec {
            name,
            description: NOT_OFFERED,
            input_schema: Schema::Any(AnyObject { r#type: "object" }),
        }));
    }
    if is_cached && !tools.is_empty() {
        tools.push(Tool::CachePoint(MARK));
    }
    tools
}

/// A mark: the prompt up to here is worth caching.
#[derive(Serialize)]
struct CachePoint {
    r#type: &'static str,
}

const MARK: CachePoint = CachePoint { r#type: "default" };

#[derive(Serialize)]
#[serde(untagged)]
enum Block<'a> {
    Own(OwnBlock<'a>),
    /// A block of an earlier answer, as it was.
    Kept(&'a Value),
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
enum OwnBlock<'a> {
    Text(&'a str),
    #[serde(rename_all = "camelCase")]
    ToolUse {
        tool_use_id: &'a str,
        name: &'a str,
        input: &'a RawValue,
    },
    #[serde(rename_all = "camelCase")]
    ToolResult {
        tool_use_id: &'a str,
        content: [TextOfResult<'a>; 1],
        #[serde(skip_serializing_if = "Option::is_none")]
        status: Option<&'static str>,
    },
    CachePoint(CachePoint),
}

#[derive(Serialize)]
struct TextOfResult<'a> {
    text: &'a str,
}

impl Block<'_> {
    /// Only some models take the status of a result.
    fn fit(&mut self, family: Family) {
        if let Self::Own(OwnBlock::ToolResult { status, .. }) = self
            && family == Family::Other
        {
            *status = None;
        }
    }
}

impl<'a> dialogue::Block<'a> for Block<'a> {
    fn text(text: &'a str) -> Self {
        Self::Own(OwnBlock::Text(text))
    }

    fn call(call: &'a Call<'_>) -> Self {
        Self::Own(OwnBlock::ToolUse {
            tool_use_id: &call.id,
            name: &call.name,
            input: &call.arguments,
        })
    }

    fn result(result: &'a CallResult<'_>) -> Self {
        let is_blank = result.content.trim().is_empty();
        let text = if is_blank { NO_OUTPUT } else { result.content };
        Self::Own(OwnBlock::ToolResult {
            tool_use_id: &result.id,
            content: [TextOfResult { text }],
            status: result.is_error.then_some("error"),
        })
    }

    fn kept(block: &'a Value) -> Self {
        Self::Kept(block)
    }
}
