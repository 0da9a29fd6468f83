//! The bus on RabbitMQ while the network or the broker fails.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bus::rabbitmq::Settings;
use bus::{Bus, Consumer, Error, RabbitMq};
use testkit::servers::{Kind, Server, address, by_way_of};
use testkit::{FaultProxy, Weather};
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::sync::{Mutex, OnceCell};
use tokio::time::timeout;

use crate::broker::{prefix, settings, url};
use crate::support::{event, join, next, next_id, publish};

/// Longer than any recovery takes on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// One that finds out soon.
fn impatient(url: &str, prefix: &str) -> Settings {
    Settings {
        timeout: Duration::from_secs(2),
        patience: Duration::from_secs(4),
        ..settings(url, prefix)
    }
}

async fn behind_a_proxy() -> (FaultProxy, RabbitMq) {
    let url = url().await;
    let proxy = FaultProxy::start(address(url));
    let settings = impatient(&by_way_of(url, proxy.address()), &prefix());
    (proxy, RabbitMq::connect(settings).await.unwrap())
}

/// Publishes until it is confirmed, as the relay of the outbox does.
async fn publish_in_the_end(bus: &dyn Bus, id: &str) {
    let event = event(id, "a");
    let confirmed = async {
        while let Err(error) = bus.publish(&event).await {
            assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
        }
    };
    timeout(PATIENCE, confirmed)
        .await
        .expect("it must be confirmed");
}

/// Reports the id of each event, and settles it.
fn consume(mut consumer: Box<dyn Consumer>) -> UnboundedReceiver<String> {
    let (report, reports) = unbounded_channel();
    tokio::spawn(async move {
        while let Some(delivery) = consumer.next().await {
            report.send(delivery.event.id.as_str().to_owned()).ok();
            delivery.done();
        }
    });
    reports
}

