//! What OpenAI refuses, in its own words where they are known.

use serde_json::Value;

use crate::provider::answer::{ErrorKind, ProviderError};
use crate::provider::face::Headers;
use crate::provider::request::items;
use crate::provider::schema::{fault_in, in_range, is_count, is_tool_name, unknown};

type Checked = Result<(), ProviderError>;

const FIELDS: &str = "\
    audio frequency_penalty function_call functions logit_bias logprobs max_completion_tokens \
    max_tokens messages metadata modalities model moderation n parallel_tool_calls prediction \
    presence_penalty prompt_cache_key prompt_cache_options prompt_cache_retention reasoning_effort \
    response_format safety_identifier seed service_tier stop store stream stream_options temperature \
    tool_choice tools top_logprobs top_p user verbosity web_search_options";

pub(super) fn check(headers: &Headers, raw: &Value) -> Checked {
    key(headers)?;
    if !raw.is_object() {
        return Err(ProviderError::invalid(
            "We could not parse the JSON body of your request. The OpenAI API expects a JSON payload.",
        ));
    }
    if let Some(field) = unknown(raw, FIELDS) {
        return Err(ProviderError::invalid(format!(
            "Unrecognized request argument supplied: {field}"
        )));
    }
    if raw["model"].as_str().is_none_or(str::is_empty) {
        return Err(ProviderError::invalid("you must provide a model parameter"));
    }
    settings(raw)?;
    tools(raw)?;
    messages(items(raw, "messages"))?;
    response_format(raw)
}

fn key(headers: &Headers) -> Checked {
    let bearer = headers
        .get("authorization")
        .and_then(|value| value.strip_prefix("Bearer "));
    if bearer.is_none_or(|key| key.trim().is_empty()) {
        return Err(ProviderError {
            code: None,
            ..ProviderError::new(
                ErrorKind::Unauthorized,
                "You didn't provide an API key. You need to provide your API key in an \
                 Authorization header using Bearer auth (i.e. Authorization: Bearer YOUR_KEY).",
            )
        });
    }
    Ok(())
}

fn settings(raw: &Value) -> Checked {
    let ranges = [
        ("temperature", 0.0, 2.0),
        ("top_p", 0.0, 1.0),
        ("frequency_penalty", -2.0, 2.0),
        ("presence_penalty", -2.0, 2.0),
    ];
    for (name, low, high) in ranges {
        if !in_range(raw, name, low, high) {
            let message = format!(
                "Invalid '{name}': decimal outside of the range {low} to {high}, got {}.",
                raw[name]
            );
            return Err(ProviderError::invalid(message).at(name));
        }
    }
    for name in ["max_tokens", "max_completion_tokens", "n"] {
        if !is_count(raw, name) {
            let message = format!(
                "Invalid '{name}': integer below minimum value. Expected a value >= 1, but got {} instead.",
                raw[name]
            );
            return Err(ProviderError::invalid(message)
                .at(name)
                .coded("integer_below_min_value"));
        }
    }
    if !raw["max_tokens"].is_null() && !raw["max_completion_tokens"].is_null() {
        return Err(ProviderError::invalid(
            "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported.",
        ));
    }
    if items(raw, "stop").len() > 4 {
        let message = "Invalid 'stop': array too long. Expected an array with maximum length 4.";
        return Err(ProviderError::invalid(message)
            .at("stop")
            .coded("array_above_max_length"));
    }
    if raw["stream"] != true && !raw["stream_options"].is_null() {
        return Err(ProviderError::invalid(
            "The 'stream_options' parameter is only allowed when 'stream' is enabled.",
        )
        .at("stream_options"));
    }
    reasoning_model(raw)
}

