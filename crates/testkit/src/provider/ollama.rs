//! Ollama chat: `POST /api/chat`, whole or as newline-delimited JSON.

mod check;

use axum::http::StatusCode;
use bytes::Bytes;
use serde_json::{Value, json};

use super::answer::{Answer, ErrorKind, ProviderError, Stop};
use super::face::{Arrived, Dialect};
use super::faults::Frames;
use super::openai::function;
use super::request::{Call, CallResult, Message, Request, Role, Tool, items, string};

/// The dialect of Ollama.
pub(super) struct Ollama;

const CREATED: &str = "2025-10-09T08:53:20.123456789Z";

impl Dialect for Ollama {
    fn check(&self, arrived: &Arrived<'_>) -> Result<(), ProviderError> {
        check::check(arrived.raw)
    }

    fn wants_stream(&self, arrived: &Arrived<'_>) -> bool {
        arrived.raw["stream"].as_bool().unwrap_or(true)
    }

    fn messages(&self, raw: &Value) -> Vec<Message> {
        items(raw, "messages").iter().map(message).collect()
    }

    fn tools(&self, raw: &Value) -> Vec<Tool> {
        items(raw, "tools")
            .iter()
            .map(|tool| function(&tool["function"]))
            .collect()
    }

    fn whole(&self, request: &Request, answer: &Answer) -> Value {
        let mut message = json!({"role": "assistant", "content": answer.text});
        if !answer.thinking.is_empty() {
            message["thinking"] = json!(answer.thinking);
        }
        if !answer.tool_calls.is_empty() {
            message["tool_calls"] = tool_calls(request, answer);
        }
        let mut line = part(request, message);
        finish(&mut line, request, answer);
        line
    }

    fn frames(&self, request: &Request, answer: &Answer) -> Frames {
        let frame = |message: Value| line(&part(request, message));
        let thought = |text| frame(json!({"role": "assistant", "content": "", "thinking": text}));
        let said = |text| frame(json!({"role": "assistant", "content": text}));
        let mut content: Vec<Bytes> = answer
            .pieces(&answer.thinking)
            .into_iter()
            .map(thought)
            .collect();
        content.extend(answer.pieces(&answer.text).into_iter().map(said));
        if let Value::Array(calls) = tool_calls(request, answer) {
            let called =
                |call| frame(json!({"role": "assistant", "content": "", "tool_calls": [call]}));
            content.extend(calls.into_iter().map(called));
        }
        let mut last = part(request, json!({"role": "assistant", "content": ""}));
        finish(&mut last, request, answer);
        Frames {
            content,
            finish: vec![line(&last)],
            more: said("and so on "),
            opening: "{\"model\":\"".into(),
        }
    }

    fn stream_type(&self) -> &'static str {
        "application/x-ndjson"
    }

    fn error(&self, _number: usize, error: &ProviderError) -> (StatusCode, Value) {
        (meaning(error.kind).0, error_body(error))
    }

    fn error_event(&self, error: &ProviderError) -> Bytes {
        line(&error_body(error))
    }

    fn headers(&self, _number: usize) -> Vec<(&'static str, String)> {
        Vec::new()
    }
}

/// Answers `GET /api/tags`.
pub(super) fn tags(names: &[String]) -> Value {
    let details = json!({
        "parent_model": "", "format": "gguf", "family": "llama", "families": ["llama"],
        "parameter_size": "3.2B", "quantization_level": "Q4_K_M",
    });
    let model = |name: &String| {
        json!({
            "name": name, "model": name, "modified_at": CREATED, "size": 2_019_393_189_u64,
            "digest": "a80c4f17acd55265feec403c7aef86be0c25983ab279d83f3bcd3abbcb5b8b72",
            "details": details,
        })
    };
    json!({"models": names.iter().map(model).collect::<Vec<_>>()})
}

fn message(raw: &Value) -> Message {
    let text = string(raw, "content");
    match raw["role"].as_str() {
        Some("system") => Message::text(Role::System, text),
        Some("assistant") => {
            let call = |raw: &Value| Call {
                id: string(raw, "id"),
                name: string(&raw["function"], "name"),
                arguments: raw["function"]["arguments"].clone(),
            };
            let tool_calls = items(raw, "tool_calls").iter().map(call).collect();
            Message {
                tool_calls,
                ..Message::text(Role::Assistant, text)
            }
        }
        Some("tool") => {
            let result = CallResult {
                id: string(raw, "tool_call_id"),
                text,
                is_error: false,
            };
            Message {
                tool_results: vec![result],
                ..Message::text(Role::Tool, "")
            }
        }
        _ => Message::text(Role::User, text),
    }
}

fn part(request: &Request, message: Value) -> Value {
    json!({"model": request.model, "created_at": CREATED, "message": message, "done": false})
}

fn line(value: &Value) -> Bytes {
    format!("{value}\n").into()
}

fn tool_calls(request: &Request, answer: &Answer) -> Value {
    let call = |(index, call): (usize, &super::ToolCall)| {
        // Ollama parses the arguments itself; what it cannot parse never becomes a call. A string is
        // the nearest thing to a broken object that its wire can carry.
        let text = call.arguments_text();
        let arguments = serde_json::from_str(&text).unwrap_or(Value::String(text));
        let function = json!({"index": index, "name": call.name, "arguments": arguments});
        json!({"id": call.id("call_tk", request, index), "function": function})
    };
    answer.tool_calls.iter().enumerate().map(call).collect()
}

fn finish(line: &mut Value, request: &Request, answer: &Answer) {
    let usage = answer.usage_for(request);
    line["done"] = json!(true);
    line["done_reason"] = json!(if answer.stopped() == Stop::Length {
        "length"
    } else {
        "stop"
    });
    line["total_duration"] = json!(174_560_334_u64);
    line["load_duration"] = json!(101_397_084_u64);
    line["prompt_eval_count"] = json!(usage.input + usage.cache_read + usage.cache_write);
    line["prompt_eval_duration"] = json!(13_074_791_u64);
    line["eval_count"] = json!(usage.output);
    line["eval_duration"] = json!(52_479_709_u64);
}

fn error_body(error: &ProviderError) -> Value {
    json!({"error": error.message.as_deref().unwrap_or(meaning(error.kind).1)})
}

/// Status and usual message of an error.
fn meaning(kind: ErrorKind) -> (StatusCode, &'static str) {
    match kind {
        ErrorKind::Invalid => (StatusCode::BAD_REQUEST, "invalid request"),
        ErrorKind::ContextTooLong => (
            StatusCode::BAD_REQUEST,
            "the input length exceeds the context length",
        ),
        ErrorKind::QuotaExceeded => (StatusCode::BAD_REQUEST, "usage limit reached"),
        ErrorKind::Unauthorized => (StatusCode::UNAUTHORIZED, "unauthorized"),
        ErrorKind::Forbidden => (StatusCode::FORBIDDEN, "forbidden"),
        ErrorKind::NotFound => (
            StatusCode::NOT_FOUND,
            "model not found, try pulling it first",
        ),
        ErrorKind::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "request too large"),
        ErrorKind::RateLimited => (StatusCode::TOO_MANY_REQUESTS, "too many requests"),
        ErrorKind::Internal => (
            StatusCode::INTERNAL_SERVER_ERROR,
            "llama runner process has terminated: signal: killed",
        ),
        ErrorKind::Overloaded => (
            StatusCode::SERVICE_UNAVAILABLE,
            "server busy, please try again.  maximum pending requests exceeded",
        ),
    }
}
