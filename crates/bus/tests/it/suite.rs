//! What every bus does. `suite!` makes the tests for one adapter, in its module: from a function that makes an empty
//! bus for each test, and arguments for `tokio::test`, such as that for a paused clock.

use std::collections::HashSet;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use bus::{Bus, Error, Listener, MAX_ATTEMPTS};
use futures::FutureExt;
use tokio::time::{Instant, timeout};

use crate::support::{event, join, next, next_id, publish, quiet};

/// Long enough that a wrong delivery shows, short enough for a real clock.
const MOMENT: Duration = Duration::from_millis(300);

/// A bus under test.
pub(crate) struct Subject {
    pub(crate) bus: Arc<dyn Bus>,
    /// How much earlier and later than said a delivery may come: for the grain of a broker's clock, and for its
    /// scheduling.
    pub(crate) early: Duration,
    pub(crate) late: Duration,
}

impl Subject {
    fn assert_in_time(&self, took: Duration, said: Duration) {
        assert!(
            said <= took + self.early && took < said + self.late,
            "it took {took:?}, not {said:?}"
        );
    }
}

impl Deref for Subject {
    type Target = dyn Bus;

    fn deref(&self) -> &Self::Target {
        &*self.bus
    }
}

macro_rules! suite {
    ($fresh:path $(, $argument:ident = $value:literal)*) => {
        suite! {
            @tests $fresh, { $($argument = $value),* },
            what_is_published_arrives_whole,
            patterns_choose_the_queues,
            two_matching_patterns_make_one_delivery,
            a_queue_keeps_the_order,
            competing_consumers_get_each_event_once,
            a_queue_collects_while_nobody_consumes,
            a_removed_queue_and_what_it_held_are_gone,
            a_dropped_delivery_comes_again_at_once,
            a_delivery_dropped_each_time_is_a_dead_letter,
            a_panicking_consumer_loses_nothing,
            a_retry_comes_after_1_2_4_and_8_seconds,
            a_resting_event_holds_up_no_other,
            a_rejected_event_is_a_dead_letter_at_once,
            dead_letters_of_all_queues_come_together,
            an_unsettled_dead_letter_comes_again,
            prefetch_bounds_what_a_consumer_holds,
            prefetch_of_one_consumer_does_not_bind_another,
            patterns_are_replaced_live,
            an_abandoned_wait_loses_nothing,
            a_whisper_reaches_whoever_listens_now_and_nobody_else,
            a_listener_who_does_not_listen_misses_something_and_holds_up_nobody,
            closing_ends_consumers_and_refuses_the_rest,
        }
    };
    (@tests $fresh:path, $arguments:tt, $($test:ident),* $(,)?) => {
        $(suite! { @test $test, $fresh, $arguments })*
    };
    (@test $test:ident, $fresh:path, { $($argument:ident = $value:literal),* }) => {
        #[tokio::test($($argument = $value),*)]
        async fn $test() {
            let subject: $crate::suite::Subject = $fresh().await;
            $crate::suite::$test(subject).await;
        }
    };
}

pub(crate) async fn what_is_published_arrives_whole(bus: Subject) {
    let mut consumer = join(&*bus, "q", &["orders.created"], 1).await;
    let sent = event("1", "orders.created");
    bus.publish(&sent).await.unwrap();
    let delivery = next(&mut consumer).await;
    assert_eq!(delivery.event, sent);
    assert_eq!(
        (&*delivery.queue, delivery.attempt, &delivery.reason),
        ("q", 1, &None)
    );
    delivery.done();
    quiet(&mut consumer, MOMENT).await;
    assert!(bus.check().await.is_ok());
}

