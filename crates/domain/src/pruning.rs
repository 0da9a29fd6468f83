//! What of a long transcript a model is shown.
//!
//! Two ways keep it within bounds: a window over the latest messages, and a digest that takes the place of the oldest.
//! Neither tears a tool call from its result, and both keep the message that the execution is about and the newest thing
//! that was said. The system prompt is no message: it is always there.

use std::borrow::Cow;
use std::ops::Range;

use crate::definition::{Definition, ExecutionMode, LlmConfig, Pruning};
use crate::execution::Execution;
use crate::message::Message;
use crate::quantity::Tokens;
use crate::state::State;

/// How the message begins that takes the place of older ones.
const DIGEST: &str = "[Summary of the conversation so far]\n";
/// What the model is told that writes it.
pub(crate) const SUMMARISER: &str = "You keep the memory of a conversation between a user and an assistant. Write a summary that can take its place: every fact, name, number, decision, promise and open question that may matter later, in the words of the conversation and in its language. Leave out greetings and repetitions. Write the summary and nothing else.";
/// The longest text of one message that the summariser is shown, in bytes.
const SHOWN_OF_ONE: usize = 8 << 10;
/// The longest conversation that the summariser is shown when nobody knows what its model can read, in bytes.
const SHOWN_OF_ALL: usize = 256 << 10;
/// How often an execution has its history summarised: once too long, and once more when the model could not read it.
const MAX_SUMMARIES: u32 = 2;
/// How often a transcript is pruned because the model could not read it.
pub const MAX_SQUEEZES: u32 = 4;
/// What is left for the messages at least, in tokens, however small a model is said to be.
const LEAST_ROOM: u64 = 256;
/// How much of a result is left at least when it is shortened, in bytes.
const LEAST_RESULT: usize = 200;

/// The bounds of what a model is shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fit {
    /// How many messages from before this execution.
    pub history: Option<usize>,
    /// How many bytes in all.
    pub bytes: Option<usize>,
    /// How many bytes of each tool's result.
    pub result: Option<usize>,
}

/// The bounds that hold for an execution, with a model that can read so much.
pub fn fit(
    definition: &Definition,
    execution: &Execution,
    state: &State,
    config: &LlmConfig,
    context_window: Option<Tokens>,
) -> Fit {
    let is_talk =
        definition.execution_mode == ExecutionMode::Continuous || execution.conversation.is_some();
    let own = definition.continuous_config.as_ref();
    let most = own.map_or(DEFAULT_HISTORY, |config| config.max_conversation_history);
    let by_model = context_window.map(|window| room(definition, config, window));
    let by_experience = state.ceiling.map(to_usize);
    Fit {
        // The message itself is one of them.
        history: is_talk.then(|| to_usize(u64::from(most)).saturating_sub(1)),
        bytes: match (by_model, by_experience) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        },
        result: by_experience.map(|bytes| (bytes / 4).max(LEAST_RESULT)),
    }
}

/// The history of an agent that does not say how long it is.
const DEFAULT_HISTORY: u32 = 100;
/// How many messages of a conversation are loaded at most so that they can be summarised.
const MOST_TO_SUMMARISE: u32 = 2000;

/// How many of the latest messages of a conversation an execution needs: those that may be shown, and those that have to
/// be summarised.
pub fn to_load(definition: &Definition) -> usize {
    let own = definition.continuous_config.as_ref();
    let most = own.map_or(DEFAULT_HISTORY, |config| config.max_conversation_history);
    let summarises = own.is_some_and(|c| c.conversation_pruning_strategy == Pruning::Summarize);
    to_usize(u64::from(if summarises { MOST_TO_SUMMARISE } else { most }))
}

/// How many bytes of messages fit beside the system prompt, the tools and the answer.
fn room(definition: &Definition, config: &LlmConfig, window: Tokens) -> usize {
    let answer = config
        .max_tokens
        .map_or(window.0 / 4, |max| max.0.min(window.0 / 2));
    let system = Tokens::estimate(definition.system_prompt.len() + definition.instructions.len());
    // Nobody has counted what the tools' descriptions take.
    let tools = if definition.tools.is_empty() {
        0
    } else {
        window.0 / 8
    };
    let left = window.0.saturating_sub(answer).saturating_sub(tools);
    let tokens = left.saturating_sub(system.0).max(LEAST_ROOM);
    to_usize(tokens.saturating_mul(Tokens::BYTES_EACH))
}

