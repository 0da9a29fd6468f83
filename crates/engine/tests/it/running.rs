//! An execution from submission to its end.

use std::sync::atomic::Ordering;
use std::time::Duration;

use domain::definition::Effect;
use domain::execution::FailureCode;
use domain::retry::ModelErrorClass;
use domain::{Message, Outcome, Status, StepBody};
use serde_json::json;

use crate::rig::{Rig, Say, definition, tool};

fn failure(class: ModelErrorClass) -> Say {
    Say::Fail(llm::Error {
        class,
        message: "no".to_owned(),
        retry_after: None,
        source: None,
    })
}

fn completed(outcome: &Outcome) -> &str {
    match outcome {
        Outcome::Completed { output, .. } => output,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tools_are_called_and_the_answer_is_journaled() {
    let tools =
        json!({ "tools": [tool("read", Effect::ReadOnly), tool("put", Effect::Idempotent)] });
    let rig = Rig::start(tools, |turn, request| match turn {
        0 => Say::Tools(vec![("read", json!({})), ("put", json!({ "n": 1 }))]),
        _ => {
            let results = request.messages.iter().filter(|m| {
                matches!(
                    m,
                    Message::Tool {
                        is_error: false,
                        ..
                    }
                )
            });
            if results.count() == 2 {
                Say::Text("both done")
            } else {
                Say::Text("not both")
            }
        }
    })
    .await;
    let id = rig.submit().await;
    assert_eq!(completed(&rig.outcome(id).await), "both done");
    let kinds = rig.kinds(id).await;
    assert_eq!(
        kinds,
        [
            "model_call",
            "tool_intent",
            "tool_intent",
            "tool_result",
            "tool_result",
            "model_call",
            "finished"
        ]
    );
    let row = rig.store.execution(id).await.unwrap().unwrap();
    assert_eq!(
        (row.status, row.totals.model_calls, row.totals.tool_calls),
        (Status::Completed, 2, 2)
    );
    assert_eq!(row.due_at, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_model_gets_wrong_is_told_to_it() {
    let tools = json!({ "tools": [tool("read", Effect::ReadOnly)] });
    let rig = Rig::start(tools, |turn, request| match turn {
        0 => Say::Tools(vec![
            ("raed", json!({})),
            ("read", json!({ "n": "one" })),
            ("read", json!([])),
        ]),
        _ => {
            let errors: Vec<&str> = request
                .messages
                .iter()
                .filter_map(|m| match m {
                    Message::Tool {
                        content,
                        is_error: true,
                        ..
                    } => Some(content.as_str()),
                    _ => None,
                })
                .collect();
            let told = errors.len() == 3
                && errors[0].contains("did you mean \"read\"")
                && errors[1].contains("not valid")
                && errors[2].contains("must be a JSON object");
            if told {
                Say::Text("I see")
            } else {
                Say::Text("what?")
            }
        }
    })
    .await;
    let id = rig.submit().await;
    assert_eq!(completed(&rig.outcome(id).await), "I see");
    assert_eq!(rig.tools.count("read"), 0, "no call was made");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_model_is_asked_again_and_then_another_one() {
    let rig = Rig::start(
        json!({ "llm_config": { "provider": "scripted", "model": "one", "fallbacks": [{ "provider": "scripted", "model": "two" }] } }),
        |_, request| match request.config.model.as_str() {
            "two" => Say::Text("from two"),
            _ => failure(ModelErrorClass::Unavailable),
        },
    )
    .await;
    let id = rig.submit().await;
    assert_eq!(completed(&rig.outcome(id).await), "from two");
    assert_eq!(
        rig.kinds(id).await,
        ["timer", "timer", "timer", "model_call", "finished"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_request_is_not_repeated() {
    let rig = Rig::start(json!({}), |_, _| failure(ModelErrorClass::Auth)).await;
    let id = rig.submit().await;
    let outcome = rig.outcome(id).await;
    assert!(
        matches!(&outcome, Outcome::Failed(f) if f.code == FailureCode::ModelRejected),
        "{outcome:?}"
    );
    assert_eq!(rig.model.asked.load(Ordering::SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_misses_the_schema_is_sent_back() {
    let schema = json!({ "output_schema": { "type": "object", "required": ["n"], "properties": { "n": { "type": "integer" } } } });
    let rig = Rig::start(schema, |turn, request| {
        match (turn, request.messages.last()) {
            (0, _) => Say::Text("{\"n\": \"one\"}"),
            (_, Some(Message::User { text })) if text.contains("does not meet") => {
                Say::Text("```json\n{\"n\": 1}\n```")
            }
            _ => Say::Text("?"),
        }
    })
    .await;
    let id = rig.submit().await;
    match rig.outcome(id).await {
        Outcome::Completed { structured, .. } => assert_eq!(structured, Some(json!({ "n": 1 }))),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_never_stops_calling_tools_is_stopped() {
    let extra = json!({ "max_steps": 5, "tools": [tool("read", Effect::ReadOnly)] });
    let rig = Rig::start(extra, |_, _| Say::Tools(vec![("read", json!({}))])).await;
    let id = rig.submit().await;
    let outcome = rig.outcome(id).await;
    assert!(
        matches!(&outcome, Outcome::Failed(f) if f.code == FailureCode::MaxStepsExceeded),
        "{outcome:?}"
    );
    assert_eq!(rig.tools.count("read"), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_slow_execution_does_not_delay_another() {
    let tools = json!({ "tools": [tool("slow", Effect::ReadOnly)] });
    let rig = Rig::start(tools, |turn, request| match (turn, &request.messages[0]) {
        (0, Message::User { text }) if text == "go" => Say::Tools(vec![("slow", json!({}))]),
        _ => Say::Text("done"),
    })
    .await;
    let slow = rig.submit().await;
    rig.tools.entered.notified().await;
    let mut quick = agentrunner_engine::NewTask::new(
        "a",
        json!({ "prompt": "quick" }),
        "1".repeat(32).parse().unwrap(),
    );
    quick.timeout = Some(Duration::from_secs(30));
    let quick = rig.engine.submit(quick).await.unwrap().id;
    assert_eq!(completed(&rig.outcome(quick).await), "done");
    rig.tools.gate.add_permits(1);
    assert_eq!(completed(&rig.outcome(slow).await), "done");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_can_be_a_tool() {
    let rig = Rig::start(
        json!({ "tools": [{ "name": "b", "type": "agent" }] }),
        |turn, request| match (request.system, turn, request.messages.last()) {
            ("You are b.", _, _) => Say::Text("b's answer"),
            (_, 0, _) => Say::Tools(vec![("b", json!({}))]),
            (
                _,
                _,
                Some(Message::Tool {
                    content,
                    is_error: false,
                    ..
                }),
            ) if content == "b's answer" => Say::Text("b said it"),
            _ => Say::Text("b did not answer"),
        },
    )
    .await;
    rig.define(definition(
        json!({ "name": "b", "system_prompt": "You are b." }),
    ))
    .await;
    let id = rig.submit().await;
    assert_eq!(completed(&rig.outcome(id).await), "b said it");
    assert_eq!(
        rig.kinds(id).await,
        [
            "model_call",
            "child_started",
            "child_finished",
            "model_call",
            "finished"
        ]
    );
    let steps = rig.store.steps(id, None, 100).await.unwrap();
    let StepBody::ChildStarted { child, .. } = &steps[1].body else {
        panic!()
    };
    let child = rig.store.execution(*child).await.unwrap().unwrap();
    assert_eq!(child.execution.parent.unwrap().id, id);
    assert_eq!(
        child.execution.trace_id,
        rig.store
            .execution(id)
            .await
            .unwrap()
            .unwrap()
            .execution
            .trace_id
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_starts_each_agent_that_wants_it_once() {
    let rig = Rig::start(
        json!({ "event_subscriptions": ["orders.*"] }),
        |_, request| match &request.messages[0] {
            Message::User { text } if text.contains("\"n\": 7") => Say::Text("seen"),
            _ => Say::Text("what?"),
        },
    )
    .await;
    rig.define(definition(
        json!({ "name": "b", "event_subscriptions": ["#"] }),
    ))
    .await;
    rig.define(definition(
        json!({ "name": "c", "event_subscriptions": ["orders"] }),
    ))
    .await;
    let event = |id: &str, hops: u8| domain::Event {
        id: id.parse().unwrap(),
        topic: "orders.new".parse().unwrap(),
        source: "test".to_owned(),
        time: chrono::Utc::now(),
        trace_id: "1".repeat(32).parse().unwrap(),
        hops,
        data: json!({ "n": 7 }),
    };
    for id in ["e1", "e1", "e2"] {
        rig.engine.publish(event(id, 0)).await.unwrap();
    }
    rig.engine.publish(event("looped", 17)).await.unwrap();
    let started = async |agent: &str| {
        let filter = store::ExecutionFilter {
            agent: Some(agent.parse().unwrap()),
            ..Default::default()
        };
        rig.store
            .executions(
                filter,
                store::Page {
                    limit: 100,
                    after: None,
                },
            )
            .await
            .unwrap()
            .0
    };
    let wait = async {
        while started("a").await.len() < 2
            || rig
                .store
                .dead_letters(store::Page {
                    limit: 9,
                    after: None,
                })
                .await
                .unwrap()
                .is_empty()
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), wait)
        .await
        .expect("the events arrive");
    let mine = started("a").await;
    assert_eq!(mine.len(), 2, "one execution for each event id");
    assert!(started("c").await.is_empty(), "its pattern does not match");
    assert_eq!(completed(&rig.outcome(mine[0].execution.id).await), "seen");
    let letters = rig
        .store
        .dead_letters(store::Page {
            limit: 9,
            after: None,
        })
        .await
        .unwrap();
    assert!(letters[0].reason.contains("loop"), "{}", letters[0].reason);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_runs_no_more_at_once_than_it_says() {
    let extra = json!({ "concurrency": 1, "tools": [tool("slow", Effect::ReadOnly)] });
    let rig = Rig::start(extra, |turn, _| match turn {
        0 => Say::Tools(vec![("slow", json!({}))]),
        _ => Say::Text("done"),
    })
    .await;
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.push(rig.submit().await);
    }
    for done in 1..=4 {
        rig.tools.entered.notified().await;
        assert_eq!(
            rig.tools.count("slow"),
            done,
            "the next begins only when the one before is done"
        );
        rig.tools.gate.add_permits(1);
    }
    for id in ids {
        assert_eq!(completed(&rig.outcome(id).await), "done");
        let row = rig.store.execution(id).await.unwrap().unwrap();
        assert!(
            row.epoch.get() < 20,
            "it was claimed and handed back {} times",
            row.epoch
        );
    }
}