pub(crate) async fn patterns_choose_the_queues(bus: Subject) {
    let mut exact = join(&*bus, "exact", &["orders.created"], 10).await;
    let mut one = join(&*bus, "one", &["orders.*"], 10).await;
    let mut many = join(&*bus, "many", &["orders.#"], 10).await;
    let mut other = join(&*bus, "other", &["*.paid", "bills.#.paid"], 10).await;
    for topic in [
        "orders",
        "orders.created",
        "orders.paid",
        "orders.created.late",
        "bills.x.y.paid",
    ] {
        publish(&*bus, topic, topic).await;
    }
    // Nobody wants it, and that is no error.
    publish(&*bus, "unwanted", "unwanted").await;
    for (consumer, expected) in [
        (&mut exact, &["orders.created"][..]),
        (&mut one, &["orders.created", "orders.paid"]),
        (
            &mut many,
            &[
                "orders",
                "orders.created",
                "orders.paid",
                "orders.created.late",
            ],
        ),
        (&mut other, &["orders.paid", "bills.x.y.paid"]),
    ] {
        for id in expected {
            assert_eq!(next_id(consumer).await.as_str(), *id);
        }
        quiet(consumer, MOMENT).await;
    }
}

pub(crate) async fn two_matching_patterns_make_one_delivery(bus: Subject) {
    let mut consumer = join(&*bus, "q", &["a.b", "a.*", "#", "a.#"], 10).await;
    publish(&*bus, "1", "a.b").await;
    assert_eq!(next_id(&mut consumer).await.as_str(), "1");
    quiet(&mut consumer, MOMENT).await;
}

pub(crate) async fn a_queue_keeps_the_order(bus: Subject) {
    let mut consumer = join(&*bus, "q", &["#"], 10).await;
    for id in 0..200 {
        publish(&*bus, &id.to_string(), "a").await;
    }
    for id in 0..200 {
        assert_eq!(next_id(&mut consumer).await.as_str(), id.to_string());
    }
}

pub(crate) async fn competing_consumers_get_each_event_once(bus: Subject) {
    const EVENTS: usize = 300;
    let (report, mut reports) = tokio::sync::mpsc::unbounded_channel();
    for _ in 0..3 {
        let mut consumer = join(&*bus, "q", &["a"], 5).await;
        let report = report.clone();
        tokio::spawn(async move {
            while let Some(delivery) = consumer.next().await {
                report.send(delivery.event.id.clone()).unwrap();
                delivery.done();
                tokio::task::yield_now().await;
            }
        });
    }
    drop(report);
    for id in 0..EVENTS {
        publish(&*bus, &id.to_string(), "a").await;
    }
    let mut seen = HashSet::new();
    while seen.len() < EVENTS {
        let id = reports.recv().await.expect("the consumers must go on");
        assert!(seen.insert(id), "an event came to two consumers");
    }
    bus.close().await;
    assert_eq!(reports.recv().await, None, "an event came twice");
}

pub(crate) async fn a_queue_collects_while_nobody_consumes(bus: Subject) {
    drop(join(&*bus, "q", &["a"], 1).await);
    publish(&*bus, "1", "a").await;
    let mut consumer = join(&*bus, "q", &["a"], 1).await;
    let delivery = next(&mut consumer).await;
    assert_eq!((delivery.event.id.as_str(), delivery.attempt), ("1", 1));
    delivery.done();
}

pub(crate) async fn a_removed_queue_and_what_it_held_are_gone(bus: Subject) {
    let mut letters = bus.dead_letters().await.unwrap();
    let mut consumer = join(&*bus, "q", &["a"], 1).await;
    publish(&*bus, "1", "a").await;
    next(&mut consumer).await.reject("no");
    publish(&*bus, "2", "a").await;
    assert_eq!(next(&mut letters).await.event.id.as_str(), "1", "put back");
    drop(consumer);
    for _ in 0..2 {
        bus.remove("q").await.expect("also when it is not there");
    }
    publish(&*bus, "3", "a").await;
    quiet(&mut letters, MOMENT).await;
    let mut consumer = join(&*bus, "q", &["a"], 1).await;
    quiet(&mut consumer, MOMENT).await;
    publish(&*bus, "4", "a").await;
    assert_eq!(next_id(&mut consumer).await.as_str(), "4");
    quiet(&mut letters, MOMENT).await;
}

pub(crate) async fn a_dropped_delivery_comes_again_at_once(bus: Subject) {
    let mut consumer = join(&*bus, "q", &["a"], 1).await;
    publish(&*bus, "1", "a").await;
    let before = Instant::now();
    drop(next(&mut consumer).await);
    let delivery = next(&mut consumer).await;
    assert_eq!((delivery.event.id.as_str(), delivery.attempt), ("1", 2));
    bus.assert_in_time(before.elapsed(), Duration::ZERO);
    delivery.done();
    quiet(&mut consumer, MOMENT).await;
}

