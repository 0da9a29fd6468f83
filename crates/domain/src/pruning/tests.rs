//! What must hold whatever was said.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::message::{Reply, StopReason, ToolCall};

fn user(text: &str) -> Message {
    Message::User {
        text: text.to_owned(),
    }
}

fn assistant(text: &str, calls: usize) -> Message {
    let call = |n: usize| ToolCall {
        id: n.to_string(),
        name: "look".to_owned(),
        arguments: "{}".to_owned(),
    };
    Message::Assistant(Reply {
        text: text.to_owned(),
        tool_calls: (0..calls).map(call).collect(),
        stop: StopReason::EndTurn,
        provider_data: None,
    })
}

fn result(n: usize, content: &str) -> Message {
    Message::Tool {
        call_id: n.to_string(),
        name: "look".to_owned(),
        content: content.to_owned(),
        is_error: false,
    }
}

/// A conversation: each turn is what somebody says, and answers with so many calls of so long results.
fn talk(turns: &[Vec<(usize, usize)>]) -> Vec<Message> {
    let mut messages = Vec::new();
    for (n, answers) in turns.iter().enumerate() {
        messages.push(user(&format!("question {n}")));
        for (calls, length) in answers {
            messages.push(assistant("well", *calls));
            messages.extend((0..*calls).map(|call| result(call, &"x".repeat(*length))));
        }
    }
    messages
}

fn turns() -> impl Strategy<Value = Vec<Vec<(usize, usize)>>> {
    let answer = (0usize..4, 0usize..3000);
    prop::collection::vec(prop::collection::vec(answer, 0..4), 1..12)
}

fn fits() -> impl Strategy<Value = Fit> {
    let maybe = |most: usize| prop::option::of(0..most);
    (maybe(30), maybe(20_000), maybe(2_000)).prop_map(|(history, bytes, result)| Fit {
        history,
        bytes,
        result,
    })
}

fn is_user(message: &Message) -> bool {
    matches!(message, Message::User { .. })
}

/// The last thing that somebody said.
fn own(messages: &[Message]) -> usize {
    messages.iter().rposition(is_user).unwrap()
}

/// Whether each call has its results right behind it, and each result its call before it.
fn is_whole(messages: &[Message]) -> bool {
    let mut open = 0;
    for message in messages {
        match message {
            Message::Tool { .. } if open == 0 => return false,
            Message::Tool { .. } => open -= 1,
            _ if open > 0 => return false,
            Message::Assistant(reply) => open = reply.tool_calls.len(),
            Message::User { .. } => {}
        }
    }
    open == 0
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_window_is_whole_and_keeps_what_matters(turns in turns(), fit in fits(), first in any::<bool>()) {
        let mut messages = talk(&turns);
        if first {
            messages.insert(0, digest("before"));
        }
        let own = own(&messages);
        let shown = window(&messages, own, fit);
        prop_assert!(is_whole(&shown));
        prop_assert!(shown.first().is_some_and(is_user));
        prop_assert!(shown.contains(&messages[own]), "what it is about");
        if first {
            prop_assert!(is_digest(&shown[0]));
        }
        // The newest is there, shortened perhaps.
        let newest = |messages: &[Message]| std::mem::discriminant(messages.last().unwrap());
        prop_assert_eq!(newest(&shown), newest(&messages));
    }

    #[test]
    fn a_window_is_bounded(turns in turns(), fit in fits()) {
        let messages = talk(&turns);
        let own = own(&messages);
        let shown = window(&messages, own, fit);
        let behind = messages.len() - own;
        if let Some(most) = fit.history {
            prop_assert!(shown.len() <= most + behind);
        }
        if let Some(most) = fit.bytes {
            let nothing = window(&messages, own, Fit { bytes: Some(0), ..fit });
            prop_assert!(size(&shown) <= most.max(size(&nothing)));
        }
        if let Some(most) = fit.result {
            let longest = shown.iter().filter(|m| matches!(m, Message::Tool { .. })).map(Message::bytes).max();
            prop_assert!(longest.unwrap_or(0) <= most + "look".len());
        }
    }

    #[test]
    fn without_bounds_all_is_shown(turns in turns()) {
        let messages = talk(&turns);
        let shown = window(&messages, own(&messages), Fit::default());
        prop_assert_eq!(&*shown, messages.as_slice());
    }

    #[test]
    fn squeezing_ends(turns in turns()) {
        let mut state = state(talk(&turns));
        let mut times = 0;
        while let Some(bytes) = tighter(&state, Fit { bytes: state.ceiling.map(to_usize), ..Fit::default() }) {
            state.ceiling = Some(bytes);
            state.squeezes += 1;
            times += 1;
        }
        prop_assert!(times <= MAX_SQUEEZES);
    }

    #[test]
    fn what_is_summarised_is_history_and_whole(turns in turns(), fit in fits()) {
        let state = state(talk(&turns));
        if let Some(covers) = to_summarise(&summarising(), &state, fit) {
            let covers = covers as usize;
            prop_assert!(covers > 0 && covers <= state.own);
            prop_assert!(is_whole(&state.transcript[..covers]));
            prop_assert!(is_whole(&state.transcript[covers..]));
            prop_assert!(is_user(&state.transcript[covers]));
            // Afterwards there is less to do.
            let mut after = state.clone();
            after.transcript.splice(..covers, [digest("short")]);
            after.own = after.own + 1 - covers;
            prop_assert!(to_summarise(&summarising(), &after, fit).is_none_or(|more| (more as usize) < state.own));
        }
    }
}

