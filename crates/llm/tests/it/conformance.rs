//! What every provider must do, asked of each in turn.

use agentrunner_llm::{ChatModel, Chunk, Limits, fold};
use domain::definition::Provider;
use domain::retry::ModelErrorClass as Class;
use domain::{Message, Reply, StopReason, Tokens, ToolCall};
use serde_json::json;
use testkit::provider::{Answer, Fault, Stop, ToolCall as Wanted, Usage, per_turn};
use testkit::{Outcome, ProviderStandIn};

use crate::support::{
    FACES, ask, chunks, config, impatient, providers, request, result, results, say, tool, user,
};

#[tokio::test]
async fn text_streams_in_order_and_is_counted() {
    let text = "Grüße — 你好, a longer sentence, so that it comes in pieces.";
    let usage = Usage {
        input: 100,
        cache_read: 40,
        cache_write: 2,
        output: 9,
    };
    let stand_in = ProviderStandIn::start(move |_| Answer::say(text).usage(usage));
    let providers = providers(&stand_in);
    for face in FACES {
        let config = config(face, json!({}));
        let stream = providers.chat(request(&config, &[user("hi")], &[])).await;
        let chunks = chunks(stream.unwrap()).await;
        let said: Vec<&str> = chunks
            .iter()
            .map_while(|chunk| match chunk {
                Chunk::Text(text) => Some(text.as_str()),
                _ => None,
            })
            .collect();
        assert!(said.len() > 3, "{face:?}: {chunks:?}");
        assert_eq!(said.concat(), text, "{face:?}");
        let [Chunk::Usage(usage), Chunk::Stop(StopReason::EndTurn)] = &chunks[said.len()..] else {
            panic!("{face:?}: {chunks:?}");
        };
        assert_eq!(usage.input_tokens, Tokens(142), "{face:?}");
        assert_eq!(usage.output_tokens, Tokens(9), "{face:?}");
        let cached = if face == Provider::Ollama { 0 } else { 40 };
        assert_eq!(usage.cached_tokens, Tokens(cached), "{face:?}");
    }
    assert_eq!(stand_in.rejections(), [""; 0]);
}

#[tokio::test]
async fn parallel_calls_go_out_and_their_results_come_back() {
    let stand_in = ProviderStandIn::start(per_turn([
        Answer::call("one", json!({"a": 1, "text": "a \"quoted\" 你"}))
            .and_call("two", json!({}))
            .and_call("one", json!({"a": [1, {"b": null}]})),
        Answer::say("all done"),
    ]));
    let providers = providers(&stand_in);
    let tools = [tool("one"), tool("two")];
    for face in FACES {
        let config = config(face, json!({}));
        let mut messages = vec![user("go")];
        let first = ask(&providers, request(&config, &messages, &tools))
            .await
            .unwrap();
        assert_eq!(first.reply.stop, StopReason::ToolUse, "{face:?}");
        let calls = &first.reply.tool_calls;
        let shown: Vec<_> = calls
            .iter()
            .map(|call| {
                (
                    call.name.as_str(),
                    serde_json::from_str(&call.arguments).unwrap(),
                )
            })
            .collect();
        let wanted = [
            ("one", json!({"a": 1, "text": "a \"quoted\" 你"})),
            ("two", json!({})),
            ("one", json!({"a": [1, {"b": null}]})),
        ];
        assert_eq!(shown, wanted, "{face:?}");
        assert_ne!(calls[0].id, calls[2].id, "{face:?}");

        messages.push(Message::Assistant(first.reply.clone()));
        messages.extend(results(&first.reply).into_iter().rev());
        let second = ask(&providers, request(&config, &messages, &tools))
            .await
            .unwrap();
        assert_eq!(second.reply.text, "all done", "{face:?}");
        let heard = stand_in.requests().pop().unwrap().request;
        let heard: Vec<_> = heard
            .messages
            .iter()
            .flat_map(|message| &message.tool_results)
            .map(|result| result.text.clone())
            .collect();
        assert_eq!(
            heard,
            ["result of one", "result of two", "result of one"],
            "{face:?}"
        );
    }
    assert_eq!(stand_in.rejections(), [""; 0]);
}

