//! How many events the bus takes and hands out in a second. `cargo bench -p agentrunner-bus`.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark prints its figures and may fail loudly"
)]

extern crate agentrunner_bus as bus;

use std::time::Instant;

use bus::in_process::Settings;
use bus::{Bus, InProcess, Subscription};
use domain::{Event, TraceId};

const EVENTS: u32 = 500_000;

fn event() -> Event {
    Event {
        id: "0192f8a0-0000-7000-8000-000000000000".parse().unwrap(),
        topic: "autonomous.task.submitted".parse().unwrap(),
        source: "agentrunner/bench".to_owned(),
        time: "2026-11-24T09:30:00Z".parse().unwrap(),
        trace_id: TraceId::try_from("0af7651916cd43dd8448eb211c80319c".to_owned()).unwrap(),
        hops: 0,
        data: serde_json::json!({ "execution_id": "0192f8a0-0000-7000-8000-000000000001" }),
    }
}

fn print(what: &str, began: Instant) {
    let per_second = f64::from(EVENTS) / began.elapsed().as_secs_f64();
    println!("{what:<44} {per_second:>12.0} events/s");
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    for (queues, what) in [(1, "one queue"), (2_000, "one queue of 2,000 wanting it")] {
        let bus = InProcess::new(Settings {
            queue_capacity: usize::MAX,
            ..Settings::default()
        });
        let event = event();
        for n in 1..queues {
            let patterns = [format!("agent.{n}.told"), format!("*.{n}.#")]
                .map(|text| text.parse().unwrap())
                .to_vec();
            let subscription = Subscription {
                queue: n.to_string(),
                patterns,
                prefetch: 1,
            };
            drop(bus.subscribe(subscription).await.unwrap());
        }
        let subscription = Subscription {
            queue: "bench".to_owned(),
            patterns: vec!["autonomous.#".parse().unwrap()],
            prefetch: 100,
        };
        let mut consumer = bus.subscribe(subscription).await.unwrap();

        let began = Instant::now();
        for _ in 0..EVENTS {
            bus.publish(&event).await.unwrap();
        }
        print(&format!("publish, {what}"), began);
        let began = Instant::now();
        for _ in 0..EVENTS {
            consumer.next().await.unwrap().done();
        }
        print(&format!("consume, {what}"), began);
    }
}
