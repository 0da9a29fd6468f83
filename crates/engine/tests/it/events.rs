//! That an event starts agents does not hang on the bus, and agents that wake each other come to an end.

use std::sync::Arc;
use std::time::Duration;

use agentrunner_engine::{Engine, Ports};
use async_trait::async_trait;
use bus::{Bus, Consumer, InProcess, Subscription};
use domain::{Event, Outcome, Status};
use serde_json::json;
use store::ExecutionFilter;

use crate::rig::{Rig, Say, definition, settings};

/// Confirms every event and forgets it: a broker at which no queue is bound yet, or that dies with what it had.
#[derive(Default)]
struct Forgetful(InProcess);

#[async_trait]
impl Bus for Forgetful {
    async fn publish(&self, _: &Event) -> Result<(), bus::Error> {
        Ok(())
    }

    async fn subscribe(&self, wanted: Subscription) -> Result<Box<dyn Consumer>, bus::Error> {
        self.0.subscribe(wanted).await
    }

    async fn remove(&self, queue: &str) -> Result<(), bus::Error> {
        self.0.remove(queue).await
    }

    async fn dead_letters(&self) -> Result<Box<dyn Consumer>, bus::Error> {
        self.0.dead_letters().await
    }

    async fn check(&self) -> Result<(), bus::Error> {
        self.0.check().await
    }

    async fn close(&self) {
        self.0.close().await;
    }
}

fn event(engine: &Engine, topic: &str) -> Event {
    Event {
        id: "e1".parse().unwrap(),
        topic: topic.parse().unwrap(),
        source: "test".to_owned(),
        time: engine.now(),
        trace_id: "1".repeat(32).parse().unwrap(),
        hops: 0,
        data: json!({ "n": 7 }),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_the_bus_forgets_starts_its_agents_all_the_same() {
    let extra = json!({ "event_subscriptions": ["orders.*"] });
    let rig = Rig::new(extra, |_, _| Say::Text("seen"), |store| store).await;
    let ports = Ports {
        bus: Arc::new(Forgetful::default()),
        ..rig.ports()
    };
    let engine = Engine::new(ports, rig.engine.agents().clone(), settings("w2"));
    engine.start();
    let event = event(&engine, "orders.new");
    for _ in 0..2 {
        engine.publish(event.clone()).await.unwrap();
    }
    let page = || store::Page {
        limit: 9,
        after: None,
    };
    let started = async || {
        let listed = rig.store.executions(Default::default(), page()).await;
        listed.unwrap().0
    };
    let settled = async {
        while started().await.is_empty() || !rig.store.outbox(9).await.unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let settled = tokio::time::timeout(Duration::from_secs(10), settled).await;
    settled.expect("the event starts its agent, and is forgotten then");
    let started = started().await;
    assert_eq!(started.len(), 1, "one for the event");
    assert_eq!(started[0].execution.event_id.as_ref(), Some(&event.id));
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_that_all_wake_each_other_come_to_an_end() {
    let extra = json!({ "event_subscriptions": ["begin", "agent.#"] });
    let rig = Rig::start(extra.clone(), |_, _| Say::Text("hm")).await;
    for name in ["b", "c"] {
        let mut fields = extra.clone();
        fields["name"] = name.into();
        rig.define(definition(fields)).await;
    }
    // Each end would start three more: without a bound 3^16 of them.
    rig.engine
        .publish(event(&rig.engine, "begin"))
        .await
        .unwrap();
    let page = || store::Page {
        limit: 1,
        after: None,
    };
    let letters = async || rig.store.dead_letters(page()).await.unwrap();
    let is_over = async {
        let is_done = async || {
            let open = ExecutionFilter {
                status: vec![Status::Queued, Status::Running],
                ..Default::default()
            };
            let (_, open) = rig.store.executions(open, page()).await.unwrap();
            open.count == 0 && rig.store.outbox(1).await.unwrap().is_empty()
        };
        while letters().await.is_empty() || !is_done().await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let is_over = tokio::time::timeout(Duration::from_secs(60), is_over).await;
    let (_, started) = rig
        .store
        .executions(Default::default(), page())
        .await
        .unwrap();
    assert!(
        is_over.is_ok(),
        "it comes to no end: {started:?} were started"
    );
    let started = started.count;
    assert!((100..2_000).contains(&started), "{started}");
    let reason = &letters().await[0].reason;
    assert!(reason.contains("form a loop"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_wants_everything_is_started_by_no_end_and_stops_nobody() {
    let rig = Rig::start(json!({}), |_, _| Say::Text("hm")).await;
    let spy = json!({ "name": "spy", "event_subscriptions": ["#"] });
    rig.define(definition(spy)).await;
    let id = rig.submit().await;
    assert!(matches!(rig.outcome(id).await, Outcome::Completed { .. }));
    let event = event(&rig.engine, "begin");
    rig.engine.publish(event.clone()).await.unwrap();
    let page = || store::Page {
        limit: 9,
        after: None,
    };
    let listed = async || {
        let listed = rig.store.executions(Default::default(), page()).await;
        listed.unwrap().0
    };
    let is_over = async {
        // Each end's own events have gone out then, and would have started it again.
        let is_done = async || {
            let all = listed().await;
            all.len() > 1
                && all.iter().all(|row| row.status == Status::Completed)
                && rig.store.outbox(1).await.unwrap().is_empty()
        };
        while !is_done().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let is_over = tokio::time::timeout(Duration::from_secs(10), is_over).await;
    is_over.expect("what was published starts it, and it ends");
    let of_spy: Vec<_> = listed().await;
    let of_spy = of_spy.iter().filter(|row| row.execution.id != id);
    let by: Vec<_> = of_spy.map(|row| row.execution.event_id.clone()).collect();
    assert_eq!(by, [Some(event.id)]);
}
