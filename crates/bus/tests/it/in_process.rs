//! What is particular to the bus in the process: its bounds and its size.

use std::sync::Arc;
use std::time::Duration;

use bus::in_process::Settings;
use bus::{Bus, Error, InProcess};

use crate::suite::Subject;
use crate::support::{event, join, next, next_id, publish, quiet};

suite!(fresh, start_paused = true);

async fn fresh() -> Subject {
    Subject {
        bus: Arc::new(InProcess::default()),
        early: Duration::ZERO,
        late: Duration::from_millis(250),
    }
}

fn with_capacity(queue_capacity: usize) -> InProcess {
    InProcess::new(Settings {
        queue_capacity,
        ..Settings::default()
    })
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_refuses_until_something_is_settled() {
    let bus = with_capacity(2);
    let mut consumer = join(&bus, "q", &["a"], 10).await;
    publish(&bus, "1", "a").await;
    publish(&bus, "2", "a").await;
    let refused = bus.publish(&event("3", "a")).await.unwrap_err();
    assert!(matches!(refused, Error::Unavailable { .. }));
    assert!(refused.to_string().contains("\"q\" is full"), "{refused}");

    // In a hand, resting or waiting again, it still takes its place.
    let first = next(&mut consumer).await;
    assert!(bus.publish(&event("3", "a")).await.is_err());
    first.retry("not yet");
    assert!(bus.publish(&event("3", "a")).await.is_err());
    let second = next(&mut consumer).await;
    drop(second);
    assert!(bus.publish(&event("3", "a")).await.is_err());

    assert_eq!(next_id(&mut consumer).await.as_str(), "2");
    publish(&bus, "3", "a").await;
    assert!(bus.publish(&event("4", "a")).await.is_err());
    next(&mut consumer).await.reject("no");
    publish(&bus, "4", "a").await;
}

#[tokio::test(start_paused = true)]
async fn when_one_queue_is_full_none_gets_the_event() {
    let bus = with_capacity(1);
    let mut consumers = vec![];
    for queue in ["q", "r", "s"] {
        consumers.push(join(&bus, queue, &["all", queue], 10).await);
    }
    publish(&bus, "1", "r").await;
    for _ in 0..3 {
        assert!(bus.publish(&event("2", "all")).await.is_err());
    }
    assert_eq!(next_id(&mut consumers[1]).await.as_str(), "1");
    publish(&bus, "3", "all").await;
    for consumer in &mut consumers {
        assert_eq!(next_id(consumer).await.as_str(), "3");
        quiet(consumer, Duration::from_secs(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn dead_letters_that_nobody_takes_are_bounded() {
    let bus = InProcess::new(Settings {
        dead_letter_capacity: 3,
        ..Settings::default()
    });
    let mut consumer = join(&bus, "q", &["a"], 1).await;
    for id in 0..10 {
        publish(&bus, &id.to_string(), "a").await;
        next(&mut consumer).await.reject("no");
    }
    let mut dead = bus.dead_letters().await.unwrap();
    for id in ["7", "8", "9"] {
        assert_eq!(next_id(&mut dead).await.as_str(), id);
    }
    quiet(&mut dead, Duration::from_secs(1)).await;
}

#[tokio::test(start_paused = true)]
async fn dropping_the_bus_ends_its_consumers() {
    let bus = InProcess::default();
    let mut consumer = join(&bus, "q", &["a"], 1).await;
    let waiting = tokio::spawn(async move { consumer.next().await.is_none() });
    tokio::task::yield_now().await;
    drop(bus);
    assert!(waiting.await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn one_of_thousands_of_queues_gets_its_event() {
    let bus = InProcess::default();
    let mut consumers = vec![];
    for n in 0..3_000 {
        let (exact, wild) = (format!("agent.{n}.told"), format!("*.{n}.#"));
        consumers.push(join(&bus, &n.to_string(), &[&exact, &wild], 1).await);
    }
    for n in (0..3_000).step_by(100) {
        publish(&bus, &n.to_string(), &format!("agent.{n}.told")).await;
    }
    for (n, consumer) in consumers.iter_mut().enumerate() {
        if n % 100 == 0 {
            assert_eq!(next_id(consumer).await.as_str(), n.to_string());
        }
        quiet(consumer, Duration::ZERO).await;
    }
}

/// Real threads and a real clock: producers and consumers that drop, retry and settle at will lose and double
/// nothing that was settled once.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_is_lost_among_threads() {
    const PRODUCERS: usize = 4;
    const EVENTS: usize = 2_000;
    let bus = Arc::new(InProcess::default());
    let (report, mut reports) = tokio::sync::mpsc::unbounded_channel();
    for consumer_number in 0..4_usize {
        let mut consumer = join(&*bus, "q", &["#"], 8).await;
        let report = report.clone();
        tokio::spawn(async move {
            let mut count = consumer_number;
            while let Some(delivery) = consumer.next().await {
                count += 1;
                if count % 7 == 0 && delivery.attempt == 1 {
                    continue;
                }
                report.send(delivery.event.id.clone()).unwrap();
                delivery.done();
            }
        });
    }
    drop(report);
    for producer in 0..PRODUCERS {
        let bus = Arc::clone(&bus);
        tokio::spawn(async move {
            for n in 0..EVENTS {
                publish(&*bus, &format!("{producer}-{n}"), "a.b").await;
                if n % 64 == 0 {
                    tokio::task::yield_now().await;
                }
            }
        });
    }
    let mut seen = std::collections::HashSet::new();
    while seen.len() < PRODUCERS * EVENTS {
        let id = tokio::time::timeout(Duration::from_secs(30), reports.recv())
            .await
            .expect("an event got lost")
            .expect("the consumers must go on");
        assert!(seen.insert(id), "an event was settled twice");
    }
    bus.close().await;
    assert_eq!(reports.recv().await, None);
}
