//! A conversation as every provider wants it: results right after their calls, ids unique, arguments objects.
//!
//! A journal holds what models wrote, and models write anything: ids that repeat, names with spaces, arguments
//! that are no JSON. Providers refuse such a conversation, and would refuse it for ever. So it is put in order
//! here, always in the same way, which keeps the provider's prompt cache warm.

use std::borrow::Cow;
use std::collections::HashSet;

use domain::{Message, Reply, ToolCall};
use serde_json::value::{RawValue, to_raw_value};

/// The longest id of a call; OpenAI allows no more.
const LONGEST_ID: usize = 40;
/// The longest name of a tool; OpenAI allows no more.
const LONGEST_NAME: usize = 64;
/// How deep arguments may be nested. What is deeper is an attack on parsers.
const DEEPEST: usize = 100;
/// How much of arguments that are no object is shown to the model again, in characters.
const LONGEST_MALFORMED: usize = 2000;

/// A turn of the conversation.
#[derive(Debug)]
pub(crate) enum Turn<'a> {
    /// What the user side says.
    User(&'a str),
    /// What the model said and called. It is never empty.
    Assistant {
        /// The answer.
        reply: &'a Reply,
        /// Its calls.
        calls: Vec<Call<'a>>,
    },
    /// One result for each call of the turn before, in the same order.
    Results(Vec<CallResult<'a>>),
}

/// A tool call that providers accept.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    /// An id that no other call of the conversation has.
    pub(crate) id: Cow<'a, str>,
    /// The tool's name, in letters that every provider allows.
    pub(crate) name: Cow<'a, str>,
    /// A JSON object.
    pub(crate) arguments: Cow<'a, RawValue>,
}

/// The result of a call.
#[derive(Debug)]
pub(crate) struct CallResult<'a> {
    /// The id of the call.
    pub(crate) id: Cow<'a, str>,
    /// The tool's name, as in the call.
    pub(crate) name: Cow<'a, str>,
    /// The result as text.
    pub(crate) content: &'a str,
    /// Whether it is an error.
    pub(crate) is_error: bool,
}

/// What is said when there is nothing to say: providers refuse empty messages.
const NO_WORDS: &str = "(empty message)";
/// What stands for a result that is missing, which a whole journal never has.
const NO_RESULT: &str = "there is no result: the call was not made";

/// Puts a conversation in order.
pub(crate) fn turns(messages: &[Message]) -> Vec<Turn<'_>> {
    let mut turns = Vec::with_capacity(messages.len());
    let mut ids = HashSet::new();
    let mut rest = messages;
    while let Some((message, after)) = rest.split_first() {
        rest = after;
        match message {
            Message::User { text } => turns.push(user(text)),
            // Its call was pruned away.
            Message::Tool { .. } => {}
            Message::Assistant(reply) => {
                let is_next = |message: &Message| matches!(message, Message::Assistant(_));
                let end = after.iter().position(is_next).unwrap_or(after.len());
                let (followers, later) = after.split_at(end);
                rest = later;
                answered(
                    reply,
                    followers,
                    messages.len() - later.len(),
                    &mut ids,
                    &mut turns,
                );
            }
        }
    }
    turns
}

fn user(text: &str) -> Turn<'_> {
    Turn::User(if text.trim().is_empty() {
        NO_WORDS
    } else {
        text
    })
}

/// Adds a reply and what followed it: results first, in the order of the calls, then what the user said.
fn answered<'a>(
    reply: &'a Reply,
    followers: &'a [Message],
    place: usize,
    ids: &mut HashSet<Cow<'a, str>>,
    turns: &mut Vec<Turn<'a>>,
) {
    if !reply.text.trim().is_empty() || !reply.tool_calls.is_empty() {
        let calls: Vec<Call<'a>> = reply
            .tool_calls
            .iter()
            .enumerate()
            .map(|(index, call)| Call {
                id: unique_id(&call.id, place, index, ids),
                name: plain_name(&call.name),
                arguments: object(&call.arguments),
            })
            .collect();
        let results = results(&reply.tool_calls, &calls, followers);
        turns.push(Turn::Assistant { reply, calls });
        if !results.is_empty() {
            turns.push(Turn::Results(results));
        }
    }
    for message in followers {
        if let Message::User { text } = message {
            turns.push(user(text));
        }
    }
}

fn results<'a>(
    asked: &[ToolCall],
    calls: &[Call<'a>],
    followers: &'a [Message],
) -> Vec<CallResult<'a>> {
    let mut is_used = vec![false; followers.len()];
    let mut found = Vec::with_capacity(calls.len());
    for (asked, call) in asked.iter().zip(calls) {
        let mut result = CallResult {
            id: call.id.clone(),
            name: call.name.clone(),
            content: NO_RESULT,
            is_error: true,
        };
        for (message, is_used) in followers.iter().zip(&mut is_used) {
            if let Message::Tool {
                call_id,
                content,
                is_error,
                ..
            } = message
                && *call_id == asked.id
                && !*is_used
            {
                *is_used = true;
                result.content = content;
                result.is_error = *is_error;
                break;
            }
        }
        found.push(result);
    }
    found
}