fn state(transcript: Vec<Message>) -> State {
    let mut state = State::new(&execution());
    state.own = own(&transcript);
    state.transcript = transcript;
    state
}

fn summarising() -> Definition {
    serde_json::from_value(json!({
        "name": "a", "execution_mode": "continuous", "system_prompt": "You are a test.",
        "llm_config": { "provider": "scripted", "model": "m" },
        "continuous_config": { "conversation_pruning_strategy": "summarize" },
    }))
    .unwrap()
}

fn execution() -> Execution {
    serde_json::from_value(json!({
        "id": "01234567-89ab-7def-8123-456789abcdef", "agent": "a", "version": "0123456789abcdef",
        "mode": "continuous", "input": "go", "created_at": "2027-01-15T08:00:00Z",
        "deadline": "2027-01-15T09:00:00Z", "trace_id": "0af7651916cd43dd8448eb211c80319c",
    }))
    .unwrap()
}

#[test]
fn a_long_history_is_cut_at_what_somebody_said() {
    let messages = talk(&[vec![(1, 5)], vec![(0, 0)], vec![(0, 0)], vec![]]);
    let fit = |history| Fit {
        history: Some(history),
        ..Fit::default()
    };
    let first = |history| window(&messages, own(&messages), fit(history))[0].clone();
    assert_eq!(first(7), user("question 0"));
    assert_eq!(
        first(6),
        user("question 1"),
        "not in the middle of an answer"
    );
    assert_eq!(first(4), user("question 1"));
    assert_eq!(first(3), user("question 2"));
    assert_eq!(first(0), user("question 3"));
}

#[test]
fn a_digest_leaves_room_for_what_comes_next() {
    let turns = vec![vec![(0, 0)]; 10];
    let mut messages = talk(&turns);
    messages.push(user("and now?"));
    let state = state(messages);
    let fit = |history| Fit {
        history: Some(history),
        ..Fit::default()
    };
    assert_eq!(to_summarise(&summarising(), &state, fit(20)), None);
    assert_eq!(to_summarise(&summarising(), &state, fit(19)), Some(12));
}

#[test]
fn a_conversation_is_told_as_text() {
    let messages = [
        user("how warm is it?"),
        assistant("let me look", 1),
        result(0, "21"),
    ];
    assert_eq!(
        as_text(&messages, Fit::default()),
        "User: how warm is it?\nAssistant: let me look [calls look with {}]\n[result of look: 21]"
    );
    let short = Fit {
        bytes: Some(30),
        ..Fit::default()
    };
    assert_eq!(as_text(&messages, short), "[result of look: 21]");
}
