//! Ready-made behaviours. A behaviour is any function from a [`Request`] to an [`Answer`].

use std::sync::Mutex;

use serde_json::Value;

use super::answer::{Answer, ToolCall};
use super::request::Request;

/// Says the same to everybody.
pub fn say(text: impl Into<String>) -> impl Fn(&Request) -> Answer + Send + Sync {
    let answer = Answer::say(text);
    move |_| answer.clone()
}

/// Calls these tools in one turn, and says `then` once their results are there.
pub fn call_tools(
    calls: impl Into<Vec<ToolCall>>,
    then: impl Into<String>,
) -> impl Fn(&Request) -> Answer + Send + Sync {
    per_turn([
        Answer {
            tool_calls: calls.into(),
            ..Answer::default()
        },
        Answer::say(then),
    ])
}

/// Calls `tool` in the first `turns` turns of each task, with the number of the turn as `{"turn": n}`,
/// and then answers `done`. It knows the turn from the conversation, so it may be asked again.
pub fn n_turns_then_answer(
    turns: usize,
    tool: impl Into<String>,
) -> impl Fn(&Request) -> Answer + Send + Sync {
    let tool = tool.into();
    move |request| match request.turn {
        turn if turn < turns => Answer::call(&tool, serde_json::json!({ "turn": turn })),
        _ => Answer::say("done"),
    }
}

/// Answers with one answer after the other in order of arrival; the last one repeats.
///
/// # Panics
/// When there is no answer.
pub fn sequence(answers: impl Into<Vec<Answer>>) -> impl Fn(&Request) -> Answer + Send + Sync {
    let left = Mutex::new(nonempty(answers).into_iter());
    move |_| {
        let mut left = left.lock().expect("no holder panics");
        match left.as_slice() {
            [last] => last.clone(),
            _ => left.next().expect("the last answer stays"),
        }
    }
}

/// Answers by the turn of the conversation, whatever came before; the last answer repeats. A retry or
/// a recovery after a crash gets the same answer again.
///
/// # Panics
/// When there is no answer.
pub fn per_turn(answers: impl Into<Vec<Answer>>) -> impl Fn(&Request) -> Answer + Send + Sync {
    let answers = nonempty(answers);
    move |request| answers[request.turn.min(answers.len() - 1)].clone()
}

/// Fails the first `times` attempts of every request with `failure`, then does as `behaviour` says.
pub fn flaky(
    times: usize,
    failure: Answer,
    behaviour: impl Fn(&Request) -> Answer + Send + Sync,
) -> impl Fn(&Request) -> Answer + Send + Sync {
    move |request| {
        if request.attempt <= times {
            failure.clone()
        } else {
            behaviour(request)
        }
    }
}

fn nonempty(answers: impl Into<Vec<Answer>>) -> Vec<Answer> {
    let answers = answers.into();
    assert!(!answers.is_empty(), "a behaviour needs an answer");
    answers
}

/// Replaces `{{conversation}}`, `{{turn}}`, `{{number}}`, `{{attempt}}`, `{{last_user}}` and
/// `{{last_tool_result}}` in the texts and arguments of an answer.
pub(super) fn fill_in(mut answer: Answer, request: &Request) -> Answer {
    answer.text = fill_text(&answer.text, request);
    for call in &mut answer.tool_calls {
        call.name = fill_text(&call.name, request);
        fill_value(&mut call.arguments, request);
        call.malformed = call.malformed.as_ref().map(|text| fill_text(text, request));
    }
    answer
}

fn fill_text(text: &str, request: &Request) -> String {
    if !text.contains("{{") {
        return text.to_owned();
    }
    text.replace("{{conversation}}", &request.conversation)
        .replace("{{turn}}", &request.turn.to_string())
        .replace("{{number}}", &request.number.to_string())
        .replace("{{attempt}}", &request.attempt.to_string())
        .replace("{{last_user}}", request.last_user())
        .replace("{{last_tool_result}}", request.last_tool_result())
}

fn fill_value(value: &mut Value, request: &Request) {
    match value {
        Value::String(text) => *text = fill_text(text, request),
        Value::Array(items) => items.iter_mut().for_each(|item| fill_value(item, request)),
        Value::Object(members) => {
            members
                .values_mut()
                .for_each(|member| fill_value(member, request));
        }
        _ => {}
    }
}