pub(crate) async fn a_delivery_dropped_each_time_is_a_dead_letter(bus: Subject) {
    let mut consumer = join(&*bus, "q", &["a"], 1).await;
    let mut dead = bus.dead_letters().await.unwrap();
    publish(&*bus, "poison", "a").await;
    for attempt in 1..=MAX_ATTEMPTS {
        let delivery = next(&mut consumer).await;
        assert_eq!(delivery.attempt, attempt);
    }
    let letter = next(&mut dead).await;
    assert_eq!(letter.attempt, MAX_ATTEMPTS);
    assert!(
        letter
            .reason
            .as_ref()
            .is_some_and(|reason| !reason.is_empty())
    );
    letter.done();
    quiet(&mut consumer, MOMENT).await;
}

pub(crate) async fn a_panicking_consumer_loses_nothing(bus: Subject) {
    let mut doomed = join(&*bus, "q", &["a"], 1).await;
    let mut other = join(&*bus, "q", &["a"], 1).await;
    let (took, taken) = tokio::sync::oneshot::channel();
    let task = tokio::spawn(async move {
        let _delivery = doomed.next().await.unwrap();
        took.send(()).unwrap();
        panic!("a test's panic");
    });
    // So that the doomed one gets it, the other does not ask before it has it.
    publish(&*bus, "1", "a").await;
    taken.await.unwrap();
    let delivery = next(&mut other).await;
    assert_eq!((delivery.event.id.as_str(), delivery.attempt), ("1", 2));
    delivery.done();
    assert!(task.await.unwrap_err().is_panic());
    publish(&*bus, "2", "a").await;
    assert_eq!(next_id(&mut other).await.as_str(), "2");
}

pub(crate) async fn a_retry_comes_after_1_2_4_and_8_seconds(bus: Subject) {
    let mut consumer = join(&*bus, "q", &["a"], 1).await;
    let mut dead = bus.dead_letters().await.unwrap();
    publish(&*bus, "1", "a").await;
    let delivery = next(&mut consumer).await;
    assert_eq!(delivery.attempt, 1);
    delivery.retry("the database is away (1)");
    for (attempt, seconds) in [(2, 1), (3, 2), (4, 4), (5, 8)] {
        let before = Instant::now();
        let delivery = next(&mut consumer).await;
        bus.assert_in_time(before.elapsed(), Duration::from_secs(seconds));
        assert_eq!(delivery.attempt, attempt);
        delivery.retry(format!("the database is away ({attempt})"));
    }
    let letter = next(&mut dead).await;
    assert_eq!(letter.event, event("1", "a"));
    assert_eq!((&*letter.queue, letter.attempt), ("q", 5));
    assert_eq!(letter.reason.as_deref(), Some("the database is away (5)"));
    letter.done();
    quiet(&mut consumer, MOMENT).await;
}

pub(crate) async fn a_resting_event_holds_up_no_other(bus: Subject) {
    let mut consumer = join(&*bus, "q", &["a"], 1).await;
    publish(&*bus, "1", "a").await;
    next(&mut consumer).await.retry("not yet");
    let before = Instant::now();
    publish(&*bus, "2", "a").await;
    assert_eq!(next_id(&mut consumer).await.as_str(), "2");
    bus.assert_in_time(before.elapsed(), Duration::ZERO);
    assert_eq!(next_id(&mut consumer).await.as_str(), "1");
}

pub(crate) async fn a_rejected_event_is_a_dead_letter_at_once(bus: Subject) {
    let mut consumer = join(&*bus, "q", &["a"], 1).await;
    let mut dead = bus.dead_letters().await.unwrap();
    publish(&*bus, "1", "a").await;
    next(&mut consumer).await.reject("no such agent");
    let letter = next(&mut dead).await;
    assert_eq!((&*letter.queue, letter.attempt), ("q", 1));
    assert_eq!(letter.reason.as_deref(), Some("no such agent"));
    letter.done();
    quiet(&mut consumer, MOMENT).await;
}

