//! Unknown outcomes and approvals: what waits for a person, and what their answer does.

use chrono::Utc;
use domain::definition::Effect;
use domain::step::Answer;
use domain::{ExecutionId, Outcome, Status, ToolOutcome};
use serde_json::{Value, json};
use store::{InputAnswer, NewInput};

use crate::rig::{Rig, Say, tool};

async fn waiting(rig: &Rig, id: ExecutionId) {
    let wait = async {
        while rig.store.execution(id).await.unwrap().unwrap().status != Status::WaitingForInput {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), wait)
        .await
        .expect("it waits for a person");
}

async fn answer(rig: &Rig, id: ExecutionId, answer: Answer) -> InputAnswer {
    rig.engine
        .answer(NewInput {
            id,
            request: None,
            answer,
            by: "me".to_owned(),
            now: Utc::now(),
        })
        .await
        .unwrap()
}

async fn one_call(tool: Value) -> (Rig, ExecutionId) {
    let name: &'static str = if tool["name"] == "charge" {
        "charge"
    } else {
        "other"
    };
    let rig = Rig::start(json!({ "tools": [tool] }), move |turn, request| {
        match (turn, request.messages.last()) {
            (0, _) => Say::Tools(vec![(name, json!({}))]),
            (_, Some(domain::Message::Tool { is_error: true, .. })) => {
                Say::Text("told of an error")
            }
            _ => Say::Text("told of success"),
        }
    })
    .await;
    *rig.tools.answer.lock().unwrap() = Some(ToolOutcome::Unknown {
        message: "it went silent".to_owned(),
    });
    let id = rig.submit().await;
    (rig, id)
}