fn to_usize(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

/// What is shown of a transcript whose message number `own` is the one that the execution is about: all of it, or the
/// latest that fits, with that message, the newest, and a digest where there is one. What must be shown may be longer
/// than `fit` allows.
pub fn window(transcript: &[Message], own: usize, fit: Fit) -> Cow<'_, [Message]> {
    let runs = shown(transcript, own, fit);
    let is_all = matches!(runs.as_slice(), [all] if *all == (0..transcript.len()));
    let too_long = |message: &Message| match (message, fit.result) {
        (Message::Tool { content, .. }, Some(most)) => content.len() > most,
        _ => false,
    };
    if is_all && !transcript.iter().any(too_long) {
        return Cow::Borrowed(transcript);
    }
    let messages = runs.into_iter().flat_map(|run| transcript.get(run));
    let mut messages: Vec<Message> = messages.flatten().cloned().collect();
    if let Some(most) = fit.result {
        messages.iter_mut().for_each(|m| shorten(m, most));
    }
    Cow::Owned(messages)
}

/// How many of the oldest messages are to be summarised before the model is asked, if any: when the window would leave
/// some out, all but about half of what it could show, so that it need not be done again at once.
pub fn to_summarise(definition: &Definition, state: &State, fit: Fit) -> Option<u32> {
    let config = definition.continuous_config.as_ref()?;
    if config.conversation_pruning_strategy != Pruning::Summarize
        || state.summary_failed
        || state.summaries >= MAX_SUMMARIES
    {
        return None;
    }
    let (transcript, own) = (&state.transcript, state.own);
    let before = |runs: &[Range<usize>]| {
        let of_history = runs
            .iter()
            .map(|run| run.end.min(own).saturating_sub(run.start));
        of_history.sum::<usize>()
    };
    if before(&shown(transcript, own, fit)) >= own {
        return None;
    }
    let half = Fit {
        history: fit.history.map(|most| most / 2),
        bytes: fit.bytes.map(|bytes| bytes / 2),
        result: fit.result,
    };
    let has_digest = transcript.first().is_some_and(is_digest);
    let kept = shown(transcript, own, half);
    let first_kept = kept
        .iter()
        .map(|run| run.start)
        .find(|start| !(has_digest && *start == 0));
    let covers = first_kept.unwrap_or(own).min(own);
    // A digest of a digest alone says nothing new.
    (covers > usize::from(has_digest)).then(|| u32::try_from(covers).unwrap_or(u32::MAX))
}

/// A tighter bound than that under which the model could not read the transcript; none when less can't be shown.
pub fn tighter(state: &State, fit: Fit) -> Option<u64> {
    if state.squeezes >= MAX_SQUEEZES {
        return None;
    }
    let now = size(&window(&state.transcript, state.own, fit));
    let bytes = now / 2;
    let next = Fit {
        bytes: Some(bytes),
        result: Some((bytes / 4).max(LEAST_RESULT)),
        ..fit
    };
    (size(&window(&state.transcript, state.own, next)) < now).then_some(bytes as u64)
}

/// The message that takes the place of those that a summary covers.
pub(crate) fn digest(summary: &str) -> Message {
    Message::User {
        text: format!("{DIGEST}{}", summary.trim()),
    }
}

/// Whether a message is one that took the place of others.
pub fn is_digest(message: &Message) -> bool {
    matches!(message, Message::User { text } if text.starts_with(DIGEST))
}

/// A conversation as text, for the model that summarises it: the calls in it can't be shown as calls to a model that has
/// no tools.
pub(crate) fn as_text(messages: &[Message], fit: Fit) -> String {
    let most = fit.bytes.unwrap_or(SHOWN_OF_ALL).min(SHOWN_OF_ALL);
    let mut lines: Vec<String> = messages.iter().map(line).collect();
    let mut total: usize = lines.iter().map(|line| line.len() + 1).sum();
    // What there is no room for: the oldest, but not a digest of what came before.
    let first = usize::from(messages.first().is_some_and(is_digest));
    let mut drop_to = first;
    while total > most
        && let Some(line) = lines.get(drop_to)
    {
        total -= line.len() + 1;
        drop_to += 1;
    }
    lines.drain(first..drop_to);
    lines.join("\n")
}

