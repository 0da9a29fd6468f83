//! What Ollama refuses. It is lenient with values but strict with JSON types, as Go's decoder is.
//!
//! The pairing of calls and results is not checked by Ollama itself: there a wrong transcript only
//! makes the model worse. The stand-in refuses it, since a test should see it.

use serde_json::Value;

use crate::provider::answer::ProviderError;
use crate::provider::request::items;
use crate::provider::schema::fault_in;

type Checked = Result<(), ProviderError>;

pub(super) fn check(raw: &Value) -> Checked {
    if !raw.is_object() {
        return refuse("invalid character in request body");
    }
    if raw["model"].as_str().is_none_or(str::is_empty) {
        return refuse("model is required");
    }
    if !raw["options"].is_null() && !raw["options"].is_object() {
        return mismatch(&raw["options"], "options", "map[string]interface {}");
    }
    let format = &raw["format"];
    if !(format.is_null() || format.is_object() || format == "json" || format == "") {
        return refuse(format!(
            "invalid format: {format}; expected \"json\" or a valid JSON Schema object"
        ));
    }
    let think = &raw["think"];
    let level = think
        .as_str()
        .is_some_and(|level| ["high", "medium", "low"].contains(&level));
    if !(think.is_null() || think.is_boolean() || level) {
        return refuse("invalid think value: must be a boolean or one of high, medium, low");
    }
    items(raw, "tools").iter().try_for_each(tool)?;
    items(raw, "messages").iter().try_for_each(types)?;
    paired(items(raw, "messages"))
}

fn refuse(message: impl Into<String>) -> Checked {
    Err(ProviderError::invalid(message))
}

/// Refuses like Go's JSON decoder.
fn mismatch(value: &Value, field: &str, wanted: &str) -> Checked {
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    refuse(format!(
        "json: cannot unmarshal {kind} into Go struct field ChatRequest.{field} of type {wanted}"
    ))
}

fn tool(tool: &Value) -> Checked {
    let function = &tool["function"];
    if tool["type"] != "function" || function["name"].as_str().is_none_or(str::is_empty) {
        return refuse("invalid tool: type must be function, and it needs a name");
    }
    match fault_in(&function["parameters"]) {
        Some(reason) => refuse(format!("invalid tool {}: {reason}", function["name"])),
        None => Ok(()),
    }
}

fn types(message: &Value) -> Checked {
    let role = message["role"].as_str().unwrap_or_default();
    if !["system", "user", "assistant", "tool"].contains(&role) {
        return refuse("invalid role: must be one of [system, user, assistant, tool]");
    }
    let content = &message["content"];
    if !content.is_null() && !content.is_string() {
        return mismatch(content, "messages.content", "string");
    }
    for call in items(message, "tool_calls") {
        let arguments = &call["function"]["arguments"];
        if !arguments.is_object() {
            return mismatch(
                arguments,
                "messages.tool_calls.function.arguments",
                "api.ToolCallFunctionArguments",
            );
        }
        if call["function"]["name"].as_str().is_none_or(str::is_empty) {
            return refuse("invalid tool call: it needs a name");
        }
    }
    let says = content.as_str().is_some_and(|text| !text.is_empty());
    let shows = !items(message, "images").is_empty() || !items(message, "tool_calls").is_empty();
    if role != "tool" && !says && !shows {
        return refuse(format!("empty message of role {role}"));
    }
    Ok(())
}

/// Every call must be answered by a tool message right after, by name or id if they are given.
fn paired(messages: &[Value]) -> Checked {
    let mut waiting: Vec<&Value> = Vec::new();
    for message in messages {
        if message["role"] == "tool" {
            let Some(position) = waiting.iter().position(|call| answers(message, call)) else {
                return refuse("tool message without a preceding tool call");
            };
            waiting.remove(position);
            continue;
        }
        all_answered(&waiting)?;
        waiting = items(message, "tool_calls").iter().collect();
    }
    all_answered(&waiting)
}

fn answers(message: &Value, call: &Value) -> bool {
    let agrees = |have: &Value, want: &Value| have.is_null() || want.is_null() || have == want;
    agrees(&message["tool_name"], &call["function"]["name"])
        && agrees(&message["tool_call_id"], &call["id"])
}

fn all_answered(waiting: &[&Value]) -> Checked {
    if waiting.is_empty() {
        return Ok(());
    }
    refuse(format!(
        "{} tool calls have no tool message after them",
        waiting.len()
    ))
}
