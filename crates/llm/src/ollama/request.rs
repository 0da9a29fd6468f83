//! Writes a chat request.

use std::borrow::Cow;

use domain::Reply;
use domain::definition::LlmConfig;
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Serialize, Serializer};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::json::Fields;
use crate::openai::Tools;
use crate::schema::spelled_out;
use crate::transcript::{Call, CallResult, Turn, turns};
use crate::{ChatRequest, Error};

/// The body of the request.
pub(super) fn body(request: &ChatRequest<'_>) -> Result<Vec<u8>, Error> {
    let body = Body {
        request,
        turns: turns(request.messages),
    };
    serde_json::to_vec(&body)
        .map_err(|error| Error::invalid("the request can't be written as JSON").because(error))
}

struct Body<'a> {
    request: &'a ChatRequest<'a>,
    turns: Vec<Turn<'a>>,
}

impl Serialize for Body<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let config = self.request.config;
        // `options` of the additional parameters are merged with ours further down.
        let mut fields = Fields::new(
            serializer.serialize_map(None)?,
            config.additional_params.as_ref(),
            &["model", "messages", "stream", "options"],
        );
        let has_tools = !self.request.tools.is_empty();
        let schema = self.request.output_schema;
        let system = spelled_out(self.request.system, schema.filter(|_| has_tools));
        fields.put("model", &config.model)?;
        fields.put("messages", &Messages(&system, &self.turns))?;
        fields.put("stream", &true)?;
        if has_tools {
            fields.put("tools", &Tools(self.request.tools))?;
        }
        let enforced = schema.filter(|_| !has_tools).map(Cow::Borrowed);
        let given = config.response_format.as_ref().map(format);
        fields.some("format", given.or(enforced))?;
        fields.put("options", &Options(self.request))?;
        fields.end()
    }
}

/// OpenAI's way of writing a response format, as Ollama writes it.
fn format(given: &Value) -> Cow<'_, Value> {
    match given.get("type").and_then(Value::as_str) {
        Some("json_object") => Cow::Owned(Value::from("json")),
        Some("json_schema") => {
            let schema = given.pointer("/json_schema/schema");
            Cow::Borrowed(schema.unwrap_or(given))
        }
        _ => Cow::Borrowed(given),
    }
}

struct Options<'a>(&'a ChatRequest<'a>);

impl Serialize for Options<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let config = self.0.config;
        let extra = config.additional_params.as_ref();
        let extra = extra.and_then(|params| params.get("options")?.as_object());
        let mut fields = Fields::new(serializer.serialize_map(None)?, extra, &[]);
        fields.some("num_ctx", config.num_ctx)?;
        fields.some("num_predict", num_predict(self.0))?;
        fields.some("repeat_penalty", config.repeat_penalty)?;
        sampling(&mut fields, config)?;
        fields.list("stop", &config.stop_sequences)?;
        fields.end()
    }
}

fn sampling<M: SerializeMap>(
    fields: &mut Fields<'_, M>,
    config: &LlmConfig,
) -> Result<(), M::Error> {
    fields.some("temperature", config.temperature)?;
    fields.some("top_k", config.top_k)?;
    fields.some("top_p", config.top_p)?;
    fields.some("frequency_penalty", config.frequency_penalty)?;
    fields.some("presence_penalty", config.presence_penalty)?;
    fields.some("seed", config.seed)
}

/// The smaller of Ollama's own setting and the limit that all providers share; below 1 Ollama means no limit.
fn num_predict(request: &ChatRequest<'_>) -> Option<i64> {
    let own = request.config.num_predict.map(i64::from);
    let limit = request.longest_answer();
    let limit = limit.map(|tokens| i64::try_from(tokens.0).unwrap_or(i64::MAX));
    match (own, limit) {
        (Some(own), Some(limit)) if own > 0 => Some(own.min(limit)),
        (own, limit) => limit.or(own),
    }
}

struct Messages<'a>(&'a str, &'a [Turn<'a>]);

impl Serialize for Messages<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(None)?;
        if !self.0.trim().is_empty() {
            list.serialize_element(&said("system", self.0))?;
        }
        for turn in self.1 {
            match turn {
                Turn::User(text) => list.serialize_element(&said("user", text))?,
                Turn::Assistant { reply, calls } => list.serialize_element(&Wire {
                    thinking: thoughts(reply),
                    tool_calls: calls.iter().map(called).collect(),
                    ..said("assistant", &reply.text)
                })?,
                Turn::Results(results) => {
                    for result in results {
                        list.serialize_element(&returned(result))?;
                    }
                }
            }
        }
        list.end()
    }
}

fn thoughts(reply: &Reply) -> Option<&str> {
    let data = reply.provider_data.as_ref()?;
    data.pointer("/ollama/thinking")?.as_str()
}

#[derive(Serialize)]
struct Wire<'a> {
    role: &'static str,
    content: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    thinking: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<WireCall<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_call_id: Option<&'a str>,
}

const fn said<'a>(role: &'static str, content: &'a str) -> Wire<'a> {
    Wire {
        role,
        content,
        thinking: None,
        tool_calls: Vec::new(),
        tool_name: None,
        tool_call_id: None,
    }
}

fn returned<'a>(result: &'a CallResult<'_>) -> Wire<'a> {
    Wire {
        tool_name: Some(&result.name),
        tool_call_id: Some(&result.id),
        ..said("tool", result.content)
    }
}

#[derive(Serialize)]
struct WireCall<'a> {
    id: &'a str,
    function: WireFunction<'a>,
}

#[derive(Serialize)]
struct WireFunction<'a> {
    name: &'a str,
    arguments: &'a RawValue,
}

fn called<'a>(call: &'a Call<'_>) -> WireCall<'a> {
    WireCall {
        id: &call.id,
        function: WireFunction {
            name: &call.name,
            arguments: &call.arguments,
        },
    }
}
