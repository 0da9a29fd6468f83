//! What is particular to the bus on RabbitMQ while all goes well, and what it makes of a broker that is not as it
//! should be.

use std::collections::HashSet;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use bus::rabbitmq::Settings;
use bus::{Bus, Error, MAX_ATTEMPTS, RabbitMq, Subscription};
use lapin::BasicProperties;
use lapin::options::*;
use lapin::types::{AMQPValue, FieldTable};
use tokio::time::Instant;

use testkit::servers::{address, by_way_of};

use crate::broker::{channel, connect, prefix, url};
use crate::suite::Subject;
use crate::support::{event, join, next, next_id, publish, quiet};

suite!(fresh, flavor = "multi_thread");

/// Longer than a wrong delivery takes.
const MOMENT: Duration = Duration::from_millis(300);

async fn fresh() -> Subject {
    Subject {
        bus: Arc::new(connect(&prefix()).await),
        early: Duration::from_millis(20),
        // The tests of this file run side by side, on few cores.
        late: Duration::from_secs(5),
    }
}

async fn raw_publish(exchange: &str, key: &str, body: &[u8], properties: BasicProperties) {
    let channel = channel(url().await).await;
    channel
        .confirm_select(ConfirmSelectOptions::default())
        .await
        .unwrap();
    let confirm = channel
        .basic_publish(
            exchange.into(),
            key.into(),
            BasicPublishOptions::default(),
            body,
            properties,
        )
        .await
        .unwrap();
    assert!(confirm.await.unwrap().is_ack());
}

#[tokio::test]
async fn processes_compete_for_a_queue() {
    const EVENTS: usize = 200;
    let prefix = prefix();
    let (report, mut reports) = tokio::sync::mpsc::unbounded_channel();
    let buses = [connect(&prefix).await, connect(&prefix).await];
    for (number, bus) in buses.iter().enumerate() {
        let mut consumer = join(bus, "q", &["a"], 4).await;
        let report = report.clone();
        tokio::spawn(async move {
            while let Some(delivery) = consumer.next().await {
                report.send((number, delivery.event.id.clone())).unwrap();
                delivery.done();
                tokio::task::yield_now().await;
            }
        });
    }
    drop(report);
    for id in 0..EVENTS {
        publish(&buses[id % 2], &id.to_string(), "a").await;
    }
    let (mut seen, mut workers) = (HashSet::new(), HashSet::new());
    while seen.len() < EVENTS {
        let (number, id) = reports.recv().await.unwrap();
        workers.insert(number);
        assert!(seen.insert(id), "an event came to two consumers");
    }
    assert_eq!(workers.len(), 2, "both had their share");
    for bus in &buses {
        bus.close().await;
    }
    assert_eq!(reports.recv().await, None, "an event came twice");
}

#[tokio::test]
async fn what_a_process_held_when_it_went_goes_to_another() {
    let prefix = prefix();
    let (one, other) = (connect(&prefix).await, connect(&prefix).await);
    let mut consumer = join(&one, "q", &["a"], 2).await;
    for id in ["1", "2", "3"] {
        publish(&one, id, "a").await;
    }
    let held = next(&mut consumer).await;
    let done = next(&mut consumer).await;
    done.done();
    one.close().await;
    held.done();
    let mut consumer = join(&other, "q", &["a"], 2).await;
    let mut rest = [next_id(&mut consumer).await, next_id(&mut consumer).await];
    rest.sort();
    assert_eq!(rest.map(String::from), ["1", "3"]);
    quiet(&mut consumer, MOMENT).await;
}

#[tokio::test]
async fn patterns_of_a_former_process_are_replaced() {
    let prefix = prefix();
    let former = connect(&prefix).await;
    drop(join(&former, "q", &["a", "b.*", "c.#"], 1).await);
    former.close().await;
    let bus = connect(&prefix).await;
    let mut consumer = join(&bus, "q", &["b.*", "d"], 1).await;
    for (id, topic) in [("1", "a"), ("2", "b.x"), ("3", "c"), ("4", "d")] {
        publish(&bus, id, topic).await;
    }
    assert_eq!(next_id(&mut consumer).await.as_str(), "2");
    assert_eq!(next_id(&mut consumer).await.as_str(), "4");
    quiet(&mut consumer, MOMENT).await;
}

