//! Folding: in whatever pieces an answer comes, it is the same answer.

use agentrunner_llm::{Chunk, Limits, fold};
use domain::retry::ModelErrorClass as Class;
use domain::{Reply, StopReason, Tokens, ToolCall, Usage};
use futures::executor::block_on;
use futures::stream;
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::json;

fn folded(chunks: Vec<Chunk>, limits: &Limits) -> Result<agentrunner_llm::Answer, Class> {
    let stream = Box::pin(stream::iter(chunks.into_iter().map(Ok)));
    block_on(fold(stream, |_| {}, limits)).map_err(|error| error.class)
}

/// Cuts a text at any characters.
fn pieces(text: &str, cuts: &[usize]) -> Vec<String> {
    let characters: Vec<char> = text.chars().collect();
    let mut bounds: Vec<usize> = cuts
        .iter()
        .map(|cut| cut % (characters.len() + 1))
        .collect();
    bounds.extend([0, characters.len()]);
    bounds.sort_unstable();
    bounds
        .windows(2)
        .map(|pair| characters[pair[0]..pair[1]].iter().collect())
        .collect()
}

proptest! {
    #[test]
    fn any_chunking_folds_to_the_same_reply(
        text in ".{0,60}",
        arguments in vec("\\{\"[a-z]{1,5}\":[0-9]{1,9}\\}", 0..5),
        cuts in vec(any::<usize>(), 0..12),
        places in Just((0..5usize).collect::<Vec<_>>()).prop_shuffle(),
    ) {
        let calls: Vec<ToolCall> = arguments.iter().enumerate().map(|(n, arguments)| ToolCall {
            id: format!("id{n}"), name: format!("tool{n}"), arguments: arguments.clone(),
        }).collect();
        let mut chunks: Vec<Chunk> = pieces(&text, &cuts).into_iter().map(Chunk::Text).collect();
        // Calls begin in any order, and their arguments are interleaved.
        let order: Vec<usize> = places.into_iter().filter(|place| *place < calls.len()).collect();
        for index in &order {
            let call = &calls[*index];
            chunks.push(Chunk::ToolCall { index: *index, id: call.id.clone(), name: call.name.clone() });
        }
        for round in 0..cuts.len() + 1 {
            for index in &order {
                let pieces = pieces(&calls[*index].arguments, &cuts);
                chunks.push(Chunk::Arguments { index: *index, fragment: pieces[round].clone() });
            }
        }
        chunks.push(Chunk::Usage(Usage::default()));
        let usage = Usage { input_tokens: Tokens(1), output_tokens: Tokens(2), cached_tokens: Tokens(0) };
        chunks.push(Chunk::Usage(usage));
        chunks.push(Chunk::Stop(StopReason::EndTurn));
        let answer = folded(chunks, &Limits::default()).unwrap();
        let stop = if calls.is_empty() { StopReason::EndTurn } else { StopReason::ToolUse };
        prop_assert_eq!(answer.reply, Reply { text, tool_calls: calls, stop, provider_data: None });
        prop_assert_eq!(answer.usage, usage);
    }

    #[test]
    fn a_stream_of_anything_is_an_answer_or_an_error(
        kinds in vec((0..6u8, any::<usize>(), ".{0,8}"), 0..40),
    ) {
        let limits = Limits { reply_bytes: 64, tool_calls: 4, arguments_bytes: 64 };
        let chunk = |(kind, index, text): (u8, usize, String)| match kind {
            0 => Chunk::Text(text),
            1 => Chunk::ToolCall { index: index % 6, id: text.clone(), name: text },
            2 => Chunk::Arguments { index: index % 6, fragment: text },
            3 => Chunk::ProviderData(json!(text)),
            4 => Chunk::Usage(Usage::default()),
            _ => Chunk::Stop(StopReason::ToolUse),
        };
        if let Ok(answer) = folded(kinds.into_iter().map(chunk).collect(), &limits) {
            prop_assert!(answer.reply.text.len() <= 64);
            prop_assert!(answer.reply.tool_calls.len() <= 4);
        }
    }
}

#[test]
fn without_its_end_mark_it_is_no_answer() {
    let begun = |index| Chunk::ToolCall {
        index,
        id: String::new(),
        name: String::new(),
    };
    let stop = Chunk::Stop(StopReason::EndTurn);
    let limits = Limits::default();
    let garbled = Err(Class::Garbled);
    assert_eq!(folded(vec![], &limits), garbled);
    assert_eq!(
        folded(vec![Chunk::Text("whole?".to_owned())], &limits),
        garbled
    );
    assert_eq!(
        folded(vec![begun(0), begun(0), stop.clone()], &limits),
        garbled
    );
    let lost = Chunk::Arguments {
        index: usize::MAX,
        fragment: "{}".to_owned(),
    };
    assert_eq!(folded(vec![lost, stop.clone()], &limits), garbled);
    let answer = folded(vec![begun(usize::MAX), begun(3), stop], &limits).unwrap();
    assert_eq!(answer.reply.tool_calls.len(), 2);
    assert_eq!(answer.reply.tool_calls[0].arguments, "{}");
}
