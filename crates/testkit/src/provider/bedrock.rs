//! AWS Bedrock's Converse: `POST /model/{id}/converse`, and `converse-stream` in binary frames.

mod check;
mod frame;
pub(super) mod signature;

use axum::http::StatusCode;
use bytes::Bytes;
use serde_json::{Value, json};

use super::answer::{Answer, ErrorKind, ProviderError, Stop};
use super::face::{Arrived, Dialect};
use super::faults::Frames;
use super::request::{Call, CallResult, Message, Request, Role, Tool, items, string, text_of};
use frame::{event, exception};

pub use signature::{AWS_KEY_ID, aws_secret};

/// The dialect of Bedrock.
pub(super) struct Bedrock;

impl Dialect for Bedrock {
    fn check(&self, arrived: &Arrived<'_>) -> Result<(), ProviderError> {
        signature::check(arrived)?;
        check::check(arrived.raw)
    }

    fn model(&self, arrived: &Arrived<'_>) -> String {
        let escaped = arrived.path.split('/').nth(2).unwrap_or_default();
        signature::unescaped(escaped)
    }

    fn wants_stream(&self, arrived: &Arrived<'_>) -> bool {
        arrived.path.ends_with("/converse-stream")
    }

    fn messages(&self, raw: &Value) -> Vec<Message> {
        let system = Some(text_of(&raw["system"])).filter(|text| !text.is_empty());
        let system = system.map(|text| Message::text(Role::System, text));
        system
            .into_iter()
            .chain(items(raw, "messages").iter().flat_map(messages))
            .collect()
    }

    fn tools(&self, raw: &Value) -> Vec<Tool> {
        let tool = |raw: &Value| Tool {
            name: string(raw, "name"),
            description: string(raw, "description"),
            schema: raw["inputSchema"]["json"].clone(),
        };
        let all = items(&raw["toolConfig"], "tools").iter();
        all.filter_map(|entry| entry.get("toolSpec"))
            .map(tool)
            .collect()
    }

    fn whole(&self, request: &Request, answer: &Answer) -> Value {
        let blocks = blocks(request, answer);
        let content: Vec<Value> = blocks.into_iter().map(|block| block.whole).collect();
        json!({
            "output": {"message": {"role": "assistant", "content": content}},
            "stopReason": stop_reason(answer),
            "usage": usage(request, answer),
            "metrics": {"latencyMs": 7},
        })
    }

    fn frames(&self, request: &Request, answer: &Answer) -> Frames {
        let mut content = vec![event("messageStart", &json!({"role": "assistant"}))];
        for (index, block) in blocks(request, answer).into_iter().enumerate() {
            if let Some(start) = block.start {
                let start = json!({"contentBlockIndex": index, "start": start});
                content.push(event("contentBlockStart", &start));
            }
            let delta = |delta| {
                // AWS pads, so that the length of a frame does not tell what is in it.
                let padded = json!({"contentBlockIndex": index, "delta": delta, "p": "abcdefghij"});
                event("contentBlockDelta", &padded)
            };
            content.extend(block.deltas.into_iter().map(delta));
            let stop = json!({"contentBlockIndex": index});
            content.push(event("contentBlockStop", &stop));
        }
        let metadata = json!({"usage": usage(request, answer), "metrics": {"latencyMs": 7}});
        let finish = vec![
            event("messageStop", &json!({"stopReason": stop_reason(answer)})),
            event("metadata", &metadata),
        ];
        let more = json!({"contentBlockIndex": 0, "delta": {"text": "and so on "}});
        Frames {
            content,
            finish,
            more: event("contentBlockDelta", &more),
            opening: frame::opening(),
        }
    }

    fn stream_type(&self) -> &'static str {
        "application/vnd.amazon.eventstream"
    }

    fn error(&self, _number: usize, error: &ProviderError) -> (StatusCode, Value) {
        let (status, _, message) = meaning(error.kind);
        let message = error.message.as_deref().unwrap_or(message);
        (status, json!({ "message": message }))
    }

    fn error_event(&self, error: &ProviderError) -> Bytes {
        let (_, _, message) = meaning(error.kind);
        let message = error.message.as_deref().unwrap_or(message);
        exception(name(error), message)
    }

    fn headers(&self, number: usize) -> Vec<(&'static str, String)> {
        let id = format!("00000000-0000-4000-8000-{number:012}");
        vec![("x-amzn-requestid", id)]
    }

    /// The name of an error is in a header, with an address behind it.
    fn error_headers(&self, error: &ProviderError) -> Vec<(&'static str, String)> {
        let name = name(error);
        let address = "http://internal.amazon.com/coral/com.amazon.bedrock/";
        vec![("x-amzn-errortype", format!("{name}:{address}"))]
    }
}

/// Answers `GET /foundation-models`.
pub(super) fn models(names: &[String]) -> Value {
    let model = |name: &String| {
        json!({
            "modelArn": format!("arn:aws:bedrock:eu-central-1::foundation-model/{name}"),
            "modelId": name, "modelName": name, "providerName": "Testkit",
            "inputModalities": ["TEXT"], "outputModalities": ["TEXT"],
            "responseStreamingSupported": true, "inferenceTypesSupported": ["ON_DEMAND"],
        })
    };
    json!({"modelSummaries": names.iter().map(model).collect::<Vec<_>>()})
}

/// Checks who asks for the list.
pub(super) fn may_list(arrived: &Arrived<'_>) -> Result<(), ProviderError> {
    signature::check(arrived)
}

