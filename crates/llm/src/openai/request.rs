//! Writes a chat completion request.

use serde::ser::SerializeSeq;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::json::Fields;
use crate::schema::{is_strict, spelled_out};
use crate::transcript::{Call, CallResult, Turn, turns};
use crate::{ChatRequest, Error, ToolSpec};

/// Models that think first: they take no sampling settings, and know only `max_completion_tokens`.
const THINKERS: [&str; 4] = ["o1", "o3", "o4", "gpt-5"];
/// Models from before schemas could be enforced.
const WITHOUT_SCHEMAS: [&str; 4] = ["gpt-3.5", "gpt-4-", "gpt-4o-2024-05-13", "chatgpt-"];
/// OpenAI takes no more stop sequences.
const MOST_STOPS: usize = 4;

/// The body of the request. `is_own` tells OpenAI itself from a compatible server.
pub(super) fn body(request: &ChatRequest<'_>, is_own: bool) -> Result<Vec<u8>, Error> {
    let body = Body {
        request,
        is_own,
        turns: turns(request.messages),
    };
    serde_json::to_vec(&body)
        .map_err(|error| Error::invalid("the request can't be written as JSON").because(error))
}

struct Body<'a> {
    request: &'a ChatRequest<'a>,
    is_own: bool,
    turns: Vec<Turn<'a>>,
}

impl Body<'_> {
    /// The schema that the server is to enforce.
    fn enforced(&self) -> Option<Value> {
        let schema = self.request.output_schema?;
        let model = &self.request.config.model;
        let can = self.is_own
            && model != "gpt-4"
            && !WITHOUT_SCHEMAS.iter().any(|name| model.starts_with(name));
        let is_object = schema.get("type").and_then(Value::as_str) == Some("object");
        (can && is_object).then(|| {
            json!({"type": "json_schema", "json_schema": {
                "name": "answer", "schema": schema, "strict": is_strict(schema)
            }})
        })
    }
}

impl Serialize for Body<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let config = self.request.config;
        let is_thinker = THINKERS.iter().any(|name| config.model.starts_with(name));
        let mut fields = Fields::new(
            serializer.serialize_map(None)?,
            config.additional_params.as_ref(),
            &["model", "messages", "stream"],
        );
        fields.put("model", &config.model)?;
        let given = config.response_format.as_ref();
        let enforced = self.enforced().filter(|_| given.is_none());
        let told = self.request.output_schema.filter(|_| enforced.is_none());
        let system = spelled_out(self.request.system, told);
        fields.put("messages", &Messages(&system, &self.turns))?;
        fields.put("stream", &true)?;
        fields.put("stream_options", &json!({"include_usage": true}))?;
        if !self.request.tools.is_empty() {
            fields.put("tools", &Tools(self.request.tools))?;
        }
        fields.some("response_format", given.or(enforced.as_ref()))?;
        let limit = if self.is_own || is_thinker {
            "max_completion_tokens"
        } else {
            "max_tokens"
        };
        fields.some(limit, self.request.longest_answer())?;
        if !is_thinker {
            fields.some("temperature", config.temperature)?;
            fields.some("top_p", config.top_p)?;
            fields.some("frequency_penalty", config.frequency_penalty)?;
            fields.some("presence_penalty", config.presence_penalty)?;
            let stops = config.stop_sequences.get(..MOST_STOPS);
            fields.list("stop", stops.unwrap_or(&config.stop_sequences))?;
        }
        if !self.is_own {
            fields.some("top_k", config.top_k)?;
        }
        fields.some("seed", config.seed)?;
        fields.end()
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
                    role: "assistant",
                    content: Some(reply.text.as_str()).filter(|text| !text.is_empty()),
                    tool_calls: calls.iter().map(called).collect(),
                    tool_call_id: None,
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

#[derive(Serialize)]
struct Wire<'a> {
    role: &'static str,
    content: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<WireCall<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_call_id: Option<&'a str>,
}

const fn said<'a>(role: &'static str, text: &'a str) -> Wire<'a> {
    Wire {
        role,
        content: Some(text),
        tool_calls: Vec::new(),
        tool_call_id: None,
    }
}

fn returned<'a>(result: &'a CallResult<'_>) -> Wire<'a> {
    Wire {
        tool_call_id: Some(&result.id),
        ..said("tool", result.content)
    }
}

#[derive(Serialize)]
struct WireCall<'a> {
    id: &'a str,
    r#type: &'static str,
    function: WireFunction<'a>,
}

#[derive(Serialize)]
struct WireFunction<'a> {
    name: &'a str,
    #[serde(serialize_with = "as_text")]
    arguments: &'a RawValue,
}

fn called<'a>(call: &'a Call<'_>) -> WireCall<'a> {
    WireCall {
        id: &call.id,
        r#type: "function",
        function: WireFunction {
            name: &call.name,
            arguments: &call.arguments,
        },
    }
}

fn as_text<S: Serializer>(arguments: &&RawValue, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(arguments.get())
}

/// Tools as OpenAI and Ollama want them.
pub(crate) struct Tools<'a>(pub(crate) &'a [ToolSpec<'a>]);

impl Serialize for Tools<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Tool<'a> {
            r#type: &'static str,
            function: Function<'a>,
        }
        #[derive(Serialize)]
        struct Function<'a> {
            name: &'a str,
            description: &'a str,
            parameters: &'a Value,
        }
        serializer.collect_seq(self.0.iter().map(|tool| Tool {
            r#type: "function",
            function: Function {
                name: tool.name,
                description: tool.description,
                parameters: tool.parameters,
            },
        }))
    }
}