/// Reasoning models know neither `max_tokens` nor a temperature.
fn reasoning_model(raw: &Value) -> Checked {
    let model = raw["model"].as_str().unwrap_or_default();
    if !["o1", "o3", "o4", "gpt-5"]
        .iter()
        .any(|family| model.starts_with(family))
    {
        return Ok(());
    }
    if !raw["max_tokens"].is_null() {
        return Err(ProviderError::invalid(
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use \
             'max_completion_tokens' instead.",
        )
        .at("max_tokens")
        .coded("unsupported_parameter"));
    }
    if raw["temperature"]
        .as_f64()
        .is_some_and(|temperature| temperature != 1.0)
    {
        return Err(ProviderError::invalid(format!(
            "Unsupported value: 'temperature' does not support {} with this model. Only the default \
             (1) value is supported.",
            raw["temperature"]
        ))
        .at("temperature")
        .coded("unsupported_value"));
    }
    Ok(())
}

fn tools(raw: &Value) -> Checked {
    if raw["tools"].is_null() {
        for name in ["tool_choice", "parallel_tool_calls"] {
            if !raw[name].is_null() {
                let message = format!("'{name}' is only allowed when 'tools' are specified.");
                return Err(ProviderError::invalid(message).at(name));
            }
        }
        return Ok(());
    }
    if items(raw, "tools").is_empty() {
        let message = "Invalid 'tools': empty array. Expected an array with minimum length 1, but got \
                       an empty array instead.";
        return Err(ProviderError::invalid(message)
            .at("tools")
            .coded("empty_array"));
    }
    items(raw, "tools")
        .iter()
        .enumerate()
        .try_for_each(|(at, entry)| tool(at, entry))
}

fn tool(at: usize, tool: &Value) -> Checked {
    if tool["type"] != "function" {
        let message = format!(
            "Invalid value: '{}'. Supported values are: 'function'.",
            tool["type"]
        );
        return Err(ProviderError::invalid(message).at(format!("tools[{at}].type")));
    }
    let function = &tool["function"];
    let name = function["name"].as_str().unwrap_or_default();
    if !is_tool_name(name, 64) {
        let message = format!(
            "Invalid 'tools[{at}].function.name': string does not match pattern. Expected a string \
             that matches the pattern '^[a-zA-Z0-9_-]+$'."
        );
        let param = format!("tools[{at}].function.name");
        return Err(ProviderError::invalid(message)
            .at(param)
            .coded("invalid_value"));
    }
    let fault = function.get("parameters").and_then(fault_in);
    let loose = function["strict"] == true
        && function["parameters"]["additionalProperties"] != Value::Bool(false);
    let loose = loose.then(|| {
        "In context=(), 'additionalProperties' is required to be supplied and to be false"
            .to_owned()
    });
    if let Some(reason) = fault.or(loose) {
        let message = format!("Invalid schema for function '{name}': {reason}.");
        let param = format!("tools[{at}].function.parameters");
        return Err(ProviderError::invalid(message)
            .at(param)
            .coded("invalid_function_parameters"));
    }
    Ok(())
}

fn messages(messages: &[Value]) -> Checked {
    if messages.is_empty() {
        let message = "Invalid 'messages': empty array. Expected an array with minimum length 1, but \
                       got an empty array instead.";
        return Err(ProviderError::invalid(message)
            .at("messages")
            .coded("empty_array"));
    }
    let mut waiting: Vec<&str> = Vec::new();
    for (at, message) in messages.iter().enumerate() {
        if message["role"] == "tool" {
            answers_a_call(at, message, &mut waiting)?;
            continue;
        }
        all_answered(&waiting)?;
        waiting = called(message);
        spoken(at, message)?;
    }
    all_answered(&waiting)
}

fn called(message: &Value) -> Vec<&str> {
    items(message, "tool_calls")
        .iter()
        .filter_map(|call| call["id"].as_str())
        .collect()
}

fn answers_a_call(at: usize, message: &Value, waiting: &mut Vec<&str>) -> Checked {
    let id = message["tool_call_id"].as_str().unwrap_or_default();
    let Some(position) = waiting.iter().position(|waiting| *waiting == id) else {
        return Err(ProviderError::invalid(
            "Invalid parameter: messages with role 'tool' must be a response to a preceeding message \
             with 'tool_calls'.",
        )
        .at(format!("messages.[{at}].role")));
    };
    waiting.remove(position);
    // A tool may have nothing to say, but it must say so with a text.
    content(at, message, true)
}

