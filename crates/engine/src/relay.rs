//! Carries the outbox to the bus, and what the bus could not deliver back into the store.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bus::{Bus, Consumer};
use domain::{Event, EventId, Time};
use futures::{StreamExt, stream};
use store::{DeadLetter, OutboxClaim, OutboxEntry, Store};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::shared::Shared;
use crate::{Error, subscriptions};

/// How many events are taken from the outbox at once.
const BATCH: usize = 256;
/// How many of them are on their way to the bus at the same time: a broker confirms many as fast as one.
const AT_ONCE: usize = 64;
/// How long what was taken is this relay's own: one that dies delays its events by no more.
const LEASE: Duration = Duration::from_secs(10);
/// How long a publish may take before it is tried again.
const PATIENCE: Duration = Duration::from_secs(8);
/// How long to rest before a queue is joined again.
const REST: Duration = Duration::from_secs(5);

/// Publishes what the outbox holds until `stop`, and once more after it. The relays of several processes share it: each
/// claims what it takes. An event is forgotten only after the agents that want it are started and the bus has it, so a
/// crash in between does both again, and both know it by its id.
pub(crate) async fn relay(core: Arc<Shared>, stop: CancellationToken) {
    let signal = core.ports.store.outbox_signal().unwrap_or_default();
    loop {
        core.pace.make_way().await;
        let more = relay_once(&core).await;
        if stop.is_cancelled() {
            return;
        }
        if more == Some(BATCH) {
            continue;
        }
        wait(&signal, more.is_none(), &stop).await;
    }
}

async fn wait(signal: &Notify, failed: bool, stop: &CancellationToken) {
    let pause = if failed {
        Duration::from_secs(1)
    } else {
        Duration::from_secs(2)
    };
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        () = signal.notified(), if !failed => {}
        () = tokio::time::sleep(pause) => {}
    }
}

/// Carries one batch: how many there were, or `None` when it did not work.
async fn relay_once(core: &Shared) -> Option<usize> {
    let store = core.ports.store.as_ref();
    let entries = take(store, core.now()).await?;
    let start = async |entry: OutboxEntry| (start_agents(core, &entry.event).await, entry);
    let started: Vec<(bool, OutboxEntry)> = stream::iter(entries)
        .map(start)
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    let (ready, unready): (Vec<_>, Vec<_>) = started.into_iter().partition(|(is_done, _)| *is_done);
    give_back(store, unready.iter().map(|(_, entry)| entry.id).collect()).await;
    let ready = ready.into_iter().map(|(_, entry)| entry).collect();
    let noted = |event: &Event| core.feed.event(event);
    let carried = carry(store, core.ports.bus.as_ref(), ready, &noted).await;
    carried.filter(|_| unready.is_empty())
}

/// Whether nothing is left to start. What can't be started is left to the queue of subscriptions, which says so.
async fn start_agents(core: &Shared, event: &Event) -> bool {
    match subscriptions::start(core, event).await {
        Err(Error::Store(error)) => {
            tracing::warn!(topic = %event.topic, "an event waits to start agents: {error}");
            false
        }
        Ok(()) | Err(_) => true,
    }
}

/// Claims a batch; `None` when the outbox can't be read.
async fn take(store: &dyn Store, now: Time) -> Option<Vec<OutboxEntry>> {
    let claim = OutboxClaim {
        now,
        lease: LEASE,
        limit: BATCH,
    };
    match store.claim_outbox(claim).await {
        Ok(entries) => Some(entries),
        Err(error) => {
            tracing::error!("the outbox can't be read: {error}");
            None
        }
    }
}

/// Hands claimed events to the bus, and tells which it has: how many, or `None` when it did not take all.
async fn carry(
    store: &dyn Store,
    bus: &dyn Bus,
    entries: Vec<OutboxEntry>,
    tell: &(dyn Fn(&Event) + Sync),
) -> Option<usize> {
    let claimed: Vec<i64> = entries.iter().map(|entry| entry.id).collect();
    let is_well = AtomicBool::new(true);
    // In no order: events promise none. After a failure no further one is begun, and what the bus took is forgotten.
    let delivered: HashSet<i64> = stream::iter(entries)
        .take_while(|_| std::future::ready(is_well.load(Ordering::Relaxed)))
        .map(|entry| publish(bus, entry, &is_well, tell))
        .buffer_unordered(AT_ONCE)
        .filter_map(std::future::ready)
        .collect()
        .await;
    let (delivered, left): (Vec<i64>, Vec<i64>) =
        claimed.into_iter().partition(|id| delivered.contains(id));
    let is_all = left.is_empty();
    give_back(store, left).await;
    if !delivered.is_empty()
        && let Err(error) = store.outbox_done(&delivered).await
    {
        tracing::error!("the outbox can't be written, events will be sent twice: {error}");
        return None;
    }
    is_all.then_some(delivered.len())
}

