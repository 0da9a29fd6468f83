//! What Anthropic refuses, in its own words where they are known.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::provider::answer::{ErrorKind, ProviderError};
use crate::provider::face::Headers;
use crate::provider::request::items;
use crate::provider::schema::{fault_in, in_range, is_tool_name, unknown};

type Checked = Result<(), ProviderError>;

const FIELDS: &str = "\
    cache_control container context_management diagnostics inference_geo max_tokens mcp_servers \
    messages metadata model output_config output_format service_tier speed stop_sequences stream \
    system temperature thinking tool_choice tools top_k top_p user_profile_id workspace_id";

/// The version of the API that took the sampling settings away.
const LATEST: &str = "2026-10-21";

/// Models that came after sampling settings were given up. Older versions of the API let them pass
/// only at their default.
const WITHOUT_SAMPLING: [&str; 7] = [
    "opus-4-7", "opus-4-8", "fable", "mythos", "opus-5", "sonnet-5", "haiku-5",
];

pub(super) fn check(headers: &Headers, raw: &Value) -> Checked {
    key(headers)?;
    let Some(version) = headers.get("anthropic-version") else {
        return refuse("anthropic-version: header is required");
    };
    if ![LATEST, "2023-06-01", "2023-01-01"].contains(&version.as_str()) {
        return refuse(format!(
            "anthropic-version: \"{version}\" is not a valid version"
        ));
    }
    if !raw.is_object() {
        return refuse("The request body is not valid JSON");
    }
    if let Some(field) = unknown(raw, FIELDS) {
        return refuse(format!("{field}: Extra inputs are not permitted"));
    }
    if raw["model"].as_str().is_none_or(str::is_empty) {
        return refuse("model: Field required");
    }
    settings(raw)?;
    sampling(version, raw)?;
    system(raw)?;
    tools(raw)?;
    let messages = items(raw, "messages");
    if messages.is_empty() {
        return refuse("messages: at least one message is required");
    }
    for (at, message) in messages.iter().enumerate() {
        spoken(at, message, at + 1 == messages.len())?;
    }
    if messages[0]["role"] != "user" {
        return refuse("messages: first message must use the \"user\" role");
    }
    paired(messages)?;
    cached(raw)
}

fn refuse(message: impl Into<String>) -> Checked {
    Err(ProviderError::invalid(message))
}

fn key(headers: &Headers) -> Checked {
    let is_given = |name| {
        headers
            .get(name)
            .is_some_and(|value: &String| !value.trim().is_empty())
    };
    if is_given("x-api-key") || is_given("authorization") {
        return Ok(());
    }
    Err(ProviderError::new(
        ErrorKind::Unauthorized,
        "x-api-key header is required",
    ))
}

fn settings(raw: &Value) -> Checked {
    if raw["max_tokens"].is_null() {
        return refuse("max_tokens: Field required");
    }
    if raw["max_tokens"].as_u64().is_none_or(|tokens| tokens == 0) {
        return refuse("max_tokens: Input should be greater than or equal to 1");
    }
    if items(raw, "stop_sequences")
        .iter()
        .any(|text| text.as_str().is_none_or(blank))
    {
        return refuse("stop_sequences: each stop sequence must contain non-whitespace");
    }
    Ok(())
}

fn sampling(version: &str, raw: &Value) -> Checked {
    let given = ["temperature", "top_p", "top_k"]
        .into_iter()
        .find(|name| !raw[name].is_null());
    if let Some(name) = given.filter(|_| version == LATEST) {
        return refuse(format!("{name}: Extra inputs are not permitted"));
    }
    if !in_range(raw, "temperature", 0.0, 1.0) {
        return refuse("temperature: range: 0..1");
    }
    if !in_range(raw, "top_p", 0.0, 1.0) {
        return refuse("top_p: range: 0..1");
    }
    if !raw["top_k"].is_null() && raw["top_k"].as_u64().is_none() {
        return refuse("top_k: Input should be a valid integer");
    }
    let model = raw["model"].as_str().unwrap_or_default();
    if WITHOUT_SAMPLING.iter().any(|family| model.contains(family)) {
        let is_default =
            in_range(raw, "temperature", 1.0, 1.0) && in_range(raw, "top_p", 0.99, 1.0);
        if !is_default || !raw["top_k"].is_null() {
            let name = given.unwrap_or_default();
            return refuse(format!(
                "{name}: setting it is not supported for this model"
            ));
        }
    }
    let is_picky = ["opus-4-1", "opus-4-5", "sonnet-4-5", "haiku-4-5", "-4-6"];
    let both = !raw["temperature"].is_null() && !raw["top_p"].is_null();
    if both && is_picky.iter().any(|name| model.contains(name)) {
        return refuse(
            "`temperature` and `top_p` cannot both be specified for this model. Please use only one.",
        );
    }
    Ok(())
}

