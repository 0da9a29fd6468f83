//! Anthropic messages: `POST /v1/messages`, whole or as server-sent events.

mod check;

use axum::http::StatusCode;
use bytes::Bytes;
use serde_json::{Value, json};

use super::answer::{Answer, ErrorKind, ProviderError, Stop};
use super::face::{Arrived, Dialect, event};
use super::faults::Frames;
use super::request::{Call, CallResult, Message, Request, Role, Tool, items, string, text_of};

/// The dialect of Anthropic.
pub(super) struct Anthropic;

impl Dialect for Anthropic {
    fn check(&self, arrived: &Arrived<'_>) -> Result<(), ProviderError> {
        check::check(arrived.headers, arrived.raw)
    }

    fn wants_stream(&self, arrived: &Arrived<'_>) -> bool {
        arrived.raw["stream"].as_bool().unwrap_or(false)
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
            schema: raw["input_schema"].clone(),
        };
        items(raw, "tools").iter().map(tool).collect()
    }

    fn whole(&self, request: &Request, answer: &Answer) -> Value {
        let blocks = blocks(request, answer);
        let content: Vec<Value> = blocks.into_iter().map(|block| block.whole).collect();
        let mut message = envelope(request);
        message["content"] = json!(content);
        message["stop_reason"] = json!(stop_reason(answer));
        message["usage"] = usage(request, answer);
        message
    }

    fn frames(&self, request: &Request, answer: &Answer) -> Frames {
        let frame = |data: Value| event(data["type"].as_str(), &data);
        let mut message = envelope(request);
        message["usage"] = usage(request, answer);
        message["usage"]["output_tokens"] = json!(1);
        let mut content = vec![frame(json!({"type": "message_start", "message": message}))];
        for (index, block) in blocks(request, answer).into_iter().enumerate() {
            let start = json!({
                "type": "content_block_start", "index": index, "content_block": block.start
            });
            content.push(frame(start));
            if index == 0 {
                content.push(frame(json!({"type": "ping"})));
            }
            let delta = |delta| {
                frame(json!({"type": "content_block_delta", "index": index, "delta": delta}))
            };
            content.extend(block.deltas.into_iter().map(delta));
            content.push(frame(json!({"type": "content_block_stop", "index": index})));
        }
        let stopped = json!({
            "stop_reason": stop_reason(answer), "stop_sequence": null, "stop_details": null
        });
        let finish = vec![
            frame(json!({
                "type": "message_delta", "delta": stopped, "usage": usage(request, answer)
            })),
            frame(json!({"type": "message_stop"})),
        ];
        let more = json!({"type": "text_delta", "text": "and so on "});
        let more = frame(json!({"type": "content_block_delta", "index": 0, "delta": more}));
        let opening = "event: content_block_delta\ndata: {\"type\":\"".into();
        Frames {
            content,
            finish,
            more,
            opening,
        }
    }

    fn stream_type(&self) -> &'static str {
        "text/event-stream; charset=utf-8"
    }

    fn error(&self, number: usize, error: &ProviderError) -> (StatusCode, Value) {
        let (status, ..) = meaning(error.kind);
        let mut body = error_body(error);
        body["request_id"] = json!(request_id(number));
        (status, body)
    }

    fn error_event(&self, error: &ProviderError) -> Bytes {
        event(Some("error"), &error_body(error))
    }

    fn headers(&self, number: usize) -> Vec<(&'static str, String)> {
        let left = 4_000_usize.saturating_sub(number);
        vec![
            ("request-id", request_id(number)),
            (
                "anthropic-organization-id",
                "00000000-0000-0000-0000-000000000000".into(),
            ),
            ("anthropic-ratelimit-requests-limit", "4000".into()),
            ("anthropic-ratelimit-requests-remaining", left.to_string()),
            (
                "anthropic-ratelimit-requests-reset",
                "2026-01-01T00:00:00Z".into(),
            ),
            ("anthropic-ratelimit-input-tokens-limit", "400000".into()),
            (
                "anthropic-ratelimit-input-tokens-remaining",
                "399000".into(),
            ),
            (
                "anthropic-ratelimit-input-tokens-reset",
                "2026-01-01T00:00:00Z".into(),
            ),
        ]
    }
}

/// Answers `GET /v1/models`.
pub(super) fn models(names: &[String]) -> Value {
    let model = |name: &String| {
        json!({
            "type": "model", "id": name, "display_name": name, "created_at": "2025-01-01T00:00:00Z"
        })
    };
    let data: Vec<Value> = names.iter().map(model).collect();
    json!({
        "data": data, "has_more": false, "first_id": names.first(), "last_id": names.last()
    })
}

/// Reads one message; a user message that carries tool results becomes one message for each of them.
fn messages(raw: &Value) -> Vec<Message> {
    let blocks = items(raw, "content");
    let text = match &raw["content"] {
        Value::String(text) => text.clone(),
        _ => {
            let texts = blocks.iter().filter(|block| block["type"] == "text");
            texts
                .filter_map(|block| block["text"].as_str())
                .collect::<Vec<_>>()
                .join("\n")
        }
    };
    if raw["role"] == "system" {
        return vec![Message::text(Role::System, text)];
    }
    if raw["role"] == "assistant" {
        let calls = blocks
            .iter()
            .filter(|block| block["type"] == "tool_use")
            .map(|block| Call {
                id: string(block, "id"),
                name: string(block, "name"),
                arguments: block["input"].clone(),
            });
        let tool_calls = calls.collect();
        return vec![Message {
            tool_calls,
            ..Message::text(Role::Assistant, text)
        }];
    }
    let result = |block: &Value| CallResult {
        id: string(block, "tool_use_id"),
        text: text_of(&block["content"]),
        is_error: block["is_error"].as_bool().unwrap_or(false),
    };
    let results = blocks
        .iter()
        .filter(|block| block["type"] == "tool_result")
        .map(result);
    let mut messages: Vec<Message> = results
        .map(|result| Message {
            tool_results: vec![result],
            ..Message::text(Role::Tool, "")
        })
        .collect();
    if messages.is_empty() || !text.is_empty() {
        messages.push(Message::text(Role::User, text));
    }
    messages
}

