//! A process that was frozen in the middle of a call, longer than its lease: another has settled by then what it was
//! about to do.

use std::sync::atomic::Ordering;
use std::time::Duration;

use agentrunner_engine::{Engine, Settings};
use domain::Outcome;
use domain::definition::Effect;
use llm::ChatRequest;
use serde_json::json;

use crate::faults::{give_back, steal};
use crate::rig::{Rig, Say, outcome, settings, tool};

async fn entered(rig: &Rig) {
    let entered = rig.tools.entered.notified();
    tokio::time::timeout(Duration::from_secs(20), entered)
        .await
        .expect("it goes on");
}

/// The engine performs nothing any more.
async fn until_free(engine: &Engine) {
    let free = async {
        while engine.load().0 > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), free)
        .await
        .expect("it lets go");
}

/// The first owner is lost in the call, the second between the answer of the check and the call.
#[tokio::test(flavor = "multi_thread")]
async fn between_the_check_and_the_call_the_lease_is_looked_at_again() {
    let tools = json!({ "tools": [tool("slow_order", Effect::Checkable), tool("check", Effect::ReadOnly)] });
    let play = |turn, _: &ChatRequest<'_>| match turn {
        0 => Say::Tools(vec![("slow_order", json!({}))]),
        _ => Say::Text("ordered"),
    };
    let rig = Rig::new(tools, play, |store| store).await;
    // So long that no renewal comes in between by itself.
    let settings = Settings {
        lease: Duration::from_secs(30),
        ..settings("w")
    };
    let engine = Engine::new(rig.ports(), rig.agents.clone(), settings);
    engine.start();
    let (id, store) = (rig.submit_to(&engine).await, rig.store.as_ref());
    entered(&rig).await;
    let stolen = steal(store, id).await.unwrap().unwrap();
    give_back(store, &stolen).await.unwrap();
    // The engine has it again, as another owner, and asks whether the call happened. Then it sees a minute pass at once.
    entered(&rig).await;
    let stolen = steal(store, id).await.unwrap().unwrap();
    rig.ahead.store(60, Ordering::SeqCst);
    rig.tools.checks.notify_waiters();
    until_free(&engine).await;
    give_back(store, &stolen).await.unwrap();
    // The owner after that asks once more.
    entered(&rig).await;
    assert_eq!(rig.tools.count("slow_order"), 1, "a lost owner called");
    rig.tools.checks.notify_waiters();
    rig.tools.gate.add_permits(1);
    assert!(matches!(
        outcome(&engine, id).await,
        Outcome::Completed { .. }
    ));
    assert_eq!(rig.tools.count("slow_order"), 2);
}