pub(crate) async fn dead_letters_of_all_queues_come_together(bus: Subject) {
    for queue in ["q", "r"] {
        let mut consumer = join(&*bus, queue, &[queue], 1).await;
        publish(&*bus, queue, queue).await;
        next(&mut consumer).await.reject("no");
    }
    // They wait for whoever asks first, however late.
    let mut dead = bus.dead_letters().await.unwrap();
    let mut from = vec![];
    for _ in 0..2 {
        let letter = next(&mut dead).await;
        from.push((letter.queue.clone(), letter.event.id.as_str().to_owned()));
        letter.done();
    }
    from.sort();
    let expected = ["q", "r"].map(|name| (name.to_owned(), name.to_owned()));
    assert_eq!(from, expected);
    quiet(&mut dead, MOMENT).await;
}

pub(crate) async fn an_unsettled_dead_letter_comes_again(bus: Subject) {
    let mut consumer = join(&*bus, "q", &["a"], 1).await;
    let mut dead = bus.dead_letters().await.unwrap();
    publish(&*bus, "1", "a").await;
    next(&mut consumer).await.reject("no");
    for _ in 0..7 {
        drop(next(&mut dead).await);
    }
    next(&mut dead).await.retry("the store is away");
    let letter = next(&mut dead).await;
    assert_eq!((&*letter.queue, letter.attempt), ("q", 1));
    assert_eq!(letter.reason.as_deref(), Some("no"));
    letter.done();
    quiet(&mut dead, MOMENT).await;
}

pub(crate) async fn prefetch_bounds_what_a_consumer_holds(bus: Subject) {
    let mut consumer = join(&*bus, "q", &["a"], 2).await;
    for id in ["1", "2", "3", "4"] {
        publish(&*bus, id, "a").await;
    }
    let first = next(&mut consumer).await;
    let second = next(&mut consumer).await;
    quiet(&mut consumer, MOMENT).await;
    second.done();
    let third = next(&mut consumer).await;
    assert_eq!(third.event.id.as_str(), "3");
    quiet(&mut consumer, MOMENT).await;
    // Each way of letting go frees the hand.
    drop(first);
    let again = next(&mut consumer).await;
    assert_eq!((again.event.id.as_str(), again.attempt), ("1", 2));
    again.reject("no");
    assert_eq!(next_id(&mut consumer).await.as_str(), "4");
    third.done();
    quiet(&mut consumer, MOMENT).await;
}

pub(crate) async fn prefetch_of_one_consumer_does_not_bind_another(bus: Subject) {
    let mut slow = join(&*bus, "q", &["a"], 1).await;
    publish(&*bus, "1", "a").await;
    let held = next(&mut slow).await;
    let mut quick = join(&*bus, "q", &["a"], 1).await;
    publish(&*bus, "2", "a").await;
    // The one with full hands asks first and must not be in the way.
    assert!(slow.next().now_or_never().is_none());
    assert_eq!(next_id(&mut quick).await.as_str(), "2");
    held.done();
}

pub(crate) async fn patterns_are_replaced_live(bus: Subject) {
    let mut old = join(&*bus, "q", &["a", "b.*"], 10).await;
    publish(&*bus, "1", "a").await;
    let new = join(&*bus, "q", &["b.*", "c"], 10).await;
    publish(&*bus, "2", "a").await;
    publish(&*bus, "3", "b.x").await;
    publish(&*bus, "4", "c").await;
    drop(new);
    for id in ["1", "3", "4"] {
        assert_eq!(next_id(&mut old).await.as_str(), id);
    }
    drop(join(&*bus, "q", &[], 10).await);
    publish(&*bus, "5", "c").await;
    quiet(&mut old, MOMENT).await;
}

pub(crate) async fn an_abandoned_wait_loses_nothing(bus: Subject) {
    let mut consumer = join(&*bus, "q", &["a"], 1).await;
    for round in 0..20 {
        let id = round.to_string();
        // Abandoned at another point each time, the first ones before it has begun to consume.
        let wait = timeout(Duration::from_millis(round), consumer.next());
        assert!(wait.await.is_err(), "nothing was published yet");
        publish(&*bus, &id, "a").await;
        assert_eq!(next_id(&mut consumer).await.as_str(), id);
    }
}