fn unique_id<'a>(
    id: &'a str,
    place: usize,
    index: usize,
    ids: &mut HashSet<Cow<'a, str>>,
) -> Cow<'a, str> {
    let mut unique = Cow::Borrowed(id);
    let mut attempt = 0;
    while !is_plain(&unique, LONGEST_ID) || ids.contains(&unique) {
        unique = Cow::Owned(format!("call_{place}_{index}_{attempt}"));
        attempt += 1;
    }
    ids.insert(unique.clone());
    unique
}

fn plain_name(name: &str) -> Cow<'_, str> {
    if is_plain(name, LONGEST_NAME) {
        return Cow::Borrowed(name);
    }
    let allowed = |c: char| if is_allowed(c) { c } else { '_' };
    let plain: String = name.chars().take(LONGEST_NAME).map(allowed).collect();
    Cow::Owned(if plain.is_empty() {
        "unknown".to_owned()
    } else {
        plain
    })
}

fn is_plain(text: &str, longest: usize) -> bool {
    !text.is_empty() && text.len() <= longest && text.chars().all(is_allowed)
}

const fn is_allowed(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '_' | '-')
}

/// Arguments as an object. What is none is shown to the model as the text that it wrote.
fn object(arguments: &str) -> Cow<'_, RawValue> {
    let text = arguments.trim();
    if text.starts_with('{')
        && !is_too_deep(text)
        && let Ok(raw) = serde_json::from_str::<&RawValue>(text)
    {
        return Cow::Borrowed(raw);
    }
    let shown: String = text.chars().take(LONGEST_MALFORMED).collect();
    let substitute = if shown.is_empty() {
        serde_json::json!({})
    } else {
        serde_json::json!({ "malformed_arguments": shown })
    };
    Cow::Owned(to_raw_value(&substitute).unwrap_or_default())
}

/// Counts brackets outside strings.
fn is_too_deep(json: &str) -> bool {
    let (mut depth, mut in_string, mut is_escaped) = (0_usize, false, false);
    for byte in json.bytes() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if in_string => is_escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => {
                depth += 1;
                if depth > DEEPEST {
                    return true;
                }
            }
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use domain::StopReason;

    use super::*;

    fn says(text: &str, calls: &[(&str, &str, &str)]) -> Message {
        let call = |(id, name, arguments): &(&str, &str, &str)| ToolCall {
            id: (*id).to_owned(),
            name: (*name).to_owned(),
            arguments: (*arguments).to_owned(),
        };
        Message::Assistant(Reply {
            text: text.to_owned(),
            tool_calls: calls.iter().map(call).collect(),
            stop: StopReason::ToolUse,
            provider_data: None,
        })
    }

    fn result(id: &str, content: &str) -> Message {
        Message::Tool {
            call_id: id.to_owned(),
            name: "t".to_owned(),
            content: content.to_owned(),
            is_error: false,
        }
    }

    fn user(text: &str) -> Message {
        Message::User {
            text: text.to_owned(),
        }
    }

    /// One line for each turn.
    fn shown(messages: &[Message]) -> Vec<String> {
        let one = |turn: &Turn<'_>| match turn {
            Turn::User(text) => format!("user {text}"),
            Turn::Assistant { reply, calls } => {
                let calls = calls
                    .iter()
                    .map(|call| format!(" {}:{}{}", call.id, call.name, call.arguments.get()));
                format!("model {}{}", reply.text, calls.collect::<String>())
            }
            Turn::Results(results) => {
                let results = results
                    .iter()
                    .map(|result| format!(" {}:{}", result.id, result.content));
                format!("results{}", results.collect::<String>())
            }
        };
        turns(messages).iter().map(one).collect()
    }

    #[test]
    fn results_follow_their_calls_whatever_came_in_between() {
        let messages = [
            user("go"),
            says("", &[("a", "t", "{}"), ("b", "t", "{\"x\":1}")]),
            result("b", "two"),
            user("hurry"),
            result("a", "one"),
            says("done", &[]),
        ];
        assert_eq!(
            shown(&messages),
            [
                "user go",
                "model  a:t{} b:t{\"x\":1}",
                "results a:one b:two",
                "user hurry",
                "model done"
            ]
        );
    }

    #[test]
    fn what_a_model_should_not_have_written_is_put_in_order() {
        let messages = [
            says(
                "",
                &[("a", "t", "{}"), ("a", "no such/tool", "[1"), ("", "", "")],
            ),
            result("a", "one"),
            result("a", "two"),
            says("", &[("a", "t", "{}")]),
            says("", &[]),
            result("lost", "x"),
            user(" "),
        ];
        assert_eq!(
            shown(&messages),
            [
                "model  a:t{} call_3_1_0:no_such_tool{\"malformed_arguments\":\"[1\"} call_3_2_0:unknown{}",
                "results a:one call_3_1_0:two call_3_2_0:there is no result: the call was not made",
                "model  call_4_0_0:t{}",
                "results call_4_0_0:there is no result: the call was not made",
                "user (empty message)",
            ]
        );
    }

    #[test]
    fn arguments_nested_too_deep_are_not_passed_on() {
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(10_000), "]".repeat(10_000));
        assert!(object(&deep).get().starts_with("{\"malformed_arguments\""));
        let brackets_in_text = format!("{{\"a\":\"{}\"}}", "[".repeat(10_000));
        assert_eq!(object(&brackets_in_text).get(), brackets_in_text);
    }
}