#[tokio::test]
async fn a_poisoned_message_is_a_dead_letter_and_harms_no_other() {
    let prefix = prefix();
    let bus = connect(&prefix).await;
    let mut consumer = join(&bus, "q", &["#"], 1).await;
    let mut dead = bus.dead_letters().await.unwrap();
    let exchange = format!("{prefix}agent_events");
    let poisons: [(&[u8], &str); 4] = [
        (b"\xff\xfe not text", "not JSON"),
        (b"{\"specversion\":\"1.0\",\"id\":\"", "not JSON"),
        (b"[1,2,3]", "not a CloudEvents"),
        (
            b"{\"specversion\":\"1.0\",\"id\":\"1\",\"type\":\"a..b\"}",
            "empty word",
        ),
    ];
    for (body, _) in poisons {
        raw_publish(&exchange, "some.topic", body, BasicProperties::default()).await;
    }
    let nested = "[".repeat(100_000);
    raw_publish(
        &exchange,
        "some.topic",
        nested.as_bytes(),
        BasicProperties::default(),
    )
    .await;
    publish(&bus, "well", "a").await;
    assert_eq!(next_id(&mut consumer).await.as_str(), "well");
    for (body, reason) in poisons {
        let letter = next(&mut dead).await;
        let said = letter.reason.clone().unwrap();
        assert!(said.contains(reason), "{said}");
        assert_eq!((&*letter.queue, letter.attempt), ("q", 1));
        assert_eq!(letter.event.topic.as_str(), "some.topic");
        assert_eq!(
            letter.event.data["unreadable"],
            String::from_utf8_lossy(body).as_ref()
        );
        letter.done();
    }
    let letter = next(&mut dead).await;
    assert_eq!(letter.event.data["bytes"], 100_000);
    letter.done();
    quiet(&mut dead, MOMENT).await;
}

#[tokio::test]
async fn a_dead_letter_has_its_history_in_the_queue_of_its_name() {
    let prefix = prefix();
    let bus = connect(&prefix).await;
    let mut consumer = join(&bus, "q", &["a.*"], 1).await;
    publish(&bus, "1", "a.b").await;
    next(&mut consumer).await.retry("the store is away");
    let again = next(&mut consumer).await;
    assert_eq!(again.attempt, 2);
    again.reject("x".repeat(5_000));
    quiet(&mut consumer, MOMENT).await;
    let channel = channel(url().await).await;
    let dlq = format!("{prefix}q.dlq");
    let letter = channel
        .basic_get(dlq.as_str().into(), BasicGetOptions::default())
        .await
        .unwrap()
        .expect("the dead letter");
    let properties = &letter.properties;
    assert_eq!(properties.message_id().as_ref().unwrap().as_str(), "1");
    assert_eq!(*properties.delivery_mode(), Some(2));
    let headers = properties.headers().as_ref().unwrap().inner();
    assert_eq!(headers["x-attempt"], AMQPValue::LongLongInt(2));
    assert_eq!(headers["x-topic"], AMQPValue::LongString("a.b".into()));
    let AMQPValue::LongString(reason) = &headers["x-reason"] else {
        panic!("{headers:?}")
    };
    assert_eq!(reason.len(), 1024, "a long reason is cut");
    let AMQPValue::FieldArray(history) = &headers["x-history"] else {
        panic!("{headers:?}")
    };
    assert_eq!(history.as_slice().len(), 2);
    let first = AMQPValue::LongString("attempt 1: the store is away".into());
    assert_eq!(history.as_slice()[0], first);
}

#[tokio::test]
async fn headers_that_somebody_made_up_do_no_harm() {
    let prefix = prefix();
    let bus = connect(&prefix).await;
    let mut consumer = join(&bus, "q", &["a"], 1).await;
    let body = event("1", "a").to_cloud_event().to_string();
    for (attempt, read_as) in [
        (AMQPValue::LongLongInt(-7), 1),
        (AMQPValue::LongLongInt(i64::MAX), MAX_ATTEMPTS),
        (AMQPValue::LongString("three".into()), 1),
        (AMQPValue::ShortShortUInt(2), 3),
    ] {
        let mut headers = FieldTable::default();
        headers.insert("x-attempt".into(), attempt);
        headers.insert("x-history".into(), AMQPValue::Boolean(true));
        let properties = BasicProperties::default().with_headers(headers);
        raw_publish("", &format!("{prefix}q"), body.as_bytes(), properties).await;
        let delivery = next(&mut consumer).await;
        assert_eq!(delivery.attempt, read_as);
        delivery.done();
    }
}