/// Lets others, or this one the next time, take what could not be carried.
async fn give_back(store: &dyn Store, left: Vec<i64>) {
    if !left.is_empty()
        && let Err(error) = store.release_outbox(&left).await
    {
        tracing::warn!("events that wait are given back when their claim runs out: {error}");
    }
}

/// Hands an event to the bus: its place in the outbox when the bus has it.
async fn publish(
    bus: &dyn Bus,
    entry: OutboxEntry,
    is_well: &AtomicBool,
    tell: &(dyn Fn(&Event) + Sync),
) -> Option<i64> {
    let OutboxEntry { id, event } = entry;
    let error = match tokio::time::timeout(PATIENCE, bus.publish(&event)).await {
        Ok(Ok(())) => {
            tell(&event);
            return Some(id);
        }
        Ok(Err(error)) => error.to_string(),
        Err(_) => "the message queue does not answer".to_owned(),
    };
    // What was begun with it fails for the same reason; once is enough to say it.
    if is_well.swap(false, Ordering::Relaxed) {
        tracing::warn!(topic = %event.topic, "events wait: {error}");
    }
    None
}

/// Puts what no consumer could process where a person finds it.
pub(crate) async fn collect_dead_letters(core: Arc<Shared>, stop: CancellationToken) {
    let open = || core.ports.bus.dead_letters();
    let Some(mut letters) = joined("dead letters", open, &stop).await else {
        return;
    };
    loop {
        let delivery = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            delivery = letters.next() => delivery,
        };
        let Some(delivery) = delivery else { return };
        let letter = letter(&delivery, &core);
        tracing::warn!(queue = %letter.queue, topic = %letter.event.topic, "dead letter: {}", letter.reason);
        match core.ports.store.add_dead_letter(letter).await {
            Ok(()) => {
                metrics::counter!("agentrunner_dead_letters_total").increment(1);
                delivery.done();
            }
            Err(error) => delivery.retry(error.to_string()),
        }
    }
}

fn letter(delivery: &bus::Delivery, core: &Shared) -> DeadLetter {
    DeadLetter {
        id: (core.new_id)().to_string(),
        queue: delivery.queue.clone(),
        event: delivery.event.clone(),
        reason: delivery
            .reason
            .clone()
            .unwrap_or_else(|| "no reason given".to_owned()),
        attempts: delivery.attempt,
        at: core.now(),
    }
}

/// Listens for hints that there is work.
pub(crate) async fn listen(
    queue: String,
    patterns: Vec<domain::TopicPattern>,
    core: Arc<Shared>,
    stop: CancellationToken,
) {
    let subscription = bus::Subscription {
        queue,
        patterns,
        prefetch: 64,
    };
    let open = || core.ports.bus.subscribe(subscription.clone());
    let Some(mut hints) = joined("hints of work", open, &stop).await else {
        return;
    };
    let mut last: Option<EventId> = None;
    loop {
        let delivery = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            delivery = hints.next() => delivery,
        };
        let Some(delivery) = delivery else { return };
        // A hint repeated is no news.
        if last.as_ref() != Some(&delivery.event.id) {
            core.hint.notify_one();
            last = Some(delivery.event.id.clone());
        }
        delivery.done();
    }
}