pub(crate) async fn closing_ends_consumers_and_refuses_the_rest(bus: Subject) {
    let mut idle = join(&*bus, "idle", &["b"], 1).await;
    let mut busy = join(&*bus, "busy", &["a"], 1).await;
    let mut dead = bus.dead_letters().await.unwrap();
    publish(&*bus, "1", "a").await;
    publish(&*bus, "2", "a").await;
    let held = next(&mut busy).await;
    let waiting = tokio::spawn(async move { idle.next().await.is_none() });
    tokio::task::yield_now().await;
    bus.close().await;
    assert!(waiting.await.unwrap(), "a waiting consumer ends");
    assert!(busy.next().await.is_none(), "one with full hands ends");
    assert!(dead.next().await.is_none());
    held.done();
    assert!(
        busy.next().await.is_none(),
        "what waits is not delivered any more"
    );
    let refused = bus.publish(&event("3", "a")).await;
    assert!(matches!(refused, Err(Error::Closed)), "{refused:?}");
    assert!(matches!(bus.check().await, Err(Error::Closed)));
    assert!(matches!(
        bus.dead_letters().await.err(),
        Some(Error::Closed)
    ));
    bus.close().await;
}

async fn heard(listener: &mut Box<dyn Listener>) -> String {
    let words = timeout(Duration::from_secs(60), listener.next()).await;
    let words = words.expect("something is heard").expect("the bus is open");
    String::from_utf8(words).unwrap()
}

async fn hears_nothing(listener: &mut Box<dyn Listener>) {
    let heard = timeout(MOMENT, listener.next()).await;
    assert!(heard.is_err(), "{heard:?}");
}

pub(crate) async fn a_whisper_reaches_whoever_listens_now_and_nobody_else(bus: Subject) {
    let channels = |names: &[&str]| {
        names
            .iter()
            .map(|name| (*name).to_owned())
            .collect::<Vec<_>>()
    };
    let mut first = bus.listen(&channels(&["a", "b"])).await.unwrap();
    let mut second = bus.listen(&channels(&["a"])).await.unwrap();
    for n in 0..3 {
        bus.whisper("a", format!("a{n}").into_bytes());
    }
    bus.whisper("b", b"b".to_vec());
    bus.whisper("c", b"c".to_vec());
    for words in ["a0", "a1", "a2", "b"] {
        assert_eq!(heard(&mut first).await, words);
    }
    for words in ["a0", "a1", "a2"] {
        assert_eq!(heard(&mut second).await, words);
    }
    hears_nothing(&mut first).await;
    hears_nothing(&mut second).await;
    // No queue hears it, and it does no harm that nobody listens any more.
    let mut consumer = join(&*bus, "q", &["#"], 1).await;
    drop((first, second));
    bus.whisper("a", b"too late".to_vec());
    bus.whisper("a", vec![b'x'; bus::MAX_WHISPER + 1]);
    quiet(&mut consumer, MOMENT).await;
    let mut third = bus.listen(&channels(&["a"])).await.unwrap();
    bus.whisper("a", b"again".to_vec());
    assert_eq!(heard(&mut third).await, "again");
}

pub(crate) async fn a_listener_who_does_not_listen_misses_something_and_holds_up_nobody(
    bus: Subject,
) {
    const MANY: usize = 20_000;
    let channels = ["a".to_owned()];
    let mut idle = bus.listen(&channels).await.unwrap();
    for n in 0..MANY {
        bus.whisper("a", n.to_string().into_bytes());
    }
    let mut consumer = join(&*bus, "q", &["x"], 1).await;
    publish(&*bus, "1", "x").await;
    assert_eq!(next_id(&mut consumer).await.as_str(), "1");
    let mut got = Vec::new();
    while let Ok(Some(words)) = timeout(MOMENT, idle.next()).await {
        got.push(String::from_utf8(words).unwrap().parse::<usize>().unwrap());
    }
    assert!(!got.is_empty() && got.len() < MANY / 2, "{}", got.len());
    assert!(got.is_sorted(), "in the order in which it was said");
}