fn blank(text: &str) -> bool {
    text.trim().is_empty()
}

fn system(raw: &Value) -> Checked {
    match &raw["system"] {
        Value::Null => Ok(()),
        Value::String(text) if !text.is_empty() => Ok(()),
        Value::Array(blocks) if blocks.iter().all(|b| !b["text"].as_str().is_none_or(blank)) => {
            Ok(())
        }
        _ => refuse("system: text content blocks must be non-empty"),
    }
}

fn tools(raw: &Value) -> Checked {
    let mut names = BTreeSet::new();
    for (at, tool) in items(raw, "tools").iter().enumerate() {
        let name = tool["name"].as_str().unwrap_or_default();
        if !is_tool_name(name, 128) {
            return refuse(format!(
                "tools.{at}.custom.name: String should match pattern '^[a-zA-Z0-9_-]{{1,128}}$'"
            ));
        }
        if !names.insert(name) {
            return refuse("tools: Tool names must be unique.");
        }
        let is_custom = tool["type"].is_null() || tool["type"] == "custom";
        if is_custom && tool["input_schema"].is_null() {
            return refuse(format!("tools.{at}.custom.input_schema: Field required"));
        }
        if let Some(reason) = fault_in(&tool["input_schema"]).filter(|_| is_custom) {
            return refuse(format!("tools.{at}.custom.input_schema: {reason}"));
        }
    }
    if !raw["tool_choice"].is_null() && names.is_empty() {
        return refuse("tool_choice may only be specified while providing tools");
    }
    Ok(())
}

fn spoken(at: usize, message: &Value, is_last: bool) -> Checked {
    let role = message["role"].as_str().unwrap_or_default();
    if !["user", "assistant", "system"].contains(&role) {
        return refuse(format!(
            "messages.{at}.role: Input should be 'user', 'assistant' or 'system'"
        ));
    }
    let may_be_empty = role == "assistant" && is_last;
    match &message["content"] {
        Value::String(text) if text.is_empty() => empty(at, may_be_empty),
        Value::Array(blocks) if blocks.is_empty() => empty(at, may_be_empty),
        Value::String(text) => words(text, may_be_empty),
        Value::Array(blocks) => blocks.iter().enumerate().try_for_each(|(index, part)| {
            block(&format!("messages.{at}.content.{index}"), role, part)
        }),
        _ => refuse(format!(
            "messages.{at}.content: Input should be a valid string or list"
        )),
    }
}

fn empty(at: usize, may_be_empty: bool) -> Checked {
    if may_be_empty {
        return Ok(());
    }
    refuse(format!(
        "messages.{at}: all messages must have non-empty content except for the optional final \
         assistant message"
    ))
}

fn words(text: &str, is_final_assistant: bool) -> Checked {
    if blank(text) {
        return refuse("messages: text content blocks must contain non-whitespace text");
    }
    if is_final_assistant && text.ends_with(char::is_whitespace) {
        return refuse("messages: final assistant content cannot end with trailing whitespace");
    }
    Ok(())
}