#[tokio::test]
async fn the_end_says_why() {
    for (stop, wanted) in [
        (Stop::Length, StopReason::MaxTokens),
        (Stop::ContentFilter, StopReason::Refusal),
        (Stop::StopSequence, StopReason::StopSequence),
    ] {
        let stand_in = ProviderStandIn::start(move |_| Answer::say("so far").stop(stop));
        for face in FACES {
            let answer = say(&providers(&stand_in), face, "hi").await.unwrap();
            // OpenAI calls a stop sequence an end; Ollama knows nothing but ends and lengths.
            let wanted = match (face, wanted) {
                (_, StopReason::MaxTokens) | (Provider::Anthropic | Provider::Bedrock, _) => wanted,
                (Provider::Openai, StopReason::Refusal) => wanted,
                _ => StopReason::EndTurn,
            };
            assert_eq!(answer.reply.stop, wanted, "{face:?} {stop:?}");
        }
    }
}

#[tokio::test]
async fn where_the_network_cuts_does_not_matter() {
    let text = "é你🦀 in pieces";
    for size in [1, 2, 3, 7, 1000] {
        let stand_in = ProviderStandIn::start(move |_| {
            Answer::say(text)
                .and_call("one", json!({"a": "é你🦀"}))
                .in_chunks_of(size)
        });
        for face in FACES {
            let config = config(face, json!({}));
            let messages = [user("hi")];
            let tools = [tool("one")];
            let asked = request(&config, &messages, &tools);
            let reply = ask(&providers(&stand_in), asked).await.unwrap().reply;
            assert_eq!(reply.text, text, "{face:?} {size}");
            assert_eq!(
                reply.tool_calls[0].arguments, "{\"a\":\"é你🦀\"}",
                "{face:?} {size}"
            );
        }
    }
}

#[tokio::test]
async fn arguments_that_are_no_json_reach_the_engine_as_they_are() {
    let stand_in = ProviderStandIn::start(|request| match request.turn {
        0 => Answer::call_malformed("one", "{\"a\": 1,"),
        _ => Answer::say("sorry"),
    });
    for face in FACES {
        let config = config(face, json!({}));
        let tools = [tool("one")];
        let mut messages = vec![user("hi")];
        let answer = ask(&providers(&stand_in), request(&config, &messages, &tools)).await;
        let reply = answer.unwrap().reply;
        assert_eq!(reply.tool_calls[0].arguments, "{\"a\": 1,", "{face:?}");
        messages.push(Message::Assistant(reply.clone()));
        messages.extend(results(&reply));
        let answer = ask(&providers(&stand_in), request(&config, &messages, &tools)).await;
        assert_eq!(answer.unwrap().reply.text, "sorry", "{face:?}");
    }
    assert_eq!(stand_in.rejections(), [""; 0]);
}

/// Models write anything, and journals keep it. No provider may be asked what it must refuse.
#[tokio::test]
async fn a_conversation_full_of_nonsense_is_accepted() {
    let reply = |text: &str, calls: &[(&str, &str, &str)]| {
        let call = |(id, name, arguments): &(&str, &str, &str)| ToolCall {
            id: (*id).to_owned(),
            name: (*name).to_owned(),
            arguments: (*arguments).to_owned(),
        };
        Message::Assistant(Reply {
            text: text.to_owned(),
            tool_calls: calls.iter().map(call).collect(),
            stop: StopReason::ToolUse,
            provider_data: Some(json!({"anthropic": {"model": "other", "blocks": [{"x": 1}]}})),
        })
    };
    let messages = [
        reply("I begin. ", &[]),
        user(""),
        user("again"),
        reply(
            " ",
            &[("call_0", "one", "{}"), ("call_0", "no such tool!", "[")],
        ),
        result("call_0", "one", ""),
        user("in between"),
        result("call_0", "no such tool!", "unknown tool"),
        reply("", &[("call_0", "one", ""), ("", "", "null")]),
        result("lost", "one", "lost"),
        reply("", &[]),
        user("\n"),
        reply("", &[(&"x".repeat(100), &"n".repeat(100), "{\"a\":1}")]),
        result(&"x".repeat(100), "one", "found"),
    ];
    let stand_in = ProviderStandIn::start(|_| Answer::say("fine"));
    for face in FACES {
        let config = config(face, json!({}));
        let asked = request(&config, &messages, &[]);
        let answer = ask(&providers(&stand_in), asked).await;
        assert_eq!(answer.unwrap().reply.text, "fine", "{face:?}");
    }
    assert_eq!(stand_in.rejections(), [""; 0]);
}