fn line(message: &Message) -> String {
    match message {
        Message::User { text } => format!("User: {}", cut(text, SHOWN_OF_ONE)),
        Message::Assistant(reply) => {
            let mut line = format!("Assistant: {}", cut(&reply.text, SHOWN_OF_ONE));
            for call in &reply.tool_calls {
                let arguments = cut(&call.arguments, SHOWN_OF_ONE / 8);
                line.push_str(&format!(" [calls {} with {arguments}]", call.name));
            }
            line
        }
        Message::Tool {
            name,
            content,
            is_error,
            ..
        } => {
            let word = if *is_error { "error of" } else { "result of" };
            format!("[{word} {name}: {}]", cut(content, SHOWN_OF_ONE / 4))
        }
    }
}

/// What stands at the end of a text that was cut.
const CUT: &str = "… (cut off)";

/// The beginning of a text, with a word that it is not all; in all no longer than `most` bytes.
fn cut(text: &str, most: usize) -> Cow<'_, str> {
    if text.len() <= most {
        return Cow::Borrowed(text);
    }
    let beginning = |most: usize| {
        text.get(..text.floor_char_boundary(most))
            .unwrap_or_default()
    };
    match most.checked_sub(CUT.len()) {
        Some(room) => Cow::Owned(format!("{}{CUT}", beginning(room))),
        None => Cow::Borrowed(beginning(most)),
    }
}

fn shorten(message: &mut Message, most: usize) {
    if let Message::Tool { content, .. } = message
        && content.len() > most
    {
        *content = cut(content, most).into_owned();
    }
}

fn size(messages: &[Message]) -> usize {
    messages.iter().map(Message::bytes).sum()
}

/// What can't be torn apart: a message, or an answer with the results of its calls.
struct Unit {
    range: Range<usize>,
    is_user: bool,
    bytes: usize,
}

fn units(transcript: &[Message], fit: Fit) -> Vec<Unit> {
    let mut units: Vec<Unit> = Vec::new();
    for (index, message) in transcript.iter().enumerate() {
        let bytes = match (message, fit.result) {
            (Message::Tool { content, .. }, Some(most)) => {
                message.bytes() - content.len().saturating_sub(most)
            }
            _ => message.bytes(),
        };
        match (message, units.last_mut()) {
            (Message::Tool { .. }, Some(unit)) if !unit.is_user => {
                unit.range.end = index + 1;
                unit.bytes += bytes;
            }
            // A result without its call, at the torn end of an old window.
            (Message::Tool { .. }, _) => {}
            (Message::User { .. } | Message::Assistant(_), _) => units.push(Unit {
                range: index..index + 1,
                is_user: matches!(message, Message::User { .. }),
                bytes,
            }),
        }
    }
    units
}

/// Which messages are shown, as runs in order.
fn shown(transcript: &[Message], own: usize, fit: Fit) -> Vec<Range<usize>> {
    let units = units(transcript, fit);
    let last = units.len().saturating_sub(1);
    let newest_user = units.iter().rposition(|unit| unit.is_user);
    let has_digest = transcript.first().is_some_and(is_digest);
    let is_pinned = |index: usize, unit: &Unit| {
        unit.range.contains(&own)
            || index == last
            || Some(index) == newest_user
            || (has_digest && index == 0)
    };
    let pinned = units
        .iter()
        .enumerate()
        .filter(|(n, unit)| is_pinned(*n, unit));
    let pinned_bytes: usize = pinned.map(|(_, unit)| unit.bytes).sum();
    let mut bytes = fit.bytes.map(|most| most.saturating_sub(pinned_bytes));
    let digests = usize::from(has_digest && own > 0);
    let mut history = fit.history.map(|most| most.saturating_sub(digests));
    // From the newest back, until one does not fit.
    let mut from = units.len();
    for (index, unit) in units.iter().enumerate().rev() {
        if !is_pinned(index, unit) {
            let is_history = unit.range.start < own;
            let fits = bytes.is_none_or(|left| unit.bytes <= left)
                && (!is_history || history.is_none_or(|left| unit.range.len() <= left));
            if !fits {
                break;
            }
            bytes = bytes.map(|left| left - unit.bytes);
            if is_history {
                history = history.map(|left| left - unit.range.len());
            }
        }
        from = index;
    }
    // A conversation begins with what somebody says.
    while units
        .get(from)
        .is_some_and(|unit| !unit.is_user && unit.range.start < own)
    {
        from += 1;
    }
    let mut runs: Vec<Range<usize>> = Vec::new();
    for (index, unit) in units.iter().enumerate() {
        if index < from && !is_pinned(index, unit) {
            continue;
        }
        match runs.last_mut() {
            Some(run) if run.end == unit.range.start => run.end = unit.range.end,
            _ => runs.push(unit.range.clone()),
        }
    }
    runs
}

#[cfg(test)]
mod tests;
