//! What Converse refuses, in AWS's own words where they are known.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::provider::answer::ProviderError;
use crate::provider::request::items;
use crate::provider::schema::{fault_in, in_range, is_count, is_tool_name, unknown};

type Checked = Result<(), ProviderError>;

const FIELDS: &str = "\
    additionalModelRequestFields additionalModelResponseFieldPaths guardrailConfig inferenceConfig messages \
    outputConfig performanceConfig projectIdentifier promptVariables requestMetadata serviceTier system toolConfig";
const INFERENCE: &str = "maxTokens stopSequences temperature topP";
/// What a block may be; it is one of them.
const BLOCKS: &str = "\
    audio cachePoint citationsContent document guardContent image reasoningContent searchResult text toolResult \
    toolUse video";

pub(super) fn check(raw: &Value) -> Checked {
    if !raw.is_object() {
        return refuse("The request body is not valid JSON");
    }
    // The real service passes over what it does not know, which hides slips of the pen.
    if let Some(field) = unknown(raw, FIELDS) {
        return refuse(format!("testkit: Converse has no field '{field}'"));
    }
    inference(&raw["inferenceConfig"])?;
    system(raw)?;
    let messages = items(raw, "messages");
    let Some(first) = messages.first() else {
        return refuse("A conversation must have at least one message.");
    };
    for (at, message) in messages.iter().enumerate() {
        spoken(at, message)?;
    }
    if first["role"] != "user" {
        return refuse(
            "A conversation must start with a user message. Try again with a conversation that starts with a user \
             message.",
        );
    }
    let is_turn = |pair: &[Value]| pair[0]["role"] != pair[1]["role"];
    if !messages.windows(2).all(is_turn) {
        return refuse(
            "A conversation must alternate between user and assistant roles. Make sure the conversation alternates \
             between user and assistant roles and try again.",
        );
    }
    paired(messages)?;
    tools(raw, messages)?;
    cached(raw)
}

fn refuse(message: impl Into<String>) -> Checked {
    Err(ProviderError::invalid(message))
}

fn inference(config: &Value) -> Checked {
    if let Some(field) = unknown(config, INFERENCE) {
        return refuse(format!("testkit: inferenceConfig has no field '{field}'"));
    }
    if !is_count(config, "maxTokens") {
        return refuse(
            "Value at 'inferenceConfig.maxTokens' failed to satisfy constraint: Member must have value greater than \
             or equal to 1",
        );
    }
    for member in ["temperature", "topP"] {
        if !in_range(config, member, 0.0, 1.0) {
            return refuse(format!(
                "Value at 'inferenceConfig.{member}' failed to satisfy constraint: Member must have value less than \
                 or equal to 1"
            ));
        }
    }
    let stops = items(config, "stopSequences");
    if stops
        .iter()
        .any(|stop| stop.as_str().is_none_or(str::is_empty))
    {
        return refuse("Value at 'inferenceConfig.stopSequences' failed to satisfy constraint");
    }
    Ok(())
}

fn is_blank(text: &Value) -> bool {
    text.as_str().is_none_or(|text| text.trim().is_empty())
}

fn system(raw: &Value) -> Checked {
    for (at, block) in items(raw, "system").iter().enumerate() {
        if block.get("cachePoint").is_none() && is_blank(&block["text"]) {
            return refuse(format!(
                "The text field in the SystemContentBlock object at system.{at} is blank. Add text to the text \
                 field, and try again."
            ));
        }
    }
    Ok(())
}

fn spoken(at: usize, message: &Value) -> Checked {
    let role = message["role"].as_str().unwrap_or_default();
    if !["user", "assistant"].contains(&role) {
        return refuse(format!(
            "Value '{role}' at 'messages.{}.member.role' failed to satisfy constraint: Member must satisfy enum \
             value set: [user, assistant]",
            at + 1
        ));
    }
    let blocks = items(message, "content");
    if blocks.is_empty() {
        return refuse(format!(
            "The content field in the Message object at messages.{at} is empty. Add a ContentBlock object to the \
             content field and try again."
        ));
    }
    blocks
        .iter()
        .enumerate()
        .try_for_each(|(index, part)| block(&format!("messages.{at}.content.{index}"), role, part))
}

fn block(path: &str, role: &str, block: &Value) -> Checked {
    let members = block.as_object().map_or(0, serde_json::Map::len);
    if members != 1 || unknown(block, BLOCKS).is_some() {
        return refuse(format!(
            "The ContentBlock object at {path} must set one of the following keys: text, image, toolUse, toolResult, \
             document, video, cachePoint, reasoningContent"
        ));
    }
    if let Some(text) = block.get("text") {
        return match is_blank(text) {
            true => refuse(format!(
                "The text field in the ContentBlock object at {path} is blank. Add text to the text field, and try \
                 again."
            )),
            false => Ok(()),
        };
    }
    if let Some(call) = block.get("toolUse") {
        if role != "assistant" {
            return refuse(format!(
                "toolUse blocks can't be in messages of the user ({path})"
            ));
        }
        id(path, "toolUse", call)?;
        let name = call["name"].as_str().unwrap_or_default();
        if !is_tool_name(name, 64) {
            return pattern(path, "toolUse.name", name);
        }
        if !call["input"].is_object() {
            return refuse(format!(
                "The format of the value at {path}.toolUse.input is invalid. Provide a json object for the field and \
                 try again."
            ));
        }
    }
    if let Some(result) = block.get("toolResult") {
        if role != "user" {
            return refuse(format!(
                "toolResult blocks can't be in messages of the assistant ({path})"
            ));
        }
        id(path, "toolResult", result)?;
        for (at, part) in items(result, "content").iter().enumerate() {
            if part.get("text").is_some_and(is_blank) {
                return refuse(format!(
                    "The text field in the ContentBlock object at {path}.toolResult.content.{at} is blank. Add text \
                     to the text field, and try again."
                ));
            }
        }
        if !result["content"].is_array() {
            return refuse(format!(
                "The content field at {path}.toolResult is required."
            ));
        }
    }
    if block.get("reasoningContent").is_some() && role != "assistant" {
        return refuse(format!(
            "reasoningContent can only be in messages of the assistant ({path})"
        ));
    }
    Ok(())
}