#[tokio::test]
async fn an_answer_that_is_not_whole_never_counts() {
    let answer = || {
        Answer::say("The beginning of an answer that goes on for some time.")
            .and_call("one", json!({"a": 1}))
    };
    for fault in [
        Fault::Cut { after: None },
        Fault::Cut { after: Some(2) },
        Fault::EndEarly { after: None },
        Fault::EndEarly { after: Some(0) },
        Fault::HalfEvent,
        Fault::Garbage { after: None },
    ] {
        let broken = fault.clone();
        let stand_in = ProviderStandIn::start(move |_| answer().fault(broken.clone()));
        for face in FACES {
            let error = say(&providers(&stand_in), face, "hi").await.unwrap_err();
            assert_eq!(error.class, Class::Garbled, "{face:?} {fault:?}: {error}");
        }
    }
}

#[tokio::test]
async fn a_provider_that_falls_silent_is_given_up() {
    for fault in [Fault::Silence { after: None }, Fault::NeverAnswer] {
        let silent = fault.clone();
        let stand_in =
            ProviderStandIn::start(move |_| Answer::say("and then").fault(silent.clone()));
        for face in FACES {
            let error = say(&impatient(&stand_in), face, "hi").await.unwrap_err();
            assert_eq!(error.class, Class::TimedOut, "{face:?} {fault:?}: {error}");
        }
    }
    let stand_in = ProviderStandIn::start(|_| Answer::say("never").fault(Fault::Reset));
    for face in FACES {
        let error = say(&providers(&stand_in), face, "hi").await.unwrap_err();
        assert_eq!(error.class, Class::Unavailable, "{face:?}: {error}");
    }
}

#[tokio::test]
async fn an_answer_without_end_is_stopped_and_its_connection_closed() {
    let stand_in = ProviderStandIn::start(|_| Answer::say("on ").fault(Fault::Endless));
    let limits = Limits {
        reply_bytes: 100_000,
        ..Limits::default()
    };
    for (number, face) in FACES.into_iter().enumerate() {
        let config = config(face, json!({}));
        let messages = [user("hi")];
        let stream = providers(&stand_in)
            .chat(request(&config, &messages, &[]))
            .await;
        let mut heard = 0;
        let count = |chunk: &Chunk| {
            if let Chunk::Text(text) = chunk {
                heard += text.len();
            }
        };
        let error = fold(stream.unwrap(), count, &limits).await.unwrap_err();
        assert_eq!(error.class, Class::Garbled, "{face:?}: {error}");
        assert!(heard < 101_000, "{face:?}: {heard}");
        let is_over =
            |all: &[testkit::provider::Recorded]| all[number].outcome == Outcome::Abandoned;
        stand_in.wait_until(is_over).await;
    }
}

#[tokio::test]
async fn more_calls_than_allowed_are_stopped() {
    let calls: Vec<_> = (0..300)
        .map(|n| Wanted::new("one", json!({"n": n})))
        .collect();
    let stand_in = ProviderStandIn::start(move |_| Answer {
        tool_calls: calls.clone(),
        ..Answer::default()
    });
    for face in FACES {
        let error = say(&providers(&stand_in), face, "hi").await.unwrap_err();
        assert_eq!(error.class, Class::Garbled, "{face:?}: {error}");
        assert!(
            error.message.contains("256 tool calls"),
            "{face:?}: {error}"
        );
    }
}

#[tokio::test]
async fn a_gigabyte_in_one_line_is_not_read() {
    let stand_in = ProviderStandIn::start(|_| Answer::say("").fault(Fault::Huge { bytes: None }));
    for (number, face) in FACES.into_iter().enumerate() {
        let error = say(&providers(&stand_in), face, "hi").await.unwrap_err();
        assert_eq!(error.class, Class::Garbled, "{face:?}: {error}");
        let is_over =
            |all: &[testkit::provider::Recorded]| all[number].outcome == Outcome::Abandoned;
        stand_in.wait_until(is_over).await;
    }
}

#[tokio::test]
async fn dropping_the_stream_closes_the_connection() {
    let silent = Fault::Silence { after: Some(3) };
    let stand_in = ProviderStandIn::start(move |_| {
        Answer::say("The beginning of a long answer").fault(silent.clone())
    });
    for (number, face) in FACES.into_iter().enumerate() {
        let config = config(face, json!({}));
        let messages = [user("hi")];
        let stream = providers(&stand_in)
            .chat(request(&config, &messages, &[]))
            .await;
        drop(stream.unwrap());
        let is_over =
            |all: &[testkit::provider::Recorded]| all[number].outcome == Outcome::Abandoned;
        stand_in.wait_until(is_over).await;
    }
}