/// Reads one message; a user message that carries tool results becomes one message for each of them.
fn messages(raw: &Value) -> Vec<Message> {
    let blocks = items(raw, "content");
    let text = text_of(&raw["content"]);
    if raw["role"] == "assistant" {
        let calls = blocks.iter().filter_map(|block| block.get("toolUse"));
        let call = |call: &Value| Call {
            id: string(call, "toolUseId"),
            name: string(call, "name"),
            arguments: call["input"].clone(),
        };
        return vec![Message {
            tool_calls: calls.map(call).collect(),
            ..Message::text(Role::Assistant, text)
        }];
    }
    let result = |result: &Value| CallResult {
        id: string(result, "toolUseId"),
        text: text_of(&result["content"]),
        is_error: result["status"] == "error",
    };
    let results = blocks.iter().filter_map(|block| block.get("toolResult"));
    let mut messages: Vec<Message> = results
        .map(|raw| Message {
            tool_results: vec![result(raw)],
            ..Message::text(Role::Tool, "")
        })
        .collect();
    if messages.is_empty() || !text.is_empty() {
        messages.push(Message::text(Role::User, text));
    }
    messages
}

/// A content block, whole and as it is streamed.
struct Block {
    whole: Value,
    start: Option<Value>,
    deltas: Vec<Value>,
}

fn blocks(request: &Request, answer: &Answer) -> Vec<Block> {
    let mut blocks = Vec::new();
    if !answer.thinking.is_empty() {
        let thought = |text| json!({"reasoningContent": {"text": text}});
        let pieces = answer.pieces(&answer.thinking).into_iter();
        let mut deltas: Vec<Value> = pieces.map(thought).collect();
        deltas.push(json!({"reasoningContent": {"signature": "dGVzdGtpdA=="}}));
        let text = json!({"text": answer.thinking, "signature": "dGVzdGtpdA=="});
        blocks.push(Block {
            whole: json!({"reasoningContent": {"reasoningText": text}}),
            start: None,
            deltas,
        });
    }
    if !answer.text.is_empty() {
        let said = |text| json!({"text": text});
        blocks.push(Block {
            whole: json!({"text": answer.text}),
            start: None,
            deltas: answer.pieces(&answer.text).into_iter().map(said).collect(),
        });
    }
    for (index, call) in answer.tool_calls.iter().enumerate() {
        let text = call.arguments_text();
        let part = |json| json!({"toolUse": {"input": json}});
        let id = call.id("tooluse_tk", request, index);
        // Only a stream can carry arguments that are no JSON.
        let input = serde_json::from_str(&text).unwrap_or(Value::String(text.clone()));
        blocks.push(Block {
            whole: json!({"toolUse": {"toolUseId": id, "name": call.name, "input": input}}),
            start: Some(json!({"toolUse": {"toolUseId": id, "name": call.name}})),
            deltas: answer.pieces(&text).into_iter().map(part).collect(),
        });
    }
    blocks
}

fn stop_reason(answer: &Answer) -> &'static str {
    match answer.stopped() {
        Stop::EndTurn => "end_turn",
        Stop::ToolCalls => "tool_use",
        Stop::Length => "max_tokens",
        Stop::StopSequence => "stop_sequence",
        Stop::ContentFilter => "guardrail_intervened",
    }
}

fn usage(request: &Request, answer: &Answer) -> Value {
    let usage = answer.usage_for(request);
    json!({
        "inputTokens": usage.input,
        "outputTokens": usage.output,
        "totalTokens": usage.input + usage.cache_read + usage.cache_write + usage.output,
        "cacheReadInputTokens": usage.cache_read,
        "cacheWriteInputTokens": usage.cache_write,
    })
}

fn name(error: &ProviderError) -> &str {
    let (_, usual, _) = meaning(error.kind);
    error.code.as_deref().unwrap_or(usual)
}

/// Status, name and usual message of an error.
fn meaning(kind: ErrorKind) -> (StatusCode, &'static str, &'static str) {
    const INVALID: &str = "ValidationException";
    match kind {
        ErrorKind::Invalid => (StatusCode::BAD_REQUEST, INVALID, "Invalid request."),
        ErrorKind::ContextTooLong => (
            StatusCode::BAD_REQUEST,
            INVALID,
            "Input is too long for requested model.",
        ),
        ErrorKind::QuotaExceeded => (
            StatusCode::BAD_REQUEST,
            "ServiceQuotaExceededException",
            "Your request exceeds the service quota for your account.",
        ),
        ErrorKind::Unauthorized => (
            StatusCode::FORBIDDEN,
            "UnrecognizedClientException",
            "The security token included in the request is invalid.",
        ),
        ErrorKind::Forbidden => (
            StatusCode::FORBIDDEN,
            "AccessDeniedException",
            "You don't have access to the model with the specified model ID.",
        ),
        ErrorKind::NotFound => (
            StatusCode::NOT_FOUND,
            "ResourceNotFoundException",
            "Could not resolve the foundation model from the provided model identifier.",
        ),
        ErrorKind::TooLarge => (
            StatusCode::PAYLOAD_TOO_LARGE,
            "RequestEntityTooLargeException",
            "Request body is too large.",
        ),
        ErrorKind::RateLimited => (
            StatusCode::TOO_MANY_REQUESTS,
            "ThrottlingException",
            "Too many requests, please wait before trying again.",
        ),
        ErrorKind::Internal => (
            StatusCode::INTERNAL_SERVER_ERROR,
            "InternalServerException",
            "The system encountered an unexpected error during processing. Try your request again.",
        ),
        ErrorKind::Overloaded => (
            StatusCode::SERVICE_UNAVAILABLE,
            "ServiceUnavailableException",
            "Bedrock is unable to process your request.",
        ),
    }
}