/// Joins a queue, and tries until it works: a broker that was away must not cost its messages for good. `None` when
/// `stop` came or the bus is closed.
async fn joined<F>(
    what: &str,
    open: impl Fn() -> F,
    stop: &CancellationToken,
) -> Option<Box<dyn Consumer>>
where
    F: Future<Output = Result<Box<dyn Consumer>, bus::Error>>,
{
    loop {
        let error = tokio::select! {
            biased;
            () = stop.cancelled() => return None,
            opened = open() => match opened {
                Ok(consumer) => return Some(consumer),
                Err(bus::Error::Closed) => return None,
                Err(error) => error,
            },
        };
        tracing::error!(
            "no {what} come, it is tried again; until then the store is asked: {error}"
        );
        tokio::select! {
            biased;
            () = stop.cancelled() => return None,
            () = tokio::time::sleep(REST) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use bus::Subscription;
    use domain::TraceId;
    use store::sqlite::{Options, Sqlite};
    use tokio::sync::Barrier;

    use super::*;

    /// Takes a batch and carries it.
    async fn relayed(store: &dyn Store, bus: &dyn Bus, now: Time) -> Option<usize> {
        let entries = take(store, now).await?;
        carry(store, bus, entries, &|_| {}).await
    }

    /// Confirms only when so many are on their way at the same time.
    const TOGETHER: usize = 8;

    struct Broker {
        confirms: Barrier,
        refuses: Option<&'static str>,
    }

    #[async_trait]
    impl Bus for Broker {
        async fn publish(&self, event: &Event) -> Result<(), bus::Error> {
            self.confirms.wait().await;
            if self.refuses == Some(event.id.as_str()) {
                return Err(bus::Error::Closed);
            }
            Ok(())
        }

        async fn subscribe(&self, _: Subscription) -> Result<Box<dyn Consumer>, bus::Error> {
            Err(bus::Error::Closed)
        }

        async fn remove(&self, _: &str) -> Result<(), bus::Error> {
            Err(bus::Error::Closed)
        }

        async fn dead_letters(&self) -> Result<Box<dyn Consumer>, bus::Error> {
            Err(bus::Error::Closed)
        }

        fn whisper(&self, _: &str, _: Vec<u8>) {}

        async fn listen(&self, _: &[String]) -> Result<Box<dyn bus::Listener>, bus::Error> {
            Err(bus::Error::Closed)
        }

        async fn check(&self) -> Result<(), bus::Error> {
            Ok(())
        }

        async fn close(&self) {}
    }

    fn event(n: usize) -> Event {
        Event {
            id: format!("event-{n}").parse().unwrap(),
            topic: "news.made".parse().unwrap(),
            source: "agentrunner/tests".to_owned(),
            time: "2026-11-24T09:30:00Z".parse().unwrap(),
            trace_id: TraceId::try_from("0af7651916cd43dd8448eb211c80319c".to_owned()).unwrap(),
            hops: 0,
            data: serde_json::Value::Null,
        }
    }

    #[tokio::test]
    async fn events_go_out_together_and_only_what_was_confirmed_is_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let store = Sqlite::open(&folder.path().join("test.db"), Options::default()).unwrap();
        let events: Vec<Event> = (0..2 * TOGETHER).map(event).collect();
        store.publish(&events).await.unwrap();
        let broker = |together, refuses| Broker {
            confirms: Barrier::new(together),
            refuses,
        };
        let now: Time = "2026-11-24T09:30:00Z".parse().unwrap();
        assert_eq!(
            relayed(&store, &broker(TOGETHER, Some("event-5")), now).await,
            None
        );
        let left = store.outbox(BATCH).await.unwrap();
        let left: Vec<_> = left.iter().map(|entry| entry.event.id.as_str()).collect();
        assert_eq!(left, ["event-5"]);
        // It was given back at once.
        assert_eq!(relayed(&store, &broker(1, None), now).await, Some(1));
        assert_eq!(relayed(&store, &broker(1, None), now).await, Some(0));
    }

    #[tokio::test]
    async fn relays_side_by_side_publish_each_event_once_and_one_that_died_only_delays() {
        let folder = tempfile::tempdir().unwrap();
        let store = Sqlite::open(&folder.path().join("test.db"), Options::default()).unwrap();
        let events: Vec<Event> = (0..BATCH + 5).map(event).collect();
        store.publish(&events).await.unwrap();
        let now: Time = "2026-11-24T09:30:00Z".parse().unwrap();
        let broker = |together| Broker {
            confirms: Barrier::new(together),
            refuses: None,
        };
        // The first to ask takes its batch, and nobody confirms it.
        let (silent, well) = (broker(BATCH), broker(1));
        let mut dying = Box::pin(relayed(&store, &silent, now));
        tokio::select! {
            biased;
            _ = &mut dying => panic!("nobody confirms"),
            carried = relayed(&store, &well, now) => assert_eq!(carried, Some(5)),
        }
        drop(dying);
        assert_eq!(store.outbox(BATCH + 5).await.unwrap().len(), BATCH);
        let carried = relayed(&store, &well, now).await;
        assert_eq!(carried, Some(0), "they are another's for now");
        assert_eq!(relayed(&store, &well, now + LEASE).await, Some(BATCH));
    }
}
