//! OpenAI chat completions: `POST /v1/chat/completions`, whole or as server-sent events.

mod check;

use axum::http::StatusCode;
use bytes::Bytes;
use serde_json::{Value, json};

use super::answer::{Answer, ErrorKind, ProviderError, Stop};
use super::face::{Arrived, Dialect, EPOCH, event};
use super::faults::Frames;
use super::request::{Call, CallResult, Message, Request, Role, Tool, items, string, text_of};

/// The dialect of OpenAI and of all that are compatible with it.
pub(super) struct Openai;

impl Dialect for Openai {
    fn check(&self, arrived: &Arrived<'_>) -> Result<(), ProviderError> {
        check::check(arrived.headers, arrived.raw)
    }

    fn wants_stream(&self, arrived: &Arrived<'_>) -> bool {
        arrived.raw["stream"].as_bool().unwrap_or(false)
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
        let mut message = json!({
            "role": "assistant",
            "content": if answer.text.is_empty() { Value::Null } else { json!(answer.text) },
            "refusal": null,
            "annotations": [],
        });
        if !answer.thinking.is_empty() {
            message["reasoning_content"] = json!(answer.thinking);
        }
        if !answer.tool_calls.is_empty() {
            message["tool_calls"] = tool_calls(request, answer);
        }
        let mut whole = envelope(request, "chat.completion");
        whole["choices"] = json!([{
            "index": 0,
            "message": message,
            "logprobs": null,
            "finish_reason": finish_reason(answer),
        }]);
        whole["usage"] = usage(request, answer);
        whole
    }

    fn frames(&self, request: &Request, answer: &Answer) -> Frames {
        let with_usage = request.raw["stream_options"]["include_usage"] == json!(true);
        let frame = |choices: Value, usage: Value| {
            let mut chunk = envelope(request, "chat.completion.chunk");
            chunk["choices"] = choices;
            // The field is there on every chunk, but only when it was asked for.
            if with_usage {
                chunk["usage"] = usage;
            }
            event(None, &chunk)
        };
        let choice = |delta: Value, reason: Value| {
            let choice =
                json!({"index": 0, "delta": delta, "logprobs": null, "finish_reason": reason});
            frame(json!([choice]), Value::Null)
        };
        let deltas = deltas(request, answer);
        let content = deltas
            .into_iter()
            .map(|delta| choice(delta, Value::Null))
            .collect();
        let mut finish = vec![choice(json!({}), json!(finish_reason(answer)))];
        if with_usage {
            finish.push(frame(json!([]), usage(request, answer)));
        }
        finish.push("data: [DONE]\n\n".into());
        let more = choice(json!({"content": "and so on "}), Value::Null);
        Frames {
            content,
            finish,
            more,
            opening: "data: {\"id\":\"".into(),
        }
    }

    fn stream_type(&self) -> &'static str {
        "text/event-stream; charset=utf-8"
    }

    fn error(&self, _number: usize, error: &ProviderError) -> (StatusCode, Value) {
        let (status, ..) = meaning(error.kind);
        (status, error_body(error))
    }

    fn error_event(&self, error: &ProviderError) -> Bytes {
        event(None, &error_body(error))
    }

    fn headers(&self, number: usize) -> Vec<(&'static str, String)> {
        let left = 10_000_usize.saturating_sub(number);
        vec![
            ("x-request-id", format!("req_tk{number:08}")),
            ("openai-organization", "org-testkit".into()),
            ("openai-processing-ms", "12".into()),
            ("openai-version", "2020-10-01".into()),
            ("x-ratelimit-limit-requests", "10000".into()),
            ("x-ratelimit-limit-tokens", "2000000".into()),
            ("x-ratelimit-remaining-requests", left.to_string()),
            ("x-ratelimit-remaining-tokens", "1999000".into()),
            ("x-ratelimit-reset-requests", "6ms".into()),
            ("x-ratelimit-reset-tokens", "30ms".into()),
        ]
    }
}

/// Answers `GET /v1/models`.
pub(super) fn models(names: &[String]) -> Value {
    let model =
        |name| json!({"id": name, "object": "model", "created": EPOCH, "owned_by": "testkit"});
    json!({"object": "list", "data": names.iter().map(model).collect::<Vec<_>>()})
}

/// Reads a function that is offered as a tool. Ollama spells it in the same way.
pub(super) fn function(function: &Value) -> Tool {
    Tool {
        name: string(function, "name"),
        description: string(function, "description"),
        schema: function["parameters"].clone(),
    }
}