fn output(outcome: Outcome) -> String {
    match outcome {
        Outcome::Completed { output, .. } => output,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_outcome_waits_for_a_person_and_is_not_repeated() {
    let (rig, id) = one_call(tool("charge", Effect::Unsafe)).await;
    waiting(&rig, id).await;
    let row = rig.store.execution(id).await.unwrap().unwrap();
    assert_eq!(row.worker, None, "waiting holds no lease");
    assert!(row.status_reason.unwrap().contains("charge"));
    let did = Answer::Happened {
        result: "receipt 7".to_owned(),
    };
    assert!(matches!(
        answer(&rig, id, did).await,
        InputAnswer::Accepted { .. }
    ));
    assert_eq!(output(rig.outcome(id).await), "told of success");
    assert_eq!(rig.tools.count("charge"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_may_have_it_repeated_with_the_same_key() {
    let (rig, id) = one_call(tool("charge", Effect::Unsafe)).await;
    waiting(&rig, id).await;
    answer(&rig, id, Answer::Repeat).await;
    assert_eq!(output(rig.outcome(id).await), "told of success");
    let calls = rig.tools.calls.lock().unwrap().clone();
    assert_eq!(calls.len(), 2);
    assert_eq!(calls[0].1, calls[1].1, "the key is the same");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_answer_gets_the_first() {
    let (rig, id) = one_call(tool("charge", Effect::Unsafe)).await;
    waiting(&rig, id).await;
    let no = |reason: &str| Answer::Reject {
        reason: reason.to_owned(),
    };
    let (one, other) = tokio::join!(answer(&rig, id, no("one")), answer(&rig, id, no("other")));
    let accepted = [&one, &other]
        .iter()
        .filter(|a| matches!(a, InputAnswer::Accepted { .. }))
        .count();
    assert_eq!(accepted, 1, "{one:?} {other:?}");
    assert_eq!(output(rig.outcome(id).await), "told of an error");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_may_prefer_to_fail() {
    let mut charge = tool("charge", Effect::Unsafe);
    charge["on_unknown"] = json!("fail");
    let (rig, id) = one_call(charge).await;
    let outcome = rig.outcome(id).await;
    assert!(
        matches!(&outcome, Outcome::Failed(f) if f.message.contains("charge")),
        "{outcome:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idempotent_call_of_unknown_outcome_is_repeated_with_its_key() {
    let (rig, id) = one_call(tool("charge", Effect::Idempotent)).await;
    assert_eq!(output(rig.outcome(id).await), "told of success");
    let calls = rig.tools.calls.lock().unwrap().clone();
    assert_eq!((calls.len(), &calls[0].1), (2, &calls[1].1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_needs_approval_waits_for_it() {
    let mut charge = tool("charge", Effect::Unsafe);
    charge["requires_approval"] = json!(true);
    let (rig, id) = one_call(charge).await;
    *rig.tools.answer.lock().unwrap() = None;
    waiting(&rig, id).await;
    assert_eq!(rig.tools.count("charge"), 0);
    let odd = answer(&rig, id, Answer::Repeat).await;
    assert!(matches!(odd, InputAnswer::DoesNotFit(_)), "{odd:?}");
    answer(&rig, id, Answer::Approve).await;
    assert_eq!(output(rig.outcome(id).await), "told of success");
    assert_eq!(rig.tools.count("charge"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_came_while_tools_ran_does_not_disturb_the_model_later() {
    let mut charge = tool("charge", Effect::Unsafe);
    charge["requires_approval"] = json!(true);
    let extra = json!({ "tools": [charge, tool("slow", Effect::ReadOnly)] });
    let rig = Rig::start(extra, |turn, _| match turn {
        0 => Say::Tools(vec![("charge", json!({})), ("slow", json!({}))]),
        // Several renewals long.
        _ => Say::Late(std::time::Duration::from_millis(1500), "done"),
    })
    .await;
    let id = rig.submit().await;
    rig.tools.entered.notified().await;
    answer(&rig, id, Answer::Approve).await;
    rig.tools.gate.add_permits(1);
    // Answered once more, in the middle of the model's next answer.
    while rig.model.asked.load(std::sync::atomic::Ordering::SeqCst) < 2 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    answer(&rig, id, Answer::Approve).await;
    assert_eq!(output(rig.outcome(id).await), "done");
    let asked = rig.model.asked.load(std::sync::atomic::Ordering::SeqCst);
    assert_eq!(asked, 2, "once for each turn");
}

#[tokio::test(flavor = "multi_thread")]
async fn other_arguments_are_checked_before_they_are_taken() {
    let mut charge = tool("charge", Effect::Unsafe);
    charge["requires_approval"] = json!([{ "argument": "n", "above": 10 }]);
    let rig = Rig::start(json!({ "tools": [charge] }), |turn, request| {
        match (turn, request.messages.last()) {
            (0, _) => Say::Tools(vec![
                ("charge", json!({ "n": 11 })),
                ("charge", json!({ "n": 1 })),
            ]),
            (_, Some(domain::Message::Tool { .. })) => {
                let told = request.messages.iter().any(|message| {
                    matches!(message, domain::Message::Tool { content, .. }
                        if content.starts_with("[a person changed the arguments to {\"n\":5}]"))
                });
                Say::Text(if told { "told" } else { "not told" })
            }
            _ => Say::Text("?"),
        }
    })
    .await;
    let id = rig.submit().await;
    waiting(&rig, id).await;
    assert_eq!(rig.tools.count("charge"), 1, "the small one needs nobody");
    let edit = |arguments: &str| NewInput {
        id,
        request: None,
        answer: Answer::Edit {
            arguments: arguments.to_owned(),
        },
        by: "me".to_owned(),
        now: Utc::now(),
    };
    for (arguments, words) in [
        ("[1]", "JSON object"),
        ("{", "not JSON"),
        ("{\"n\":\"x\"}", "/n"),
    ] {
        let refused = rig.engine.answer(edit(arguments)).await;
        assert!(
            matches!(&refused, Err(agentrunner_engine::Error::Invalid { field: "arguments", message }) if message.contains(words)),
            "{refused:?}"
        );
    }
    let taken = rig.engine.answer(edit("{\"n\":5}")).await.unwrap();
    assert!(matches!(taken, InputAnswer::Accepted { .. }), "{taken:?}");
    assert_eq!(output(rig.outcome(id).await), "told");
    assert_eq!(rig.tools.count("charge"), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_approval_that_nobody_gives_is_denied_in_time_and_recorded() {
    let mut charge = tool("charge", Effect::Unsafe);
    charge["requires_approval"] = json!(true);
    let extra = json!({ "tools": [charge], "approval_timeout_seconds": 1 });
    let rig = Rig::start(extra, |turn, request| {
        match (turn, request.messages.last()) {
            (0, _) => Say::Tools(vec![("charge", json!({}))]),
            (_, Some(domain::Message::Tool { content, .. }))
                if content.contains("nobody answered") =>
            {
                Say::Text("told")
            }
            (_, other) => panic!("{other:?}"),
        }
    })
    .await;
    let id = rig.submit().await;
    waiting(&rig, id).await;
    assert_eq!(output(rig.outcome(id).await), "told");
    assert_eq!(rig.tools.count("charge"), 0);
    assert_eq!(
        rig.kinds(id).await,
        [
            "model_call",
            "input_requested",
            "input_received",
            "model_call",
            "finished"
        ]
    );
    let late = answer(&rig, id, Answer::Approve).await;
    assert_eq!(late, InputAnswer::NothingAsked(Status::Completed));
}