#[tokio::test]
async fn what_kills_every_consumer_is_given_up_by_the_broker() {
    let prefix = prefix();
    let bus = connect(&prefix).await;
    drop(join(&bus, "q", &["a"], 1).await);
    let mut dead = bus.dead_letters().await.unwrap();
    publish(&bus, "deadly", "a").await;
    let channel = channel(url().await).await;
    let queue = format!("{prefix}q");
    // A consumer whose process ends says nothing, and the broker hands it out again.
    while let Some(message) = channel
        .basic_get(queue.as_str().into(), BasicGetOptions::default())
        .await
        .unwrap()
    {
        let options = BasicNackOptions {
            requeue: true,
            ..BasicNackOptions::default()
        };
        message.acker.nack(options).await.unwrap();
    }
    let letter = next(&mut dead).await;
    assert_eq!(letter.event, event("deadly", "a"));
    let reason = letter.reason.clone().unwrap();
    assert!(reason.contains("without a word"), "{reason}");
    letter.done();
}

#[tokio::test]
async fn a_queue_deleted_under_its_consumer_is_made_anew() {
    let prefix = prefix();
    let bus = connect(&prefix).await;
    let mut consumer = join(&bus, "q", &["a"], 1).await;
    publish(&bus, "1", "a").await;
    assert_eq!(next_id(&mut consumer).await.as_str(), "1");
    let channel = channel(url().await).await;
    for queue in ["q", "q.patterns", "q.dlq"] {
        channel
            .queue_delete(
                format!("{prefix}{queue}").into(),
                QueueDeleteOptions::default(),
            )
            .await
            .unwrap();
    }
    let waiting = tokio::spawn(async move { next(&mut consumer).await });
    // Until it is there again and bound, nobody wants the event.
    let mut number = 0;
    while !waiting.is_finished() {
        publish(&bus, &format!("again-{number}"), "a").await;
        number += 1;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    waiting.await.unwrap().reject("to see its dead letter");
    let mut dead = bus.dead_letters().await.unwrap();
    assert_eq!(
        next(&mut dead).await.reason.as_deref(),
        Some("to see its dead letter")
    );
}

#[tokio::test]
async fn what_exists_with_other_arguments_is_named() {
    let prefix = prefix();
    let bus = connect(&prefix).await;
    let channel = channel(url().await).await;
    let durable = QueueDeclareOptions {
        durable: true,
        ..QueueDeclareOptions::default()
    };
    let name = format!("{prefix}q");
    channel
        .queue_declare(name.as_str().into(), durable, FieldTable::default())
        .await
        .unwrap();
    let subscription = |queue: &str| Subscription {
        queue: queue.to_owned(),
        patterns: vec!["a".parse().unwrap()],
        prefetch: 1,
    };
    let refused = bus.subscribe(subscription("q")).await.err().unwrap();
    assert!(matches!(refused, Error::Refused { .. }), "{refused:?}");
    let said = refused.to_string();
    assert!(said.contains(&format!("{name:?}")), "{said}");
    assert!(
        said.contains(&format!("rabbitmqctl delete_queue {name}")),
        "{said}"
    );
    assert!(
        said.contains("inequivalent arg"),
        "the broker's own words: {said}"
    );
    // Others are not harmed.
    let mut consumer = join(&bus, "other", &["a"], 1).await;
    publish(&bus, "1", "a").await;
    assert_eq!(next_id(&mut consumer).await.as_str(), "1");
    // It is told for as long as nobody consumes.
    let told = bus.check().await.unwrap_err().to_string();
    assert!(told.contains(&format!("{name:?}")), "{told}");
    channel
        .queue_delete(name.as_str().into(), QueueDeleteOptions::default())
        .await
        .unwrap();
    bus.subscribe(subscription("q")).await.unwrap();
    bus.check().await.unwrap();
}

#[tokio::test]
async fn an_exchange_of_another_kind_is_named() {
    let prefix = prefix();
    let channel = channel(url().await).await;
    let name = format!("{prefix}agent_events");
    channel
        .exchange_declare(
            name.as_str().into(),
            lapin::ExchangeKind::Fanout,
            ExchangeDeclareOptions::default(),
            FieldTable::default(),
        )
        .await
        .unwrap();
    let bus = connect(&prefix).await;
    let refused = bus.publish(&event("1", "a")).await.unwrap_err();
    assert!(matches!(refused, Error::Refused { .. }), "{refused:?}");
    assert!(refused.to_string().contains(&name), "{refused}");
}

#[tokio::test]
async fn an_event_that_is_too_large_is_refused() {
    let bus = connect(&prefix()).await;
    let mut large = event("1", "a");
    large.data = "x".repeat(17 << 20).into();
    let refused = bus.publish(&large).await.unwrap_err();
    assert!(matches!(refused, Error::Refused { .. }), "{refused:?}");
    assert!(refused.to_string().contains("bytes"), "{refused}");
    publish(&bus, "2", "a").await;
}

/// What becomes of connecting, which must be told within a deadline and without the password.
async fn refusal(url: &str) -> Error {
    let settings = Settings {
        timeout: Duration::from_secs(2),
        ..Settings::new(url.into())
    };
    let before = Instant::now();
    let error = RabbitMq::connect(settings)
        .await
        .expect_err("it can't connect");
    assert!(
        before.elapsed() < Duration::from_secs(10),
        "{:?}",
        before.elapsed()
    );
    for text in [error.to_string(), format!("{error:?}")] {
        assert!(!text.contains("s3cret"), "{text}");
    }
    error
}

#[tokio::test]
async fn each_way_of_not_connecting_is_told_apart() {
    let broker = address(url().await);
    let wrong = refusal(&format!("amqp://nobody:s3cret@{broker}")).await;
    assert!(matches!(wrong, Error::Refused { .. }), "{wrong:?}");
    assert!(wrong.to_string().contains("password is wrong"), "{wrong}");
    assert!(wrong.to_string().contains("nobody"), "{wrong}");

    let no_host = refusal(&format!("{}/nowhere", url().await)).await;
    assert!(no_host.to_string().contains("nowhere"), "{no_host}");

    let closed = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let refused = refusal(&format!("amqp://u:s3cret@{closed}")).await;
    assert!(matches!(refused, Error::Unavailable { .. }), "{refused:?}");
    assert!(refused.to_string().contains("refused"), "{refused}");
    assert!(
        refused.to_string().contains(&closed.to_string()),
        "{refused}"
    );

    let unknown = refusal("amqp://u:s3cret@no-such-host.invalid:5672").await;
    assert!(
        unknown.to_string().contains("no-such-host.invalid:5672"),
        "{unknown}"
    );

    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    let unanswered = refusal(&format!("amqp://u:s3cret@{address}")).await;
    assert!(
        unanswered.to_string().contains("does not answer"),
        "{unanswered}"
    );
    let unanswered = refusal(&format!("amqps://u:s3cret@{address}")).await;
    assert!(
        matches!(unanswered, Error::Unavailable { .. }),
        "{unanswered:?}"
    );

    // Plain AMQP where TLS is expected.
    let plain = by_way_of(url().await, broker).replace("amqp://", "amqps://");
    let no_tls = refusal(&plain).await;
    assert!(matches!(no_tls, Error::Unavailable { .. }), "{no_tls:?}");

    for nonsense in [
        "",
        "http://u:s3cret@host",
        "amqp://u:s3cret@:x/y",
        "s3cret@host",
    ] {
        let refused = refusal(nonsense).await;
        assert!(
            matches!(refused, Error::Refused { .. }),
            "{nonsense}: {refused:?}"
        );
    }
}

#[tokio::test]
async fn a_server_that_is_no_broker_is_told() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            use tokio::io::AsyncWriteExt;
            stream
                .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                .await
                .ok();
        }
    });
    let error = refusal(&format!("amqp://u:s3cret@{address}")).await;
    assert!(error.to_string().contains(&address.to_string()), "{error}");
}
