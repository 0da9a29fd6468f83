//! How fast events go through RabbitMQ.
//!
//! ```sh
//! eval "$(scripts/services up --env rabbitmq)"
//! cargo bench -p agentrunner-bus --bench rabbitmq -- \
//!   "amqp://$RABBITMQ_USER:$RABBITMQ_PASSWORD@$RABBITMQ_HOST:$RABBITMQ_PORT"
//! ```
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark prints its figures and may fail loudly"
)]

extern crate agentrunner_bus as bus;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bus::rabbitmq::Settings;
use bus::{Bus, Consumer, RabbitMq, Subscription};
use domain::{Event, TraceId};
use futures::{StreamExt, stream};

const EVENTS: u32 = 20_000;
const ROUNDS: usize = 1_000;

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

async fn join(bus: &RabbitMq) -> Box<dyn Consumer> {
    let subscription = Subscription {
        queue: "bench".to_owned(),
        patterns: vec!["autonomous.#".parse().unwrap()],
        prefetch: 256,
    };
    bus.subscribe(subscription).await.unwrap()
}

async fn publish(bus: &RabbitMq, at_once: usize) {
    let event = event();
    stream::iter(0..EVENTS)
        .for_each_concurrent(at_once, |_| async { bus.publish(&event).await.unwrap() })
        .await;
}

async fn consume(consumer: &mut Box<dyn Consumer>, events: u32) {
    for _ in 0..events {
        consumer.next().await.unwrap().done();
    }
}

fn print(what: &str, events: u32, took: Duration) {
    let per_second = f64::from(events) / took.as_secs_f64();
    println!("{what:<52} {per_second:>9.0} events/s");
}

fn print_latency(what: &str, mut took: Vec<Duration>) {
    took.sort_unstable();
    let at = |part: usize| {
        took.get(took.len() * part / 100)
            .copied()
            .unwrap_or_default()
    };
    println!("{what:<52} median {:>8.2?}   p99 {:>8.2?}", at(50), at(99));
}

#[tokio::main]
async fn main() {
    let Some(url) = std::env::args().find(|argument| argument.starts_with("amqp")) else {
        println!("give the URL of a broker; see the head of this file");
        return;
    };
    let began = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let settings = Settings {
        prefix: format!("bench.{}.", began.as_millis()),
        ..Settings::new(url.into())
    };
    let bus = RabbitMq::connect(settings).await.unwrap();
    let mut consumer = join(&bus).await;

    for at_once in [1, 16, 256, 1_024] {
        let events = if at_once == 1 { EVENTS / 10 } else { EVENTS };
        let began = Instant::now();
        if at_once == 1 {
            for _ in 0..events {
                bus.publish(&event()).await.unwrap();
            }
        } else {
            publish(&bus, at_once).await;
        }
        print(
            &format!("publish and confirm, {at_once} at once"),
            events,
            began.elapsed(),
        );
        let began = Instant::now();
        consume(&mut consumer, events).await;
        print("consume and settle", events, began.elapsed());
    }
    let began = Instant::now();
    tokio::join!(publish(&bus, 256), consume(&mut consumer, EVENTS));
    print(
        "both at the same time, 256 at once",
        EVENTS,
        began.elapsed(),
    );

    let (mut confirmed, mut arrived) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let began = Instant::now();
        let confirm = async {
            bus.publish(&event()).await.unwrap();
            began.elapsed()
        };
        let arrive = async {
            let delivery = consumer.next().await.unwrap();
            let took = began.elapsed();
            delivery.done();
            took
        };
        let (confirm, arrival) = tokio::join!(confirm, arrive);
        confirmed.push(confirm);
        arrived.push(arrival);
    }
    print_latency("publish to confirm, one at a time", confirmed);
    print_latency("publish to consume, one at a time", arrived);
    bus.close().await;
}
