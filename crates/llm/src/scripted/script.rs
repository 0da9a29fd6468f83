//! What a script says: rules, when they fit, and what is filled into their texts.

use std::borrow::Cow;
use std::time::Duration;

use domain::retry::ModelErrorClass;
use domain::{Message, StopReason, Usage};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::Error;

/// The longest delay of a script, in milliseconds.
const LONGEST_DELAY: u64 = 3_600_000;

/// A script: the first rule that fits gives the answer.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
pub(super) struct Script {
    /// Its rules in order.
    pub(super) rules: Vec<Rule>,
}

/// When it fits, and what is answered then.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, try_from = "WrittenRule")]
pub(super) struct Rule {
    pub(super) when: When,
    pub(super) reply: Option<String>,
    pub(super) tool_calls: Vec<ScriptedCall>,
    pub(super) delay_ms: u64,
    pub(super) chunk_delay_ms: u64,
    pub(super) error: Option<ScriptedError>,
    pub(super) usage: Option<Usage>,
    pub(super) stop: Option<StopReason>,
}

/// A rule as it is written, before it is looked at.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenRule {
    #[serde(default)]
    when: When,
    reply: Option<String>,
    #[serde(default)]
    tool_calls: Vec<ScriptedCall>,
    #[serde(default)]
    delay_ms: u64,
    #[serde(default)]
    chunk_delay_ms: u64,
    error: Option<ScriptedError>,
    usage: Option<Usage>,
    stop: Option<StopReason>,
}

impl TryFrom<WrittenRule> for Rule {
    type Error = String;

    fn try_from(written: WrittenRule) -> Result<Self, String> {
        if written.reply.is_none() && written.tool_calls.is_empty() && written.error.is_none() {
            return Err("a rule needs a reply, tool_calls or an error".to_owned());
        }
        if written.when.turn == Some(0) {
            return Err("turn counts from 1: the first answer to a prompt is turn 1".to_owned());
        }
        if written.delay_ms.max(written.chunk_delay_ms) > LONGEST_DELAY {
            return Err(format!("a delay is at most {LONGEST_DELAY} ms"));
        }
        Ok(Self {
            when: written.when,
            reply: written.reply,
            tool_calls: written.tool_calls,
            delay_ms: written.delay_ms,
            chunk_delay_ms: written.chunk_delay_ms,
            error: written.error,
            usage: written.usage,
            stop: written.stop,
        })
    }
}

impl Rule {
    /// Whether it has an answer besides its error.
    pub(super) fn says_something(&self) -> bool {
        self.reply.is_some() || !self.tool_calls.is_empty()
    }
}

/// Conditions, all of which must hold. Texts are compared without regard to case.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct When {
    /// The model's turn since the last prompt, from 1.
    turn: Option<u32>,
    /// The last prompt contains this.
    prompt_contains: Option<String>,
    /// The last prompt as a whole is this, where `*` stands for anything.
    prompt_matches: Option<String>,
    /// The last tool that answered since the last prompt.
    tool: Option<String>,
    /// Its result contains this.
    tool_result_contains: Option<String>,
    /// Any message of the conversation contains this.
    conversation_contains: Option<String>,
}

/// A tool call.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ScriptedCall {
    /// The tool.
    pub(super) name: String,
    /// Its arguments.
    #[serde(default = "no_arguments")]
    pub(super) arguments: Value,
}

fn no_arguments() -> Value {
    Value::Object(Map::new())
}

/// An error in place of an answer.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ScriptedError {
    class: ModelErrorClass,
    message: Option<String>,
    retry_after_seconds: Option<f64>,
    /// How often, in one trace and at one point of the conversation; always when absent.
    pub(super) times: Option<u32>,
}

impl ScriptedError {
    pub(super) fn made(&self, script: &str) -> Error {
        let message = self.message.as_deref().unwrap_or("an error");
        let wait = self
            .retry_after_seconds
            .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        Error::new(self.class, format!("the script {script} says: {message}")).after(wait)
    }
}

/// Where a conversation stands.
pub(super) struct Place<'a> {
    /// The model's turn since the last prompt, from 1.
    pub(super) turn: u32,
    /// The last prompt.
    pub(super) prompt: &'a str,
    /// The last tool that answered since then, and its result.
    pub(super) tool: Option<(&'a str, &'a str)>,
}

impl<'a> Place<'a> {
    pub(super) fn of(messages: &'a [Message]) -> Self {
        let mut place = Self {
            turn: 1,
            prompt: "",
            tool: None,
        };
        for message in messages {
            match message {
                Message::User { text } => {
                    place = Self {
                        turn: 1,
                        prompt: text,
                        tool: None,
                    };
                }
                Message::Assistant(_) => place.turn += 1,
                Message::Tool { name, content, .. } => place.tool = Some((name, content)),
            }
        }
        place
    }

