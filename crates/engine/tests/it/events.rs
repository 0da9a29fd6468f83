//! That an event starts agents does not hang on the bus.

use std::sync::Arc;
use std::time::Duration;

use agentrunner_engine::{Engine, Ports};
use async_trait::async_trait;
use bus::{Bus, Consumer, InProcess, Subscription};
use domain::Event;
use serde_json::json;

use crate::rig::{Rig, Say, settings};

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
    let event = Event {
        id: "e1".parse().unwrap(),
        topic: "orders.new".parse().unwrap(),
        source: "test".to_owned(),
        time: engine.now(),
        trace_id: "1".repeat(32).parse().unwrap(),
        hops: 0,
        data: json!({ "n": 7 }),
    };
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
