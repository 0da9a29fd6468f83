//! Retries and forks: what is done is done, and nothing is called twice because of a copy.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use agentrunner_engine::{Branch, Cut, Error};
use domain::definition::Effect;
use domain::execution::{Origin, Totals};
use domain::retry::ModelErrorClass;
use domain::step::Answer;
use domain::{Epoch, ExecutionId, Message, Outcome, Status, StepBody, TraceId};
use serde_json::json;
use store::{NewInput, UsageFilter};
use uuid::Uuid;

use crate::rig::{Rig, Say, tool};

fn wish(id: ExecutionId, cut: Cut) -> Branch {
    Branch {
        id,
        cut,
        input: None,
        message: None,
        is_current: false,
        timeout: None,
        budget: Default::default(),
        metadata: None,
        trace_id: TraceId::from_uuid(Uuid::from_u128(2)),
        upstream: None,
        idempotency: None,
    }
}

async fn branch(rig: &Rig, wish: Branch) -> (ExecutionId, Origin) {
    let (accepted, origin) = rig.engine.branch(wish).await.unwrap();
    (accepted.id, origin)
}

async fn until(rig: &Rig, id: ExecutionId, status: Status) {
    let wait = async {
        while rig.store.execution(id).await.unwrap().unwrap().status != status {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), wait)
        .await
        .expect("it comes to that state");
}

async fn answer(rig: &Rig, id: ExecutionId, answer: Answer) {
    let input = NewInput {
        id,
        request: None,
        answer,
        by: "me".to_owned(),
        now: chrono::Utc::now(),
    };
    rig.engine.answer(input).await.unwrap();
}

fn output(outcome: Outcome) -> String {
    match outcome {
        Outcome::Completed { output, .. } => output,
        other => panic!("{other:?}"),
    }
}