fn message(raw: &Value) -> Message {
    let text = text_of(&raw["content"]);
    match raw["role"].as_str() {
        Some("system" | "developer") => Message::text(Role::System, text),
        Some("assistant") => {
            let calls = items(raw, "tool_calls").iter().map(call).collect();
            Message {
                tool_calls: calls,
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

fn call(raw: &Value) -> Call {
    let text = string(&raw["function"], "arguments");
    let arguments = serde_json::from_str(&text).unwrap_or(Value::String(text));
    Call {
        id: string(raw, "id"),
        name: string(&raw["function"], "name"),
        arguments,
    }
}

fn envelope(request: &Request, object: &str) -> Value {
    json!({
        "id": format!("chatcmpl-tk{:08}", request.number),
        "object": object,
        "created": EPOCH + request.number as u64,
        "model": request.model,
        "service_tier": "default",
        "system_fingerprint": "fp_testkit",
    })
}

fn tool_calls(request: &Request, answer: &Answer) -> Value {
    let call = |(index, call): (usize, &super::ToolCall)| {
        let function = json!({"name": call.name, "arguments": call.arguments_text()});
        json!({"id": call.id("call_tk", request, index), "type": "function", "function": function})
    };
    answer.tool_calls.iter().enumerate().map(call).collect()
}

/// The deltas of a stream: the role first, then text, then each call with its arguments in fragments.
fn deltas(request: &Request, answer: &Answer) -> Vec<Value> {
    let first = if answer.text.is_empty() {
        Value::Null
    } else {
        json!("")
    };
    let mut deltas = vec![json!({"role": "assistant", "content": first, "refusal": null})];
    deltas.extend(
        answer
            .pieces(&answer.thinking)
            .iter()
            .map(|t| json!({"reasoning_content": t})),
    );
    deltas.extend(
        answer
            .pieces(&answer.text)
            .iter()
            .map(|text| json!({"content": text})),
    );
    for (index, call) in answer.tool_calls.iter().enumerate() {
        deltas.push(json!({"tool_calls": [{
            "index": index,
            "id": call.id("call_tk", request, index),
            "type": "function",
            "function": {"name": call.name, "arguments": ""},
        }]}));
        let arguments = call.arguments_text();
        let fragment =
            |text| json!({"tool_calls": [{"index": index, "function": {"arguments": text}}]});
        deltas.extend(answer.pieces(&arguments).into_iter().map(fragment));
    }
    deltas
}

fn finish_reason(answer: &Answer) -> &'static str {
    match answer.stopped() {
        Stop::EndTurn | Stop::StopSequence => "stop",
        Stop::ToolCalls => "tool_calls",
        Stop::Length => "length",
        Stop::ContentFilter => "content_filter",
    }
}

fn usage(request: &Request, answer: &Answer) -> Value {
    let usage = answer.usage_for(request);
    let prompt = usage.input + usage.cache_read + usage.cache_write;
    json!({
        "prompt_tokens": prompt,
        "completion_tokens": usage.output,
        "total_tokens": prompt + usage.output,
        "prompt_tokens_details": {"cached_tokens": usage.cache_read, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": 0,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    })
}

fn error_body(error: &ProviderError) -> Value {
    let (_, kind, code, message) = meaning(error.kind);
    let code = error.code.as_deref().or(code);
    let message = error.message.as_deref().unwrap_or(message);
    json!({"error": {"message": message, "type": kind, "param": error.param, "code": code}})
}

/// Status, type, code and usual message of an error.
fn meaning(kind: ErrorKind) -> (StatusCode, &'static str, Option<&'static str>, &'static str) {
    const INVALID: &str = "invalid_request_error";
    match kind {
        ErrorKind::Invalid => (StatusCode::BAD_REQUEST, INVALID, None, "Invalid request."),
        ErrorKind::ContextTooLong => (
            StatusCode::BAD_REQUEST,
            INVALID,
            Some("context_length_exceeded"),
            "This model's maximum context length is 128000 tokens. However, your messages resulted \
             in 131072 tokens. Please reduce the length of the messages.",
        ),
        ErrorKind::Unauthorized => (
            StatusCode::UNAUTHORIZED,
            INVALID,
            Some("invalid_api_key"),
            "Incorrect API key provided. You can find your API key at \
             https://platform.openai.com/account/api-keys.",
        ),
        ErrorKind::Forbidden => (
            StatusCode::FORBIDDEN,
            INVALID,
            None,
            "You are not allowed to use this model.",
        ),
        ErrorKind::NotFound => (
            StatusCode::NOT_FOUND,
            INVALID,
            Some("model_not_found"),
            "The model does not exist or you do not have access to it.",
        ),
        ErrorKind::TooLarge => (
            StatusCode::PAYLOAD_TOO_LARGE,
            INVALID,
            None,
            "The request is too large.",
        ),
        ErrorKind::RateLimited => (
            StatusCode::TOO_MANY_REQUESTS,
            "requests",
            Some("rate_limit_exceeded"),
            "Rate limit reached. Please try again later.",
        ),
        ErrorKind::QuotaExceeded => (
            StatusCode::TOO_MANY_REQUESTS,
            "insufficient_quota",
            Some("insufficient_quota"),
            "You exceeded your current quota, please check your plan and billing details.",
        ),
        ErrorKind::Internal => (
            StatusCode::INTERNAL_SERVER_ERROR,
            "server_error",
            None,
            "The server had an error while processing your request. Sorry about that!",
        ),
        ErrorKind::Overloaded => (
            StatusCode::SERVICE_UNAVAILABLE,
            "server_error",
            None,
            "The engine is currently overloaded, please try again later.",
        ),
    }
}
