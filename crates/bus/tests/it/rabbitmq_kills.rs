//! The bus on RabbitMQ when the broker is killed as soon as it has made a queue. It says then that the queue is there,
//! and has not written down which log is its own: after a restart the queue may answer nobody.

use std::sync::Arc;
use std::time::Duration;

use bus::rabbitmq::Settings;
use bus::{RabbitMq, Subscription};
use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;
use testkit::servers::{Kind, Server};
use tokio::time::timeout;

use crate::broker::{channel, prefix};
use crate::support::{event, join, next, next_id, publish};

/// Longer than any recovery takes on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(240);
/// How often it is tried: about half of the kills do harm.
const KILLS: usize = 3;

fn settings(broker: &Server, prefix: &str) -> Settings {
    Settings {
        prefix: prefix.to_owned(),
        patience: PATIENCE,
        ..Settings::new(broker.url().into())
    }
}

/// Returns when a queue was declared, by whomever.
async fn declared(broker: &Server, queue: &str) {
    let passive = QueueDeclareOptions {
        passive: true,
        ..QueueDeclareOptions::default()
    };
    loop {
        let channel = channel(&broker.url()).await;
        let found = channel.queue_declare(queue.into(), passive, FieldTable::default());
        if found.await.is_ok() {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_was_lost_before_it_was_used_is_made_anew() {
    let broker = Server::start(Kind::RabbitMq).await;
    for round in 0..KILLS {
        let prefix = prefix();
        let bus = RabbitMq::connect(settings(&broker, &prefix)).await.unwrap();
        let bus = Arc::new(bus);
        let subscription = Subscription {
            queue: "q".to_owned(),
            patterns: vec!["a".parse().unwrap()],
            prefetch: 1,
        };
        let subscribing = tokio::spawn({
            let bus = Arc::clone(&bus);
            async move { bus::Bus::subscribe(&*bus, subscription).await }
        });
        declared(&broker, &format!("{prefix}q.patterns")).await;
        broker.kill();
        assert!(!subscribing.is_finished(), "the queue is still at rest");
        broker.up().await;
        let began = std::time::Instant::now();
        let subscribed = timeout(PATIENCE, subscribing).await;
        let mut consumer = subscribed.expect("in time").unwrap().unwrap();
        println!(
            "round {round}: joined {:?} after the restart",
            began.elapsed()
        );
        publish(&*bus, "1", "a").await;
        assert_eq!(next_id(&mut consumer).await.as_str(), "1");
        bus::Bus::check(&*bus).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_new_queue_was_given_survives_a_kill() {
    let broker = Server::start(Kind::RabbitMq).await;
    for _ in 0..KILLS {
        let bus = RabbitMq::connect(settings(&broker, &prefix()))
            .await
            .unwrap();
        let mut consumer = join(&bus, "q", &["a"], 1).await;
        for id in ["1", "2", "3"] {
            publish(&bus, id, "a").await;
        }
        broker.kill();
        broker.up().await;
        for id in ["1", "2", "3"] {
            let arrived = timeout(PATIENCE, next_id(&mut consumer)).await;
            assert_eq!(arrived.expect("it was confirmed").as_str(), id);
        }
        // So does what rests, in a queue that is made for it now.
        bus::Bus::publish(&bus, &event("4", "a")).await.unwrap();
        next(&mut consumer).await.retry("not now");
        let resting = timeout(PATIENCE, next(&mut consumer)).await;
        let again = resting.expect("it comes again");
        assert_eq!((again.event.id.as_str(), again.attempt), ("4", 2));
        again.done();
    }
}