fn envelope(request: &Request) -> Value {
    json!({
        "id": format!("msg_tk{:08}", request.number),
        "type": "message",
        "role": "assistant",
        "model": request.model,
        "content": [],
        "stop_reason": null,
        "stop_sequence": null,
        "stop_details": null,
        "container": null,
    })
}

/// A content block, whole and as it is streamed.
struct Block {
    whole: Value,
    start: Value,
    deltas: Vec<Value>,
}

fn blocks(request: &Request, answer: &Answer) -> Vec<Block> {
    let mut blocks = Vec::new();
    if !answer.thinking.is_empty() {
        let thought = |text| json!({"type": "thinking_delta", "thinking": text});
        let mut deltas: Vec<Value> = answer
            .pieces(&answer.thinking)
            .into_iter()
            .map(thought)
            .collect();
        deltas.push(json!({"type": "signature_delta", "signature": "dGVzdGtpdA=="}));
        blocks.push(Block {
            whole: json!({
                "type": "thinking", "thinking": answer.thinking, "signature": "dGVzdGtpdA=="
            }),
            start: json!({"type": "thinking", "thinking": "", "signature": ""}),
            deltas,
        });
    }
    if !answer.text.is_empty() {
        let said = |text| json!({"type": "text_delta", "text": text});
        blocks.push(Block {
            whole: json!({"type": "text", "text": answer.text, "citations": null}),
            start: json!({"type": "text", "text": "", "citations": null}),
            deltas: answer.pieces(&answer.text).into_iter().map(said).collect(),
        });
    }
    for (index, call) in answer.tool_calls.iter().enumerate() {
        let text = call.arguments_text();
        let part = |json| json!({"type": "input_json_delta", "partial_json": json});
        let mut deltas = vec![part("")];
        deltas.extend(answer.pieces(&text).into_iter().map(part));
        let block = |input: Value| {
            let id = call.id("toolu_tk", request, index);
            let caller = json!({"type": "direct"});
            json!({
                "type": "tool_use", "id": id, "name": call.name, "input": input, "caller": caller
            })
        };
        // Only a stream can carry arguments that are no JSON.
        let input = serde_json::from_str(&text).unwrap_or(Value::String(text.clone()));
        blocks.push(Block {
            whole: block(input),
            start: block(json!({})),
            deltas,
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
        Stop::ContentFilter => "refusal",
    }
}

fn usage(request: &Request, answer: &Answer) -> Value {
    let usage = answer.usage_for(request);
    json!({
        "input_tokens": usage.input,
        "cache_creation_input_tokens": usage.cache_write,
        "cache_read_input_tokens": usage.cache_read,
        "cache_creation": {
            "ephemeral_5m_input_tokens": usage.cache_write, "ephemeral_1h_input_tokens": 0
        },
        "server_tool_use": null,
        "inference_geo": "not_available",
        "output_tokens": usage.output,
        "service_tier": "standard",
    })
}

fn request_id(number: usize) -> String {
    format!("req_tk{number:08}")
}

fn error_body(error: &ProviderError) -> Value {
    let (_, kind, message) = meaning(error.kind);
    let message = error.message.as_deref().unwrap_or(message);
    json!({"type": "error", "error": {"type": kind, "message": message}})
}

/// Status, type and usual message of an error.
fn meaning(kind: ErrorKind) -> (StatusCode, &'static str, &'static str) {
    const INVALID: &str = "invalid_request_error";
    match kind {
        ErrorKind::Invalid => (StatusCode::BAD_REQUEST, INVALID, "Invalid request."),
        ErrorKind::ContextTooLong => (
            StatusCode::BAD_REQUEST,
            INVALID,
            "prompt is too long: 210000 tokens > 200000 maximum",
        ),
        ErrorKind::QuotaExceeded => (
            StatusCode::BAD_REQUEST,
            INVALID,
            "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing \
             to upgrade or purchase credits.",
        ),
        ErrorKind::Unauthorized => (
            StatusCode::UNAUTHORIZED,
            "authentication_error",
            "invalid x-api-key",
        ),
        ErrorKind::Forbidden => (
            StatusCode::FORBIDDEN,
            "permission_error",
            "Your API key does not have permission to use the specified resource.",
        ),
        ErrorKind::NotFound => (StatusCode::NOT_FOUND, "not_found_error", "model: not found"),
        ErrorKind::TooLarge => (
            StatusCode::PAYLOAD_TOO_LARGE,
            "request_too_large",
            "Request exceeds the maximum allowed number of bytes.",
        ),
        ErrorKind::RateLimited => (
            StatusCode::TOO_MANY_REQUESTS,
            "rate_limit_error",
            "This request would exceed your organization's rate limit. Please try again later.",
        ),
        ErrorKind::Internal => (
            StatusCode::INTERNAL_SERVER_ERROR,
            "api_error",
            "Internal server error",
        ),
        ErrorKind::Overloaded => (overloaded(), "overloaded_error", "Overloaded"),
    }
}

fn overloaded() -> StatusCode {
    StatusCode::from_u16(529).expect("a status of three digits")
}