fn refusal() -> Say {
    Say::Fail(llm::Error {
        class: ModelErrorClass::InvalidRequest,
        message: "no".to_owned(),
        retry_after: None,
        source: None,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_goes_on_after_the_last_step_and_counts_only_its_own() {
    let is_well = Arc::new(AtomicBool::new(false));
    let well = is_well.clone();
    let rig = Rig::start(
        json!({ "tools": [tool("charge", Effect::Unsafe)] }),
        move |turn, _| match turn {
            0 => Say::Tools(vec![("charge", json!({}))]),
            _ if well.load(Ordering::SeqCst) => Say::Text("done"),
            _ => refusal(),
        },
    )
    .await;
    let first = rig.submit().await;
    assert_eq!(rig.outcome(first).await.status(), Status::Failed);
    is_well.store(true, Ordering::SeqCst);
    let (second, origin) = branch(&rig, wish(first, Cut::LastStep)).await;
    assert_eq!((origin.id, origin.steps), (first, 3));
    assert_eq!(output(rig.outcome(second).await), "done");
    assert_eq!(rig.tools.count("charge"), 1, "what was done is done");
    let steps = rig.store.steps(second, None, 100).await.unwrap();
    let own = steps.iter().filter(|step| step.epoch != Epoch::NONE);
    let own: Vec<&str> = own.map(|step| step.body.kind()).collect();
    assert_eq!(
        (steps.len(), own.as_slice()),
        (5, &["model_call", "finished"][..])
    );
    let row = rig.store.execution(second).await.unwrap().unwrap();
    assert_eq!((row.totals.model_calls, row.totals.tool_calls), (1, 0));
    // The day counts each call once.
    let usage = rig.store.usage(UsageFilter::default()).await.unwrap();
    assert_eq!((usage[0].model_calls, usage[0].tool_calls), (2, 1));
    // What is completed has nothing to go on with.
    let refused = rig.engine.branch(wish(second, Cut::LastStep)).await;
    assert!(
        matches!(&refused, Err(Error::CanNotBranch { .. })),
        "{refused:?}"
    );
    let (third, origin) = branch(&rig, wish(second, Cut::Anew)).await;
    assert_eq!(origin.steps, 0);
    assert_eq!(output(rig.outcome(third).await), "done");
    assert_eq!(rig.tools.count("charge"), 2, "anew is anew");
}

/// An unsafe call under way, cancelled in the middle.
async fn left_in_doubt() -> (Rig, ExecutionId) {
    let rig = Rig::start(
        json!({ "tools": [tool("slow_charge", Effect::Unsafe)] }),
        |turn, _| match turn {
            0 => Say::Tools(vec![("slow_charge", json!({}))]),
            _ => Say::Text("done"),
        },
    )
    .await;
    let id = rig.submit().await;
    rig.tools.entered.notified().await;
    rig.engine.cancel(id, "me", "").await.unwrap();
    assert_eq!(rig.outcome(id).await.status(), Status::Cancelled);
    (rig, id)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unsafe_call_in_doubt_is_never_sent_again_by_a_retry() {
    let (rig, first) = left_in_doubt().await;
    let (second, _) = branch(&rig, wish(first, Cut::LastStep)).await;
    until(&rig, second, Status::WaitingForInput).await;
    assert_eq!(rig.tools.count("slow_charge"), 1);
    let result = "receipt".to_owned();
    answer(&rig, second, Answer::Happened { result }).await;
    assert_eq!(output(rig.outcome(second).await), "done");
    assert_eq!(rig.tools.count("slow_charge"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_in_doubt_is_repeated_by_a_retry_with_the_first_key_when_a_person_says_so() {
    let (rig, first) = left_in_doubt().await;
    let (second, _) = branch(&rig, wish(first, Cut::LastStep)).await;
    until(&rig, second, Status::WaitingForInput).await;
    rig.tools.gate.add_permits(2);
    answer(&rig, second, Answer::Repeat).await;
    assert_eq!(output(rig.outcome(second).await), "done");
    let calls = rig.tools.calls.lock().unwrap().clone();
    assert_eq!(calls.len(), 2);
    assert_eq!(calls[0].1, calls[1].1, "the key is the same");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fork_within_the_calls_of_a_turn_begins_before_it() {
    let (rig, first) = left_in_doubt().await;
    // model_call, tool_intent, tool_result (unknown), finished.
    for step in [1, 2, 3, 4] {
        let (id, origin) = branch(&rig, wish(first, Cut::After(step))).await;
        assert_eq!(origin.steps, 0, "from step {step}");
        rig.engine.cancel(id, "me", "").await.unwrap();
    }
    // What it is told does not take the place of the task when its beginning was moved there.
    let told = Branch {
        message: Some("carefully".to_owned()),
        ..wish(first, Cut::After(2))
    };
    let (id, origin) = branch(&rig, told).await;
    assert_eq!(origin.message.as_deref(), Some("carefully"));
    let row = rig.store.execution(id).await.unwrap().unwrap();
    assert_eq!(row.execution.input, json!({ "prompt": "go" }));
    rig.engine.cancel(id, "me", "").await.unwrap();
    let refused = rig.engine.branch(wish(first, Cut::After(5))).await;
    assert!(
        matches!(&refused, Err(Error::Invalid { field: "from_step", message }) if message.contains("has 4 steps")),
        "{refused:?}"
    );
    let nobody = ExecutionId::from_uuid(Uuid::from_u128(9));
    let refused = rig.engine.branch(wish(nobody, Cut::Anew)).await;
    assert!(matches!(refused, Err(Error::UnknownExecution(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_a_person_is_asked_again_and_can_be_forked_meanwhile() {
    let mut charge = tool("charge", Effect::Unsafe);
    charge["requires_approval"] = json!(true);
    let rig = Rig::start(json!({ "tools": [charge] }), |turn, _| match turn {
        0 => Say::Tools(vec![("charge", json!({}))]),
        _ => Say::Text("done"),
    })
    .await;
    let first = rig.submit().await;
    until(&rig, first, Status::WaitingForInput).await;
    let refused = rig.engine.branch(wish(first, Cut::LastStep)).await;
    assert!(
        matches!(&refused, Err(Error::CanNotBranch { status: Status::WaitingForInput, message }) if message.contains("cancel it first")),
        "{refused:?}"
    );
    rig.engine.cancel(first, "me", "").await.unwrap();
    rig.outcome(first).await;
    let (second, origin) = branch(&rig, wish(first, Cut::LastStep)).await;
    assert_eq!(origin.steps, 2);
    until(&rig, second, Status::WaitingForInput).await;
    assert_eq!(
        rig.kinds(second).await,
        ["model_call", "input_requested", "input_requested"]
    );
    answer(&rig, second, Answer::Approve).await;
    assert_eq!(output(rig.outcome(second).await), "done");
    assert_eq!(rig.tools.count("charge"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fork_is_told_something_and_a_fork_of_it_knows() {
    let rig = Rig::start(json!({}), |_, request| {
        let said: Vec<&str> = request
            .messages
            .iter()
            .filter_map(|message| match message {
                Message::User { text } => Some(text.as_str()),
                _ => None,
            })
            .collect();
        match said.as_slice() {
            ["go"] => Say::Text("one"),
            ["go", "more"] => Say::Text("two"),
            ["go", "more", "still more"] => Say::Text("three"),
            ["other"] => Say::Text("else"),
            other => panic!("{other:?}"),
        }
    })
    .await;
    let first = rig.submit().await;
    assert_eq!(output(rig.outcome(first).await), "one");
    let told = |id, steps, text: &str| Branch {
        message: Some(text.to_owned()),
        ..wish(id, Cut::After(steps))
    };
    let (second, origin) = branch(&rig, told(first, 2, "more")).await;
    assert_eq!(origin.steps, 1, "its end is not shared");
    assert_eq!(output(rig.outcome(second).await), "two");
    let (third, origin) = branch(&rig, told(second, 2, "still more")).await;
    assert_eq!((origin.id, origin.seams.len()), (second, 1));
    assert_eq!(output(rig.outcome(third).await), "three");
    assert_eq!(
        rig.kinds(third).await,
        ["model_call", "model_call", "model_call", "finished"]
    );
    // Before the first step the message is the task, and a task may be another one.
    let (fourth, _) = branch(&rig, told(first, 0, "other")).await;
    assert_eq!(output(rig.outcome(fourth).await), "else");
    let instead = Branch {
        input: Some(json!("other")),
        ..wish(first, Cut::After(0))
    };
    let (fifth, _) = branch(&rig, instead).await;
    assert_eq!(output(rig.outcome(fifth).await), "else");
    let row = rig.store.execution(third).await.unwrap().unwrap();
    assert_eq!(row.totals.model_calls, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_was_not_waited_for_is_not_given_the_task_again() {
    let helper = json!({ "name": "helper", "type": "agent" });
    let rig = Rig::start(json!({ "tools": [helper] }), |turn, request| {
        match (turn, request.system) {
            (_, "You help.") => Say::Hang,
            (0, _) => Say::Tools(vec![("helper", json!({ "task": "x" }))]),
            _ => match request.messages.last() {
                Some(Message::Tool { content, .. }) if content.contains("was not waited for") => {
                    Say::Text("told")
                }
                other => panic!("{other:?}"),
            },
        }
    })
    .await;
    let mut help = crate::rig::definition(json!({ "name": "helper" }));
    help.system_prompt = "You help.".to_owned();
    rig.define(help).await;
    let first = rig.submit().await;
    while rig.model.asked.load(Ordering::SeqCst) < 2 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    rig.engine.cancel(first, "me", "").await.unwrap();
    rig.outcome(first).await;
    let (second, _) = branch(&rig, wish(first, Cut::LastStep)).await;
    assert_eq!(output(rig.outcome(second).await), "told");
    let steps = rig.store.steps(second, None, 100).await.unwrap();
    let started = steps
        .iter()
        .filter(|step| matches!(step.body, StepBody::ChildStarted { .. }));
    assert_eq!(started.count(), 1);
    let row = rig.store.execution(second).await.unwrap().unwrap();
    assert_eq!(row.totals.tool_calls, Totals::default().tool_calls);
}
