//! What a conversation must be: its messages are answered in the order in which they were accepted, one at a time, and
//! it holds each that was answered, once; where it is summed up, the summary and all after it.

use std::collections::BTreeMap;

use domain::{ConversationId, Message, Status};
use store::Store;

use super::super::agents::Kind;
use super::super::load::Accepted;
use super::book::Book;
use super::{Case, Check, Findings};

/// More than one conversation gets.
const ALL: usize = 10_000;
/// How a summary begins that takes the place of older messages.
const SUMMARY: &str = "[Summary of the conversation so far]";

/// An execution of a conversation that the model was asked about.
struct Talk<'a> {
    case: &'a Case,
    /// The request with which it began.
    began: usize,
    /// The request for its last turn.
    last: usize,
}

/// I5.
pub(super) async fn check(
    store: &dyn Store,
    accepted: &[Accepted],
    cases: &[Case],
    book: &Book,
    findings: &mut Findings,
) {
    let mut conversations: BTreeMap<&ConversationId, Vec<Talk<'_>>> = BTreeMap::new();
    for case in cases {
        let asked = book.first_and_last_turn(&case.name);
        if let (Some(name), Some((began, last))) = (&case.row.execution.conversation, asked) {
            let talks = conversations.entry(name).or_default();
            talks.push(Talk { case, began, last });
        }
    }
    for (name, mut talks) in conversations {
        talks.sort_by_key(|talk| talk.began);
        one_at_a_time(name, &talks, findings);
        in_order(name, &talks, accepted, findings);
        what_was_said_is_kept(store, name, &talks, findings).await;
    }
}

fn one_at_a_time(name: &ConversationId, talks: &[Talk<'_>], findings: &mut Findings) {
    for pair in talks.windows(2) {
        if pair[0].last >= pair[1].began {
            findings.wrong(
                Check::OutOfTurn,
                format!(
                    "{name}: {} began before {} was done",
                    pair[1].case.name, pair[0].case.name
                ),
            );
        }
    }
}

/// Of two of which one was known to be accepted before the other was asked for, that one began first.
fn in_order(
    name: &ConversationId,
    talks: &[Talk<'_>],
    accepted: &[Accepted],
    findings: &mut Findings,
) {
    let between = |talk: &Talk<'_>| {
        let promise = accepted.iter().find(|it| it.order.name == talk.case.name);
        promise.map(|promise| promise.between)
    };
    for (at, talk) in talks.iter().enumerate() {
        for later in talks.iter().skip(at + 1) {
            let (Some(first), Some(second)) = (between(talk), between(later)) else {
                continue;
            };
            if second.1 < first.0 {
                findings.wrong(
                    Check::OutOfTurn,
                    format!(
                        "{name}: {} was accepted before {} was asked for, and began after it",
                        later.case.name, talk.case.name
                    ),
                );
            }
        }
    }
}

async fn what_was_said_is_kept(
    store: &dyn Store,
    name: &ConversationId,
    talks: &[Talk<'_>],
    findings: &mut Findings,
) {
    let answered = talks
        .iter()
        .filter(|talk| talk.case.row.status == Status::Completed);
    let expected: Vec<&str> = answered.map(|talk| talk.case.name.as_str()).collect();
    let Some(first) = talks.first().map(|talk| talk.case) else {
        return;
    };
    let agent = &first.row.execution.agent;
    let messages = store.conversation(agent, name, ALL).await.unwrap();
    let is_completed = |text: &&str| expected.contains(text);
    let kept: Vec<&str> = messages
        .iter()
        .filter_map(|message| match message {
            Message::User { text } => Some(text.as_str()),
            Message::Assistant(_) | Message::Tool { .. } => None,
        })
        .filter(is_completed)
        .collect();
    let is_summed_up = match messages.first() {
        Some(Message::User { text }) => first.kind == Kind::Chronicler && text.starts_with(SUMMARY),
        _ => false,
    };
    if kept != expected && !(is_summed_up && expected.ends_with(&kept)) {
        findings.wrong(
            Check::OutOfTurn,
            format!("{name} holds {kept:?}, answered were {expected:?}"),
        );
    }
}
