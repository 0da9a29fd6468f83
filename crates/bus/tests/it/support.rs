//! Small words for tests of a bus.

use std::time::Duration;

use bus::{Bus, Consumer, Delivery, Subscription};
use domain::{Event, EventId, TraceId};
use tokio::time::timeout;

/// Longer than anything that is to come takes; on a paused clock it passes in no time.
const PATIENCE: Duration = Duration::from_secs(60);

/// An event with something in every field.
pub(crate) fn event(id: &str, topic: &str) -> Event {
    Event {
        id: id.parse().unwrap(),
        topic: topic.parse().unwrap(),
        source: "agentrunner/tests".to_owned(),
        time: "2026-11-24T09:30:00.125Z".parse().unwrap(),
        trace_id: TraceId::try_from("0af7651916cd43dd8448eb211c80319c".to_owned()).unwrap(),
        hops: 3,
        data: serde_json::json!({ "text": "grüße", "list": [1, 2.5, null], "nested": { "yes": true } }),
    }
}

pub(crate) async fn publish(bus: &dyn Bus, id: &str, topic: &str) {
    bus.publish(&event(id, topic)).await.unwrap();
}

pub(crate) async fn join(
    bus: &dyn Bus,
    queue: &str,
    patterns: &[&str],
    prefetch: usize,
) -> Box<dyn Consumer> {
    let subscription = Subscription {
        queue: queue.to_owned(),
        patterns: patterns.iter().map(|text| text.parse().unwrap()).collect(),
        prefetch,
    };
    bus.subscribe(subscription).await.unwrap()
}

/// The next delivery, which must come.
pub(crate) async fn next(consumer: &mut Box<dyn Consumer>) -> Delivery {
    timeout(PATIENCE, consumer.next())
        .await
        .expect("a delivery must come")
        .expect("the bus must be open")
}

/// The id of the next delivery, which is processed.
pub(crate) async fn next_id(consumer: &mut Box<dyn Consumer>) -> EventId {
    let delivery = next(consumer).await;
    let id = delivery.event.id.clone();
    delivery.done();
    id
}

/// Fails when a delivery comes within `time`.
pub(crate) async fn quiet(consumer: &mut Box<dyn Consumer>, time: Duration) {
    if let Ok(delivery) = timeout(time, consumer.next()).await {
        panic!("nothing must come, but there is {delivery:?}");
    }
}
