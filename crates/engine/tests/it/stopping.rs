//! Cancellation, deadlines, shutdown, lost leases, panics.

use std::sync::atomic::Ordering;
use std::time::Duration;

use agentrunner_engine::NewTask;
use domain::definition::Effect;
use domain::execution::FailureCode;
use domain::{Outcome, Status};
use serde_json::json;
use store::CancelAnswer;

use crate::rig::{Rig, Say, outcome, tool};

async fn until(condition: impl AsyncFn() -> bool) {
    let wait = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), wait)
        .await
        .expect("the condition holds within ten seconds");
}

#[tokio::test(flavor = "multi_thread")]
async fn cancel_closes_the_providers_stream_and_is_final() {
    let rig = Rig::start(json!({}), |_, _| Say::Hang).await;
    let id = rig.submit().await;
    until(async || rig.model.open.load(Ordering::SeqCst) == 1).await;
    assert_eq!(
        rig.engine.cancel(id, "me", "enough").await.unwrap(),
        CancelAnswer::Accepted
    );
    assert_eq!(
        rig.outcome(id).await,
        Outcome::Cancelled {
            by: "me".into(),
            reason: "enough".into()
        }
    );
    until(async || rig.model.open.load(Ordering::SeqCst) == 0).await;
    assert_eq!(
        rig.engine.cancel(id, "me", "").await.unwrap(),
        CancelAnswer::AlreadyOver(Status::Cancelled)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_ends_a_model_that_never_answers() {
    let rig = Rig::start(json!({}), |_, _| Say::Hang).await;
    let task = NewTask {
        timeout: Some(Duration::from_secs(1)),
        ..NewTask::new("a", json!("go"), "1".repeat(32).parse().unwrap())
    };
    let id = rig.engine.submit(task).await.unwrap().id;
    let outcome = rig.outcome(id).await;
    assert!(matches!(outcome, Outcome::Timeout { .. }), "{outcome:?}");
    until(async || rig.model.open.load(Ordering::SeqCst) == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_ends_a_tool_that_never_answers_and_says_that_its_outcome_is_unknown() {
    let tools = json!({ "tools": [tool("slow", Effect::Unsafe)] });
    let rig = Rig::start(tools, |_, _| Say::Tools(vec![("slow", json!({}))])).await;
    let task = NewTask {
        timeout: Some(Duration::from_secs(1)),
        ..NewTask::new("a", json!("go"), "1".repeat(32).parse().unwrap())
    };
    let id = rig.engine.submit(task).await.unwrap().id;
    assert!(matches!(rig.outcome(id).await, Outcome::Timeout { .. }));
    assert_eq!(
        rig.kinds(id).await,
        ["model_call", "tool_intent", "tool_result", "finished"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parents_cancellation_reaches_its_children() {
    let rig = Rig::start(
        json!({ "tools": [{ "name": "b", "type": "agent" }] }),
        |_, request| match request.system {
            "You are b." => Say::Hang,
            _ => Say::Tools(vec![("b", json!({}))]),
        },
    )
    .await;
    rig.define(crate::rig::definition(
        json!({ "name": "b", "system_prompt": "You are b." }),
    ))
    .await;
    let id = rig.submit().await;
    until(async || rig.model.open.load(Ordering::SeqCst) == 1).await;
    rig.engine.cancel(id, "me", "").await.unwrap();
    assert!(matches!(rig.outcome(id).await, Outcome::Cancelled { .. }));
    until(async || rig.model.open.load(Ordering::SeqCst) == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_hands_back_and_another_goes_on_without_repeating() {
    let tools = json!({ "tools": [tool("slow", Effect::Unsafe)] });
    let rig = Rig::start(tools, |turn, _| match turn {
        0 => Say::Tools(vec![("slow", json!({}))]),
        _ => Say::Text("done"),
    })
    .await;
    let id = rig.submit().await;
    rig.tools.entered.notified().await;
    let first = rig.engine.clone();
    let stop = tokio::spawn(async move { first.shutdown(Duration::from_secs(5)).await });
    rig.tools.gate.add_permits(1);
    stop.await.unwrap();
    let row = rig.store.execution(id).await.unwrap().unwrap();
    assert_eq!(
        (row.status, row.worker),
        (Status::Running, None),
        "handed back"
    );
    let second = rig.another("w2");
    second.start();
    assert!(matches!(
        outcome(&second, id).await,
        Outcome::Completed { .. }
    ));
    assert_eq!(rig.tools.count("slow"), 1);
    assert_eq!(rig.model.asked.load(Ordering::SeqCst), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_is_journaled_and_retried_and_poison_ends() {
    let rig = Rig::start(json!({}), |_, request| match &request.messages[0] {
        domain::Message::User { text } if text == "go" => Say::Panic,
        _ => Say::Text("unharmed"),
    })
    .await;
    let subscription = bus::Subscription {
        queue: "watcher".to_owned(),
        patterns: vec!["agent.execution.failed".parse().unwrap()],
        prefetch: 1,
    };
    let mut failures = rig.engine.bus().subscribe(subscription).await.unwrap();
    let poison = rig.submit().await;
    let other = NewTask::new("a", json!("other"), "1".repeat(32).parse().unwrap());
    let other = rig.engine.submit(other).await.unwrap().id;
    assert!(matches!(
        rig.outcome(other).await,
        Outcome::Completed { .. }
    ));
    let end = rig.outcome(poison).await;
    assert!(
        matches!(&end, Outcome::Failed(f) if f.code == FailureCode::Poison),
        "{end:?}"
    );
    assert_eq!(
        rig.kinds(poison).await,
        ["note", "note", "note", "finished"]
    );
    assert_eq!(rig.model.asked.load(Ordering::SeqCst), 4);
    let told = tokio::time::timeout(Duration::from_secs(10), failures.next()).await;
    let told = told.expect("whoever subscribes is told").unwrap();
    assert_eq!(told.event.data["execution_id"], json!(poison));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panicking_tool_ends_its_call_and_nothing_else() {
    let tools = json!({ "tools": [tool("panics", Effect::ReadOnly)] });
    let rig = Rig::start(tools, |turn, _| match turn {
        0 => Say::Tools(vec![("panics", json!({}))]),
        _ => Say::Text("went on"),
    })
    .await;
    let id = rig.submit().await;
    assert!(matches!(rig.outcome(id).await, Outcome::Completed { .. }));
}