    /// Replaces `{prompt}`, `{last_tool}`, `{last_tool_result}` and `{turn}`, in one pass: what is filled in is not
    /// looked at again.
    pub(super) fn fill<'t>(&self, text: &'t str) -> Cow<'t, str> {
        if !text.contains('{') {
            return Cow::Borrowed(text);
        }
        let (tool, result) = self.tool.unwrap_or_default();
        let turn = self.turn.to_string();
        let values = [
            ("{prompt}", self.prompt),
            ("{last_tool}", tool),
            ("{last_tool_result}", result),
            ("{turn}", turn.as_str()),
        ];
        let mut filled = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find('{') {
            let (before, from) = rest.split_at(at);
            filled.push_str(before);
            let hit = values.iter().find(|(name, _)| from.starts_with(name));
            let (name, value) = hit.copied().unwrap_or(("{", "{"));
            filled.push_str(value);
            rest = from.strip_prefix(name).unwrap_or_default();
        }
        filled.push_str(rest);
        Cow::Owned(filled)
    }

    /// The same in every text of a JSON value.
    pub(super) fn fill_in(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.fill(text).into_owned()),
            Value::Array(items) => items.iter().map(|item| self.fill_in(item)).collect(),
            Value::Object(members) => members
                .iter()
                .map(|(name, member)| (name.clone(), self.fill_in(member)))
                .collect(),
            other => other.clone(),
        }
    }
}

impl When {
    /// Whether all conditions hold.
    pub(super) fn fits(&self, place: &Place<'_>, messages: &[Message]) -> bool {
        let (tool, result) = place.tool.unzip();
        let all = |wanted: &Option<String>, holds: &dyn Fn(&str) -> bool| {
            wanted.as_deref().is_none_or(holds)
        };
        self.turn.is_none_or(|turn| turn == place.turn)
            && all(&self.prompt_contains, &|text| contains(place.prompt, text))
            && all(&self.prompt_matches, &|glob| matches(place.prompt, glob))
            && all(&self.tool, &|name| tool == Some(name))
            && all(&self.tool_result_contains, &|text| {
                result.is_some_and(|result| contains(result, text))
            })
            && all(&self.conversation_contains, &|text| {
                messages
                    .iter()
                    .any(|message| contains(words(message), text))
            })
    }
}

fn words(message: &Message) -> &str {
    match message {
        Message::User { text } => text,
        Message::Assistant(reply) => &reply.text,
        Message::Tool { content, .. } => content,
    }
}

fn contains(text: &str, part: &str) -> bool {
    text.contains(part) || text.to_lowercase().contains(&part.to_lowercase())
}

/// Whether a text is a pattern in which `*` stands for anything. Greedy from both ends, so linear in the text.
fn matches(text: &str, glob: &str) -> bool {
    let (text, glob) = (text.trim().to_lowercase(), glob.trim().to_lowercase());
    let Some((first, later)) = glob.split_once('*') else {
        return text == glob;
    };
    let Some(mut rest) = text.strip_prefix(first) else {
        return false;
    };
    let (middle, last) = later.rsplit_once('*').unwrap_or(("", later));
    let Some(end) = rest.len().checked_sub(last.len()) else {
        return false;
    };
    let Some((body, tail)) = rest.split_at_checked(end) else {
        return false;
    };
    if tail != last {
        return false;
    }
    rest = body;
    for part in middle.split('*').filter(|part| !part.is_empty()) {
        match rest.find(part) {
            Some(at) => rest = rest.get(at + part.len()..).unwrap_or_default(),
            None => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stand_for_anything() {
        for (text, glob, fits) in [
            ("Hello there", "hello*", true),
            ("Hello there", "*THERE", true),
            ("Hello there", "h*l*e", true),
            ("Hello there", "hello", false),
            ("Hello there", "h*x*e", false),
            ("aba", "ab*ba", false),
            ("", "*", true),
            ("", "", true),
            ("x", "", false),
            ("é1é", "é*é", true),
        ] {
            assert_eq!(matches(text, glob), fits, "{text} {glob}");
        }
    }

    #[test]
    fn placeholders_are_filled_once() {
        let place = Place {
            turn: 2,
            prompt: "{turn}",
            tool: Some(("t", "r")),
        };
        let filled = place.fill("{prompt} {last_tool}={last_tool_result} {turn} {other} {");
        assert_eq!(filled, "{turn} t=r 2 {other} {");
    }
}
