//! Workers that know of each other, and engines that perform nothing.

use std::time::Duration;

use agentrunner_engine::{Engine, LiveEvent};
use domain::Worker;
use serde_json::json;

use crate::rig::{Rig, Say, definition, settings};

/// Asks until the answer is as wanted, for three seconds: less than a worker's own beat, so that only what is told at
/// once is in time.
async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let asking = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let answer = tokio::time::timeout(Duration::from_secs(3), asking).await;
    answer.unwrap_or_else(|_| panic!("never: {what}"))
}

fn names(worker: &Worker) -> Vec<&str> {
    worker.agents.iter().map(|name| name.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_says_what_it_performs_and_takes_leave() {
    let rig = Rig::start(json!({}), |_, _| Say::Text("done")).await;
    let known = async || rig.store.workers().await.unwrap();
    let first = until("it is known", async || known().await.pop()).await;
    assert_eq!((first.id.as_str(), names(&first)), ("w1", vec!["a"]));
    assert_eq!((first.capacity, first.active), (100, 0));
    for changed in [
        json!({ "name": "b" }),
        json!({ "name": "off", "enabled": false }),
        json!({ "name": "talk", "execution_mode": "continuous" }),
    ] {
        rig.define(definition(changed)).await;
    }
    until("changed agents are told at once", async || {
        known().await.pop().filter(|w| names(w) == ["a", "b"])
    })
    .await;
    rig.outcome(rig.submit().await).await;
    // Its end can be read a moment before its task has ended.
    until("this process is known as it is", async || {
        let own = rig.engine.workers().await.unwrap().pop().unwrap();
        (own.finished == 1).then_some(())
    })
    .await;

    rig.engine.shutdown(Duration::from_secs(1)).await;
    assert!(known().await.is_empty());
    assert!(rig.engine.workers().await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_without_modes_takes_tasks_in_and_sees_another_perform_them() {
    let rig = Rig::new(json!({}), |_, _| Say::Text("done"), |store| store).await;
    let desk = Engine::new(
        rig.ports(),
        rig.agents.clone(),
        agentrunner_engine::Settings {
            modes: Vec::new(),
            ..settings("desk")
        },
    );
    desk.start();
    assert!(!desk.performs() && desk.workers().await.unwrap().is_empty());
    let id = rig.submit_to(&desk).await;
    let mut watch = desk.watch(id, None);
    let waits = tokio::time::timeout(Duration::from_millis(300), watch.next()).await;
    assert!(waits.is_err(), "nobody performs it");

    rig.engine.start();
    let mut kinds = Vec::new();
    while let Some(event) = watch.next().await.unwrap() {
        if let LiveEvent::Step(step) = event {
            kinds.push(step.body.kind());
        }
    }
    assert_eq!(kinds, ["model_call", "finished"]);
    let workers = desk.workers().await.unwrap();
    assert_eq!(workers.len(), 1, "{workers:?}");
    assert_eq!(workers[0].id.as_str(), "w1");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_comes_later_hears_events_too() {
    let rig = Rig::start(json!({}), |_, _| Say::Text("done")).await;
    rig.define(definition(
        json!({ "name": "b", "event_subscriptions": ["late.*"] }),
    ))
    .await;
    let mut n = 0;
    until("an event starts it", async || {
        n += 1;
        let event = domain::Event {
            id: format!("e{n}").parse().unwrap(),
            topic: "late.news".parse().unwrap(),
            source: "test".to_owned(),
            time: chrono::Utc::now(),
            trace_id: "1".repeat(32).parse().unwrap(),
            hops: 0,
            data: json!({}),
        };
        rig.engine.publish(event).await.unwrap();
        let stats = rig.store.agent_stats(None).await.unwrap();
        stats.into_iter().find(|stats| stats.agent.as_str() == "b")
    })
    .await;
}