fn block(path: &str, role: &str, block: &Value) -> Checked {
    match (block["type"].as_str(), role) {
        (Some("text"), _) => match block["text"].as_str() {
            Some("") => refuse("messages: text content blocks must be non-empty"),
            Some(text) => words(text, false),
            None => refuse(format!("{path}.text.text: Field required")),
        },
        (Some("tool_use"), "assistant") => {
            if !block["id"].as_str().is_some_and(|id| is_tool_name(id, 512)) {
                return refuse(format!(
                    "{path}.tool_use.id: String should match pattern '^[a-zA-Z0-9_-]+$'"
                ));
            }
            if block["name"].as_str().is_none_or(str::is_empty) {
                return refuse(format!("{path}.tool_use.name: Field required"));
            }
            if !block["input"].is_object() {
                return refuse(format!(
                    "{path}.tool_use.input: Input should be a valid dictionary"
                ));
            }
            Ok(())
        }
        (Some("tool_result"), "user") if block["tool_use_id"].is_string() => Ok(()),
        (Some("tool_result"), "user") => {
            refuse(format!("{path}.tool_result.tool_use_id: Field required"))
        }
        (Some("tool_use"), _) => {
            refuse("messages: `tool_use` blocks can only be in `assistant` messages")
        }
        (Some("tool_result"), _) => {
            refuse("messages: `tool_result` blocks can only be in `user` messages")
        }
        (Some("thinking" | "redacted_thinking"), "assistant") => Ok(()),
        (Some("image" | "document" | "search_result"), "user") => Ok(()),
        (kind, _) => refuse(format!(
            "{path}: Input tag '{}' is not expected",
            kind.unwrap_or("none")
        )),
    }
}

/// Every `tool_use` must be answered at the beginning of the next message, and nothing else may be.
fn paired(messages: &[Value]) -> Checked {
    let mut seen = BTreeSet::new();
    let mut asked: Vec<&str> = Vec::new();
    for (at, message) in messages.iter().enumerate() {
        let blocks = items(message, "content");
        let answers = blocks
            .iter()
            .take_while(|block| block["type"] == "tool_result");
        let answered: Vec<&str> = answers.filter_map(|b| b["tool_use_id"].as_str()).collect();
        let missing: Vec<&str> = asked
            .iter()
            .filter(|id| !answered.contains(id))
            .copied()
            .collect();
        if !missing.is_empty() {
            return unanswered(at - 1, &missing);
        }
        for (index, block) in blocks.iter().enumerate() {
            let id = block["tool_use_id"].as_str().unwrap_or_default();
            if block["type"] == "tool_result" && !asked.contains(&id) {
                return refuse(format!(
                    "messages.{at}.content.{index}: unexpected `tool_use_id` found in `tool_result` \
                     blocks: {id}. Each `tool_result` block must have a corresponding `tool_use` \
                     block in the previous message."
                ));
            }
        }
        if answered.len() != answered.iter().collect::<BTreeSet<_>>().len() {
            return refuse(format!(
                "messages.{at}.content: each tool_use must have a single result. Found multiple \
                 `tool_result` blocks with the same id."
            ));
        }
        let calls = blocks.iter().filter(|block| block["type"] == "tool_use");
        asked = calls.filter_map(|block| block["id"].as_str()).collect();
        if !asked.iter().all(|id| seen.insert(*id)) {
            return refuse("messages: `tool_use` ids must be unique");
        }
    }
    if asked.is_empty() {
        Ok(())
    } else {
        unanswered(messages.len() - 1, &asked)
    }
}

fn unanswered(at: usize, ids: &[&str]) -> Checked {
    refuse(format!(
        "messages.{at}: `tool_use` ids were found without `tool_result` blocks immediately after: {}. \
         Each `tool_use` block must have a corresponding `tool_result` block in the next message.",
        ids.join(", ")
    ))
}

/// At most four places may be marked for the cache.
fn cached(raw: &Value) -> Checked {
    let marks = count_marks(raw);
    if marks > 4 {
        return refuse(format!(
            "A maximum of 4 blocks with cache_control may be provided. Found {marks}."
        ));
    }
    Ok(())
}

fn count_marks(value: &Value) -> usize {
    match value {
        Value::Object(members) => {
            let here = usize::from(members.get("cache_control").is_some_and(Value::is_object));
            here + members.values().map(count_marks).sum::<usize>()
        }
        Value::Array(items) => items.iter().map(count_marks).sum(),
        _ => 0,
    }
}