fn all_answered(waiting: &[&str]) -> Checked {
    if waiting.is_empty() {
        return Ok(());
    }
    Err(ProviderError::invalid(format!(
        "An assistant message with 'tool_calls' must be followed by tool messages responding to each \
         'tool_call_id'. The following tool_call_ids did not have response messages: {}",
        waiting.join(", ")
    ))
    .at("messages"))
}

fn spoken(at: usize, message: &Value) -> Checked {
    match message["role"].as_str() {
        Some("system" | "developer" | "user") => content(at, message, false),
        Some("assistant") if message["tool_calls"].is_null() => content(at, message, false),
        Some("assistant") => tool_calls(at, message),
        _ => Err(ProviderError::invalid(format!(
            "Invalid value: {}. Supported values are: 'system', 'assistant', 'user', 'function', \
             'tool', and 'developer'.",
            message["role"]
        ))
        .at(format!("messages[{at}].role"))
        .coded("invalid_value")),
    }
}

fn content(at: usize, message: &Value, may_be_empty: bool) -> Checked {
    let param = format!("messages.[{at}].content");
    match &message["content"] {
        Value::String(text) if !text.is_empty() || may_be_empty => Ok(()),
        Value::Array(parts) if !parts.is_empty() && parts.iter().all(|p| p["type"].is_string()) => {
            Ok(())
        }
        Value::Null => Err(ProviderError::invalid(
            "Invalid value for 'content': expected a string, got null.",
        )
        .at(param)),
        other => Err(ProviderError::invalid(format!(
            "Invalid value for 'content': expected a non-empty string or array of parts, got {other}."
        ))
        .at(param)),
    }
}

fn tool_calls(at: usize, message: &Value) -> Checked {
    let calls = items(message, "tool_calls");
    if calls.is_empty() {
        let message = format!(
            "Invalid 'messages[{at}].tool_calls': empty array. Expected an array with minimum length \
             1, but got an empty array instead."
        );
        let param = format!("messages[{at}].tool_calls");
        return Err(ProviderError::invalid(message)
            .at(param)
            .coded("empty_array"));
    }
    for (index, call) in calls.iter().enumerate() {
        let wrong = |field: &str| {
            let param = format!("messages[{at}].tool_calls[{index}].{field}");
            let message = format!("Missing required parameter: '{param}'.");
            Err(ProviderError::invalid(message)
                .at(param)
                .coded("missing_required_parameter"))
        };
        if call["id"].as_str().is_none_or(str::is_empty) {
            return wrong("id");
        }
        if call["type"] != "function" {
            return wrong("type");
        }
        if !call["function"]["name"]
            .as_str()
            .is_some_and(|name| is_tool_name(name, 64))
        {
            return wrong("function.name");
        }
        if !call["function"]["arguments"].is_string() {
            return wrong("function.arguments");
        }
    }
    Ok(())
}

fn response_format(raw: &Value) -> Checked {
    match raw["response_format"]["type"].as_str() {
        None if raw["response_format"].is_null() => Ok(()),
        Some("text") => Ok(()),
        Some("json_object") => {
            let said = raw["messages"].to_string().to_lowercase().contains("json");
            if said {
                return Ok(());
            }
            Err(ProviderError::invalid(
                "'messages' must contain the word 'json' in some form, to use 'response_format' of \
                 type 'json_object'.",
            )
            .at("messages"))
        }
        Some("json_schema") => {
            let format = &raw["response_format"]["json_schema"];
            let named = format["name"]
                .as_str()
                .is_some_and(|name| is_tool_name(name, 64));
            if named && format["schema"].is_object() {
                return Ok(());
            }
            Err(ProviderError::invalid(
                "Missing required parameter: 'response_format.json_schema'.",
            )
            .at("response_format.json_schema"))
        }
        _ => Err(ProviderError::invalid(format!(
            "Invalid value: {}. Supported values are: 'json_object', 'json_schema', and 'text'.",
            raw["response_format"]["type"]
        ))
        .at("response_format.type")),
    }
}