fn id(path: &str, kind: &str, block: &Value) -> Checked {
    let id = block["toolUseId"].as_str().unwrap_or_default();
    if is_tool_name(&id.replace(['.', ':'], "-"), 64) {
        return Ok(());
    }
    pattern(path, &format!("{kind}.toolUseId"), id)
}

fn pattern(path: &str, member: &str, value: &str) -> Checked {
    refuse(format!(
        "Value '{value}' at '{path}.{member}' failed to satisfy constraint: Member must satisfy regular expression \
         pattern: [a-zA-Z0-9_-]+"
    ))
}

/// The ids that the blocks of this kind have in a message.
fn ids<'a>(message: &'a Value, kind: &'a str) -> Vec<&'a str> {
    let blocks = items(message, "content").iter();
    blocks
        .filter_map(|block| block.get(kind)?["toolUseId"].as_str())
        .collect()
}

/// Every call must be answered in the next message, and nothing else may be.
fn paired(messages: &[Value]) -> Checked {
    let mut asked: Vec<&str> = Vec::new();
    for (at, message) in messages.iter().enumerate() {
        let answered = ids(message, "toolResult");
        let missing: Vec<&str> = asked
            .iter()
            .filter(|id| !answered.contains(id))
            .copied()
            .collect();
        if !missing.is_empty() {
            return expected(at, &missing);
        }
        if answered.len() > asked.len() || answered.iter().any(|id| !asked.contains(id)) {
            return refuse(format!(
                "The number of toolResult blocks at messages.{at}.content exceeds the number of toolUse blocks of \
                 previous turn."
            ));
        }
        asked = ids(message, "toolUse");
        if asked.iter().collect::<BTreeSet<_>>().len() != asked.len() {
            return refuse(format!("messages.{at}: toolUse ids must be unique"));
        }
    }
    if asked.is_empty() {
        return Ok(());
    }
    expected(messages.len(), &asked)
}

fn expected(at: usize, ids: &[&str]) -> Checked {
    refuse(format!(
        "Expected toolResult blocks at messages.{at}.content for the following Ids: {}",
        ids.join(", ")
    ))
}

fn tools(raw: &Value, messages: &[Value]) -> Checked {
    let config = &raw["toolConfig"];
    let has_calls = messages
        .iter()
        .any(|message| !ids(message, "toolUse").is_empty());
    if config.is_null() {
        return match has_calls {
            true => refuse(
                "The toolConfig field must be defined when using toolUse and toolResult content blocks.",
            ),
            false => Ok(()),
        };
    }
    let mut names = BTreeSet::new();
    let specs = items(config, "tools")
        .iter()
        .filter_map(|tool| tool.get("toolSpec"));
    for (at, tool) in specs.enumerate() {
        let path = format!("toolConfig.tools.{at}");
        let name = tool["name"].as_str().unwrap_or_default();
        if !is_tool_name(name, 64) {
            return pattern(&path, "toolSpec.name", name);
        }
        if !names.insert(name) {
            return refuse(format!(
                "The tool {name} is already defined at toolConfig.tools."
            ));
        }
        if tool.get("description").is_some_and(is_blank) {
            return refuse(format!(
                "Value at '{path}.toolSpec.description' failed to satisfy constraint: Member must have length \
                 greater than or equal to 1"
            ));
        }
        let schema = &tool["inputSchema"]["json"];
        if schema["type"] != "object" {
            return refuse(format!(
                "The value at {path}.toolSpec.inputSchema.json.type must be one of the following: object."
            ));
        }
        if let Some(reason) = fault_in(schema) {
            return refuse(format!("{path}.toolSpec.inputSchema.json: {reason}"));
        }
    }
    if names.is_empty() {
        return refuse(
            "Value at 'toolConfig.tools' failed to satisfy constraint: Member must have length greater than or equal \
             to 1",
        );
    }
    Ok(())
}

/// At most four places may be marked for the cache.
fn cached(raw: &Value) -> Checked {
    let marks = marks(raw);
    if marks > 4 {
        return refuse(format!(
            "A maximum of 4 blocks with cache_control may be provided. Found {marks}."
        ));
    }
    Ok(())
}

fn marks(value: &Value) -> usize {
    match value {
        Value::Object(members) => {
            let here = usize::from(members.contains_key("cachePoint"));
            here + members.values().map(marks).sum::<usize>()
        }
        Value::Array(items) => items.iter().map(marks).sum(),
        _ => 0,
    }
}