async fn until_seen(reports: &mut UnboundedReceiver<String>, wanted: &HashSet<String>) {
    let mut missing = wanted.clone();
    while !missing.is_empty() {
        let id = timeout(PATIENCE, reports.recv()).await;
        let id = id.unwrap_or_else(|_| panic!("lost: {missing:?}"));
        missing.remove(&id.expect("a consumer never stops"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_connection_is_made_anew() {
    let (proxy, bus) = behind_a_proxy().await;
    let mut consumer = join(&bus, "q", &["a"], 2).await;
    publish(&bus, "1", "a").await;
    publish(&bus, "2", "a").await;
    assert_eq!(next_id(&mut consumer).await.as_str(), "1");
    let held = next(&mut consumer).await;
    proxy.set(Weather::Reset);
    let failed = bus.publish(&event("3", "a")).await.unwrap_err();
    assert!(matches!(failed, Error::Unavailable { .. }), "{failed:?}");
    let unwell = bus.check().await.unwrap_err();
    assert!(matches!(unwell, Error::Unavailable { .. }), "{unwell:?}");
    proxy.set(Weather::Clear);
    // A verdict about what the lost connection brought can't arrive any more.
    held.done();
    publish_in_the_end(&bus, "3").await;
    let mut missing = HashSet::from(["2", "3"].map(str::to_owned));
    while !missing.is_empty() {
        let id = next_id(&mut consumer).await.to_string();
        // The acknowledgement of the first may have been on its way.
        assert!(
            missing.remove(&id) || id == "1",
            "{id}, and {missing:?} to come"
        );
    }
    timeout(PATIENCE, async { while bus.check().await.is_err() {} })
        .await
        .expect("it is well again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_black_hole_is_noticed_and_left() {
    let (proxy, bus) = behind_a_proxy().await;
    let mut reports = consume(join(&bus, "q", &["a"], 2).await);
    publish(&bus, "before", "a").await;
    until_seen(&mut reports, &HashSet::from(["before".to_owned()])).await;
    let connections = proxy.connections();
    proxy.set(Weather::BlackHole);
    let failed = timeout(Duration::from_secs(10), bus.publish(&event("in it", "a"))).await;
    let failed = failed.expect("within the patience").unwrap_err();
    assert!(matches!(failed, Error::Unavailable { .. }), "{failed:?}");
    let unwell = timeout(Duration::from_secs(10), bus.check()).await;
    assert!(unwell.expect("within the timeout").is_err());
    proxy.set(Weather::Clear);
    publish_in_the_end(&bus, "after").await;
    until_seen(&mut reports, &HashSet::from(["after".to_owned()])).await;
    assert!(proxy.connections() > connections, "on a new connection");
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_are_not_counted_for_lost_connections() {
    let (proxy, bus) = behind_a_proxy().await;
    let mut consumer = join(&bus, "q", &["a"], 10).await;
    let ids = ["1", "2", "3"].map(str::to_owned);
    for id in &ids {
        publish(&bus, id, "a").await;
    }
    for _ in 0..7 {
        // The others wait in the process that asked for one.
        let first = next(&mut consumer).await;
        assert_eq!(first.attempt, 1);
        let connections = proxy.connections();
        proxy.set(Weather::Reset);
        while proxy.connections() == connections {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        first.done();
        proxy.set(Weather::Clear);
    }
    for _ in ids {
        let delivery = next(&mut consumer).await;
        assert_eq!(delivery.attempt, 1);
        delivery.done();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_network_loses_nothing() {
    let (proxy, bus) = behind_a_proxy().await;
    let bus = Arc::new(bus);
    let mut reports = consume(join(&*bus, "q", &["a"], 8).await);
    let mut wanted = HashSet::new();
    let mut publishes = Vec::new();
    for round in 0..6_u32 {
        for number in 0..20 {
            let id = format!("{round}-{number}");
            wanted.insert(id.clone());
            let bus = Arc::clone(&bus);
            publishes.push(tokio::spawn(async move {
                publish_in_the_end(&*bus, &id).await;
            }));
        }
        proxy.set(match round % 3 {
            0 => Weather::CutAfter(2_000),
            1 => Weather::Slow(Duration::from_millis(50)),
            _ => Weather::Reset,
        });
        tokio::time::sleep(Duration::from_millis(400)).await;
        proxy.set(Weather::Clear);
    }
    for publish in publishes {
        publish.await.unwrap();
    }
    until_seen(&mut reports, &wanted).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_that_nobody_answers_are_given_up_whole() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("amqp://u:p@{}", listener.local_addr().unwrap());
    let bus = RabbitMq::new(Settings {
        timeout: Duration::from_millis(200),
        ..settings(&url, "")
    });
    for _ in 0..6 {
        let (mut stream, _) = listener.accept().await.unwrap();
        // Its end: no thread is left that would wait for an answer.
        let ended = timeout(PATIENCE, stream.read_to_end(&mut Vec::new())).await;
        assert!(ended.is_ok(), "it must be closed");
    }
    bus.unwrap().close().await;
}

/// A broker that tests may kill, one test at a time.
async fn frail() -> &'static Mutex<Server> {
    static FRAIL: OnceCell<Mutex<Server>> = OnceCell::const_new();
    let start = || async { Mutex::new(Server::start(Kind::RabbitMq).await) };
    FRAIL.get_or_init(start).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_killed_loses_nothing_confirmed() {
    const PUBLISHERS: usize = 4;
    const KILLS: usize = 2;
    let broker = frail().await.lock().await;
    let bus = RabbitMq::connect(impatient(&broker.url(), &prefix()))
        .await
        .unwrap();
    let bus = Arc::new(bus);
    let mut reports = consume(join(&*bus, "q", &["a"], 16).await);
    let over = tokio_util::sync::CancellationToken::new();
    let publishers: Vec<_> = (0..PUBLISHERS)
        .map(|publisher| {
            let (bus, over) = (Arc::clone(&bus), over.clone());
            tokio::spawn(async move {
                let (mut confirmed, mut failed) = (HashSet::new(), 0);
                for number in 0.. {
                    let id = format!("{publisher}-{number}");
                    match bus.publish(&event(&id, "a")).await {
                        Ok(()) => assert!(confirmed.insert(id)),
                        Err(Error::Unavailable { .. }) => failed += 1,
                        Err(error) => panic!("{error:?}"),
                    }
                    if over.is_cancelled() {
                        break;
                    }
                }
                (confirmed, failed)
            })
        })
        .collect();
    let began = std::time::Instant::now();
    for _ in 0..KILLS {
        tokio::time::sleep(Duration::from_millis(1500)).await;
        broker.kill();
        broker.up().await;
    }
    publish_in_the_end(&*bus, "last").await;
    over.cancel();
    let mut confirmed = HashSet::from(["last".to_owned()]);
    let mut failures = 0;
    for publisher in publishers {
        let (ids, failed) = publisher.await.unwrap();
        confirmed.extend(ids);
        failures += failed;
    }
    println!(
        "{} confirmed, {failures} failed, {KILLS} kills, {:?}",
        confirmed.len(),
        began.elapsed()
    );
    until_seen(&mut reports, &confirmed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_bus_outlives_a_restart_of_its_broker() {
    let broker = frail().await.lock().await;
    let bus = RabbitMq::connect(impatient(&broker.url(), &prefix()))
        .await
        .unwrap();
    let mut consumer = join(&bus, "q", &["a"], 1).await;
    let mut dead = bus.dead_letters().await.unwrap();
    publish(&bus, "1", "a").await;
    next(&mut consumer).await.reject("no");
    drop(next(&mut dead).await);
    let waiting = tokio::spawn(async move { next(&mut consumer).await.event.id });
    broker.stop().await;
    let unwell = bus.check().await.unwrap_err();
    assert!(matches!(unwell, Error::Unavailable { .. }), "{unwell:?}");
    assert!(unwell.to_string().contains("127.0.0.1"), "{unwell}");
    broker.up().await;
    publish_in_the_end(&bus, "2").await;
    assert_eq!(waiting.await.unwrap().as_str(), "2");
    let letter = next(&mut dead).await;
    assert_eq!(letter.event.id.as_str(), "1");
    letter.done();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bus_may_be_there_before_its_broker() {
    let broker = frail().await.lock().await;
    broker.stop().await;
    let bus = RabbitMq::new(impatient(&broker.url(), &prefix())).unwrap();
    assert!(bus.check().await.is_err());
    let refused = bus.publish(&event("1", "a")).await.unwrap_err();
    assert!(refused.to_string().contains("refused"), "{refused}");
    broker.up().await;
    timeout(PATIENCE, async { while bus.check().await.is_err() {} })
        .await
        .expect("it connects by itself");
    let mut consumer = join(&bus, "q", &["a"], 1).await;
    publish(&bus, "1", "a").await;
    assert_eq!(next_id(&mut consumer).await.as_str(), "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn whispering_never_waits_for_the_broker_and_is_heard_again_after_it() {
    let (proxy, bus) = behind_a_proxy().await;
    let mut listener = bus.listen(&["a".to_owned()]).await.unwrap();
    proxy.set(Weather::Reset);
    let began = std::time::Instant::now();
    for _ in 0..10_000 {
        bus.whisper("a", b"in vain".to_vec());
    }
    assert!(began.elapsed() < Duration::from_secs(5), "it waits");
    proxy.set(Weather::Clear);
    let again = async {
        loop {
            bus.whisper("a", b"again".to_vec());
            let heard = timeout(Duration::from_millis(100), listener.next()).await;
            if heard.is_ok_and(|words| words.as_deref() == Some(b"again")) {
                return;
            }
        }
    };
    timeout(PATIENCE, again).await.expect("it is heard again");
}
